"""Code pages in native code: making them and giving them up, resetting ops whose words are written, and stores to pages
with code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dbt.abi.layout import (
    BREAKPOINT,
    CHANGES,
    CODE_PAGE_SIZE,
    CODE_PAGE_STRIDE,
    COVERED,
    DEBUG_STORES,
    NOT_STITCHABLE,
    OP_BESIDE,
    OP_COVERED,
    OP_SHIFT,
    OP_SIZE,
    OP_SIZE_SHIFT,
    OPS_PER_PAGE,
    PAGE_CHANGED,
    PAGE_HAS_CODE,
    PAGE_LOGGED,
    PAGE_RAM,
    PAGE_SHIFT,
    PAGE_SIZE,
    PAGE_WRITABLE,
    STALE_PAGES,
    STITCHED,
    USER_TABLES,
    WAS_WARM,
    WORD_BREAKPOINT,
    WORD_CHANGES,
    WORD_COVERED,
    WORD_ENTERED,
    WORD_EXECUTED,
    WORD_IN_PAGE,
    WRITE,
)
from dbt.abi.stitching import FIELD_OFFSETS
from dbt.backend.builder import Builder, Value, define, define_preserving
from dbt.backend.debug_points import watch_state
from isa.arm.faults import FAULT_MASK, PARTIAL, AccessKind
from isa.arm.state import SCTLR_M


def _code_page(f: Builder, page: Value) -> Value:
    """Return the code page of a guest physical page, by the page's number (an i64)."""
    return f.load_native("code_pages", "ptr").at(page * CODE_PAGE_STRIDE)


def _op_of(f: Builder, gpa: Value) -> Value:
    """Return the op of a GPA (an i64), whose page has a code page."""
    return _code_page(f, gpa >> PAGE_SHIFT).at((gpa & WORD_IN_PAGE) << OP_SHIFT)


def mark_changed(f: Builder, gpa: Value) -> None:
    """Mark the page that contains a GPA (an i64), so that the compile worker is sent it again."""
    flags = f.page_flags_pointer(gpa >> PAGE_SHIFT)
    f.store(flags.load("i8") | PAGE_CHANGED, flags)


@contextmanager
def _where_code(f: Builder, gpa: Value) -> Iterator[Value]:
    """Execute the body with the op of a GPA (an i64), if its page has a code page.

    The page is marked as changed, because the caller is about to write the word.
    """
    with f.when(f.page_flags(gpa).has(PAGE_HAS_CODE)):
        mark_changed(f, gpa)
        yield _op_of(f, gpa)


def _is_covered(op: Value) -> Value:
    return op.at(OP_COVERED).load("i8").has(COVERED)


def _reset_ops(f: Builder, ops: Value) -> None:
    with f.count(0, CODE_PAGE_SIZE, OP_SIZE, "i64") as offset:
        f.store(f.function("decode"), ops.at(offset))


def stitched_code(f: Builder) -> tuple[Value, Value]:
    """Return the HVA of the arena of stitched code and its size (i64 each), which is 0 if there is none."""
    start, size = f.variable("i64", 0), f.variable("i64", 0)
    workspace = f.load_native("stitcher", "ptr")
    with f.when(workspace.ne(0)):
        start.set(workspace.at(FIELD_OFFSETS["execute"]).load("i64"))
        size.set(workspace.at(FIELD_OFFSETS["size"]).load("i64"))
    return start.get(), size.get()


def _need_code_page() -> Builder:
    """``need_code_page(cpu, page)``: return the code page of a page of RAM, which is made if there is none yet.

    Nothing is decoded in the memory of one that there is not: it is zeros, or all its ops are ``decode``.
    """
    f = define("need_code_page", {"page": "i32"}, "ptr", "noinline")
    page = f["page"].to("i64")
    ops = _code_page(f, page)
    flags_pointer = f.page_flags_pointer(page)
    flags = flags_pointer.load("i8")
    with f.when(flags.has(PAGE_HAS_CODE)):
        f.ret(ops)
    with f.when(ops.load("i64").eq(0)):
        _reset_ops(f, ops)
        f.store(f.function("sentinel"), ops.at(CODE_PAGE_SIZE))
    f.store(flags | (PAGE_HAS_CODE | PAGE_CHANGED), flags_pointer)
    f.call("forget_writes", f.cpu, f.load_native("ram_host", "ptr").at(page << PAGE_SHIFT))
    f.ret(ops)
    return f


def _give_up_code_page() -> Builder:
    """``give_up_code_page(cpu, page)``: forget the code page of a page of RAM. Return 0 if it must stay, because a
    region was made from one of its words, else 1.

    The ops become ``decode``, so nothing of the page is left to go stale where stores no longer look for ops. Nothing
    leads to the ops any more: the entries for the code page in all address spaces are null. Precondition: no guest code
    is being executed. Python calls it between slices.
    """
    f = define("give_up_code_page", {"page": "i32"}, "i32", "noinline")
    page = f["page"].to("i64")
    ops = _code_page(f, page)
    with f.count(0, CODE_PAGE_SIZE, OP_SIZE, "i64") as offset, f.when(_is_covered(ops.at(offset))):
        f.ret(f.value("i32", 0))
    gone = STITCHED | NOT_STITCHABLE | WAS_WARM
    with f.count(0, CODE_PAGE_SIZE, OP_SIZE, "i64") as offset:  # without a store to memory that is still shared
        op, marks = ops.at(offset), ops.at(offset).at(OP_COVERED)
        with f.when(op.load("ptr").ne(f.function("decode"))):
            f.store(f.function("decode"), op)
        with f.when((marks.load("i8") & gone).ne(0)):
            f.store(marks.load("i8") & (0xFF - gone), marks)
    flags = f.page_flags_pointer(page)
    f.store(flags.load("i8") & (0xFF - PAGE_HAS_CODE - PAGE_CHANGED), flags)
    f.call("forget_code", f.cpu, ops)
    f.ret(f.value("i32", 1))
    return f


def _note_store() -> Builder:
    """``note_store(cpu, gpa)``: count a store to a page with code, and list the page after many of them."""
    f = define("note_store", {"gpa": "i64"})
    page = f["gpa"] >> PAGE_SHIFT
    with f.when(~f.page_flags(f["gpa"]).has(PAGE_HAS_CODE)):
        f.ret()
    counter = _code_page(f, page).at(CODE_PAGE_SIZE + OP_BESIDE)
    count = counter.load("i16") + 1
    f.store(count, counter)
    with f.when(count.to("i32").ult(f.load_native("stale_after"))):
        f.ret()
    f.store(f.value("i16", 0), counter)
    number = f.load_native("stale_count")
    with f.when(number.ult(STALE_PAGES)):
        f.store(page.to("i32"), f.native("stale_pages").element("i32", number))
        f.store_native("stale_count", number + 1)
    f.ret()
    return f


def _is_covered_at() -> Builder:
    """``is_covered(cpu, gpa)``: return 1 if a region was made from the word at the GPA, else 0."""
    f = define("is_covered", {"gpa": "i64"}, "i1")
    gpa = f["gpa"]
    with _where_code(f, gpa) as op:
        f.ret(_is_covered(op))
    f.ret(f.value("i1", 0))
    return f


def _invalidate() -> Builder:
    """``invalidate(cpu, gpa)``: reset the op of the word at the GPA, so that it is decoded again."""
    f = define("invalidate", {"gpa": "i64"})
    gpa = f["gpa"]
    with _where_code(f, gpa) as op, f.when(op.load("ptr").ne(f.function("decode"))):
        f.store(f.function("decode"), op)
        marks = op.at(OP_COVERED)
        with f.when(marks.load("i8").has(STITCHED)):
            f.call("stitched_word_changes", f.cpu, gpa)
        f.store(marks.load("i8") & (0xFF - NOT_STITCHABLE), marks)
    f.ret()
    return f


def _invalidate_range() -> Builder:
    """``invalidate_range(cpu, gpa, size)``: reset the ops of all words that have one of these bytes."""
    f = define("invalidate_range", {"gpa": "i64", "size": "i64"})
    with f.count(f["gpa"] & -4, f["gpa"] + f["size"], 4, "i64") as gpa:
        f.call("invalidate", f.cpu, gpa)
    f.ret()
    return f


def _code_flags() -> Builder:
    """``code_flags(cpu, page, out)``: write a byte for each word of a page with a code page, and unmark the page.

    The bytes are WORD_EXECUTED and so on. Python calls it to tell the compile worker what has been executed.
    """
    f = define("code_flags", {"page": "i32", "out": "ptr"}, attributes="noinline")
    page = f["page"].to("i64")
    ops = _code_page(f, page)
    flags = f.page_flags_pointer(page)
    f.store(flags.load("i8") & (0xFF - PAGE_CHANGED), flags)
    image, image_size = f.load_native("image"), f.load_native("image_size")
    stitched, stitched_size = stitched_code(f)
    with f.count(0, OPS_PER_PAGE, type_="i64") as number:
        op = ops.at(number << OP_SIZE_SHIFT)
        handler, marks = op.load("ptr"), op.at(OP_COVERED).load("i8")
        executed = handler.eq(f.function("decode")).choose(0, WORD_EXECUTED, "i8")
        replaced = (handler.to("i64") - image).uge(image_size) & (handler.to("i64") - stitched).uge(stitched_size)
        entered = replaced.choose(WORD_ENTERED, 0, "i8")
        covered = marks.has(COVERED).choose(WORD_COVERED, 0, "i8")
        changes = marks.has(CHANGES).choose(WORD_CHANGES, 0, "i8")
        breaks = marks.has(BREAKPOINT).choose(WORD_BREAKPOINT, 0, "i8")
        f.store(executed | entered | covered | changes | breaks, f["out"].at(number))
    f.ret()
    return f


def _writable() -> Builder:
    """``writable(cpu, gva, size, align)``: return the entry for a region's store that misses the shadow page table.

    It is null if the region must leave. Data beside code is common: if no word of the access is decoded, and no region
    was made from one, the store may go ahead. A page without code is entered into the table.
    """
    f = define_preserving("writable", {"gva": "i32", "size": "i32", "align": "i32"}, "ptr")
    gva, size = f["gva"], f["size"]
    refused = f.value("ptr", 0)
    with f.when((gva & (f["align"] - 1)).ne(0)):
        f.ret(refused)
    crosses = ((gva & (PAGE_SIZE - 1)) + size).ugt(PAGE_SIZE)
    with f.when(f.load_state("sctlr").has(SCTLR_M) & crosses):
        f.ret(refused)
    with f.when(watch_state(f, gva, size, DEBUG_STORES).ne(0)):
        f.ret(refused)  # the handler's slow path looks whether it is to stop
    user = f.is_user_mode()
    access = user.choose(int(AccessKind.USER | AccessKind.WRITE), int(AccessKind.WRITE), "i32")
    found = f.call("translate", f.cpu, gva, access, result="i64")
    status = found >> 32
    with f.when(status.has(FAULT_MASK | PARTIAL)):
        f.ret(refused)
    f.call("note_extent", f.cpu, gva, status)
    first = found & 0xFFFFFFFF
    distance = first - gva.to("i64")
    entry = f.load_native("ram_host", "ptr").at(distance)
    table = user.choose(WRITE + USER_TABLES, WRITE, "i32")
    end = first + size.to("i64")
    position = f.variable("i64", first & -4)
    with f.repeat() as loop:
        gpa = position.get()
        with f.when(gpa.uge(end)):
            loop.leave()
        flags = f.page_flags(gpa)
        with f.when((flags & (PAGE_RAM | PAGE_WRITABLE)).ne(PAGE_RAM | PAGE_WRITABLE)):
            f.ret(refused)
        with f.when(~flags.has(PAGE_LOGGED)):
            f.call("log_page", f.cpu, gpa)
        with _where_code(f, gpa) as op:
            with f.when(op.load("ptr").ne(f.function("decode")) | _is_covered(op)):
                f.ret(refused)
            position.set(gpa + 4)
            loop.again()
        f.call("fill", f.cpu, (gpa - distance >> PAGE_SHIFT).to("i32"), table, entry)
        position.set((gpa & -PAGE_SIZE) + PAGE_SIZE)
    f.call("note_store", f.cpu, first)
    f.ret(entry)
    return f


def code_pages_text() -> str:
    """Return the LLVM text of this module's definitions."""
    functions = [
        _need_code_page(),
        _give_up_code_page(),
        _note_store(),
        _is_covered_at(),
        _invalidate(),
        _invalidate_range(),
        _code_flags(),
        _writable(),
    ]
    return "".join(f.text() for f in functions)
