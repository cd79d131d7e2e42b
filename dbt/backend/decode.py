"""The native decoder: ``decode`` is the handler of every op that has not been decoded yet.

It recognises the word by the tables of :mod:`dbt.backend.predecode`, fills the op, and calls its new handler.
"""

from __future__ import annotations

from dbt.abi.layout import (
    BREAKPOINT,
    CODE_PAGE_SIZE,
    CODE_PAGE_STRIDE_SHIFT,
    OP_BODY,
    OP_CALLOUTS,
    OP_COVERED,
    OP_SHIFT,
    PAGE_SHIFT,
    PAGE_SIZE,
)
from dbt.backend.builder import Builder, HandlerBuilder, Value
from dbt.backend.code_pages import mark_changed
from dbt.backend.predecode import HOLES, ROW, ROW_OFFSETS
from isa.arm.a32.decoding import (
    CONDITION_SHIFT,
    HIGH_MASK,
    HIGH_SHIFT,
    LOW_MASK,
    LOW_SHIFT,
    UNCONDITIONAL_BIT,
)
from isa.arm.operands import ALWAYS, UNCONDITIONAL


def _decode() -> HandlerBuilder:
    f = HandlerBuilder("decode")
    op = f["op"]
    with f.when(op.at(OP_COVERED).load("i8").has(BREAKPOINT), likely=False):
        f.tail_to("break_point")
    word = _word(f)
    row = find_row(f, word)
    image = f.load_native("image", "ptr")
    handler = row_field(row, "handler", "i32")
    f.call(image.at(row_field(row, "fill", "i32")), op, word)
    f.store(f.value("i32", 0), op.at(OP_CALLOUTS))
    condition = row_field(row, "has_condition", "i8").ne(0).choose(word >> CONDITION_SHIFT, ALWAYS)
    with_pc = has_pc_operand(f, row, word)
    chosen = f.variable("ptr", image.at(handler))
    with f.when(condition.ne(ALWAYS) | with_pc.ne(0)):
        f.store(handler, op.at(OP_BODY))
        guards = f.load_native("decode_guards", "ptr")
        chosen.set(image.at(guards.element("i32", condition << 1 | with_pc).load("i32")))
    f.store(chosen.get(), op)
    f.tail(chosen.get())
    return f


def row_field(row: Value, name: str, type_: str) -> Value:
    """Load a field of a row of the decoder."""
    return row.at(ROW_OFFSETS[name]).load(type_)


def _word(f: HandlerBuilder) -> Value:
    """Load the guest word of this op, whose place follows from the op's address. Its page is marked as changed."""
    distance = f["op"].to("i64") - f.load_native("code_pages")
    page = (distance >> (CODE_PAGE_STRIDE_SHIFT - PAGE_SHIFT)) & -PAGE_SIZE
    gpa = page | (distance & (CODE_PAGE_SIZE - 1)) >> OP_SHIFT
    mark_changed(f, gpa)
    return f.load_native("ram_host", "ptr").at(gpa).load("i32")


def find_row(f: Builder, word: Value) -> Value:
    """Return the row of the form that a word has. The last row that is tried matches every word."""
    space = (word >> CONDITION_SHIFT).eq(UNCONDITIONAL).choose(UNCONDITIONAL_BIT, 0, "i32")
    index = word >> HIGH_SHIFT & HIGH_MASK | word >> LOW_SHIFT & LOW_MASK | space
    pool, rows = f.load_native("decode_pool", "ptr"), f.load_native("decode_rows", "ptr")
    position = f.variable("i64", f.load_native("decode_index", "ptr").element("i32", index).load("i32").to("i64"))
    found = f.variable("ptr", 0)
    architecture = f.load_state("architecture")
    with f.repeat() as loop:
        here = position.get()
        position.set(here + 1)
        row = rows.at(pool.element("i16", here).load("i16").to("i64") * ROW.size)
        found.set(row)
        with f.when((word & row_field(row, "mask", "i32")).ne(row_field(row, "value", "i32"))):
            loop.again()
        refused = row_field(row, "since", "i8").to("i32").ugt(architecture)
        for mask, value in HOLES:
            refused = refused | (word & row_field(row, mask, "i32")).eq(row_field(row, value, "i32"))
        with f.when(~refused):
            loop.leave()
    return found.get()


def has_pc_operand(f: Builder, row: Value, word: Value) -> Value:
    """Return 1 if a register operand of the word is R15, else 0 (an i32): see
    :func:`dbt.backend.predecode.pc_operands`.
    """
    with_pc = f.variable("i32", 0)
    left = f.variable("i32", row_field(row, "pc_operands", "i8").to("i32"))
    pair = f.variable("ptr", row.at(ROW_OFFSETS["operands"]))
    with f.repeat() as loop:
        with f.when(left.get().eq(0)):
            loop.leave()
        here = pair.get()
        number = word >> here.load("i8").to("i32") & 0xF
        with f.when(number.eq(here.at(1).load("i8").to("i32"))):
            with_pc.set(1)
            loop.leave()
        pair.set(here.at(2))
        left.set(left.get() - 1)
    return with_pc.get()


def _fill_nothing() -> Builder:
    """``fill_nothing(op, word)``: fill the op of a form without operands, which needs nothing."""
    f = Builder("define hidden void @fill_nothing(ptr %op, i32 %word)", {"op": "ptr", "word": "i32"})
    f.ret()
    return f


def decode_text() -> str:
    """Return the LLVM text of this module's definitions."""
    return _decode().text() + _fill_nothing().text()
