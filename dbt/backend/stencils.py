"""Stencils: native code of instruction forms with holes, which the stitched tier copies and fills (copy-and-patch).

A stencil is made of the same uops as the handler of its form. What the handler loads from the op is a *hole* here: a
symbol whose value LLVM does not know, only its range. The linker's relocations say where the holes are. A stencil does
not dispatch. It continues at the symbol ``cont``, which is what comes behind it, so the jump there is cut off.

Copy-and-patch is due to Xu and Kjolstad (Copy-and-Patch Compilation, OOPSLA 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

from dbt.abi.cpu import NATIVE
from dbt.abi.layout import MAX_BLOCK, OP_SIZE_SHIFT, PAGE_SHIFT
from dbt.backend.builder import R15
from dbt.backend.convention import tail_call
from dbt.backend.lower import module_text
from dbt.backend.module import Function
from dbt.backend.predecode import allocate_slots
from dbt.backend.stencil_lowering import (
    SMALL,
    FormFlags,
    FormStencil,
    Hole,
    Holes,
    NotStitchableError,
    StencilLowering,
    header,
    stencil_name,
)
from dbt.backend.unrolled import FIRST_REGISTER, MAX_UNROLLED, UnrolledLowering, looped_operand
from isa.arm.operands import ALWAYS, condition_holds
from isa.arm.recorder import Recorder
from isa.ir.registry import Form, Insn
from isa.ir.sensitivity import makes_callouts
from isa.ir.uop import Uop


class Special(IntEnum):
    """The stencils that belong to no instruction. The conditions follow; see :func:`condition_stencil`."""

    HEAD = 0  # of a block: takes ``0`` instructions from the budget
    COUNTED_HEAD = 1  # likewise, and counts down the counter at the offset ``1`` in CpuState, by ``2``
    BAIL = 2  # goes to the handler of the op with number ``0``, and gives back ``1`` instructions
    HOT = 3  # leaves because a counted head is hot: op ``0``, ``1`` instructions, counter ``2``, which counts ``3``
    # The same four again, which also keep the number of instructions that were executed here: see MEASURED.
    MEASURED_HEAD = 4
    MEASURED_COUNTED_HEAD = 5
    MEASURED_BAIL = 6
    MEASURED_HOT = 7
    SET_PC = 8  # stores R15 for an instruction that has it as operand
    JUMP = 9  # goes to another block
    EDGE = 10  # goes to the op with number ``0``; when it is hot, the jump at ``1`` is linked
    CROSS_EDGE = 11  # goes ``0`` bytes from the page's start, which is another page; likewise
    CROSS = 12  # goes ``0`` bytes from the page's start to another page, there to the op at ``1`` and the word at ``2``
    ENTER = 13  # goes to the handler of the op with number ``0``
    FIRST_CONDITION = 14


FIRST_FORM = Special.FIRST_CONDITION + ALWAYS
#: What is added to HEAD, COUNTED_HEAD, BAIL and HOT for those that measure.
MEASURED = Special.MEASURED_HEAD - Special.HEAD


@dataclass(frozen=True, slots=True)
class Stencils:
    """``text`` is the LLVM module of the stencils, in which number N is the function ``stencil.N``.

    ``forms`` are those of the decoder's rows, in their order.
    """

    text: str
    forms: list[FormStencil]


def generate_stencils(registry: Iterable[Insn]) -> Stencils:
    """Generate the stencils of every form that can have one. Their order is that of the handlers."""
    holes = Holes()
    texts = [make(holes) for make in _SPECIALS.values()]
    texts += [condition_stencil(holes, condition) for condition in range(ALWAYS)]
    forms = [FormStencil()]  # the row of undefined words
    for insn in registry:
        for form in insn.forms():
            block = insn.record_form(form)
            try:
                made, new = _form_stencils(len(texts), block, insn.name, holes)
            except NotStitchableError:
                made, new = FormStencil(), []
            forms.append(made)
            texts += new
    text = module_text(holes.declarations(), *texts) + "\n" + holes.ranges()
    return Stencils(text, forms)


def obstacle(insn: Insn, form: Form) -> str | None:
    """Return why a form has no stencil, in words, or None if it has one."""
    try:
        _form_stencils(int(FIRST_FORM), insn.record_form(form), insn.name, Holes())
    except NotStitchableError as error:
        return str(error)
    return None


def _form_stencils(number: int, block: list[Uop], name: str, holes: Holes) -> tuple[FormStencil, list[str]]:
    """Return the stencils of a form, the first of which has this number, and their LLVM text."""
    if makes_callouts(block):
        raise NotStitchableError("it makes callouts")
    slots = allocate_slots(block, name)
    low = StencilLowering(Function(header(stencil_name(number))), slots, holes)
    falls = low.lower_form(block)
    form = low.form
    flags = form.flags | FormFlags.FALLS if falls and form.flags else form.flags
    texts = [low.f.text()]
    mask = looped_operand(block, slots)
    if mask is None:
        return FormStencil(number, flags, form.slot, form.ahead), texts
    for count in range(1, MAX_UNROLLED + 1):
        unrolled = UnrolledLowering(Function(header(stencil_name(number + count))), slots, holes, mask, count)
        unrolled.lower_form(block)
        texts.append(unrolled.f.text())
    return FormStencil(number, flags, mask.offset, 0, number + 1, MAX_UNROLLED), texts


# -- special stencils --------------------------------------------------------------------------


class _SpecialBuilder:
    """Writes a special stencil. ``argument`` is one of its holes, as an i32 or i64."""

    def __init__(self, number: int, holes: Holes) -> None:
        self.f = Function(header(stencil_name(number)))
        self._holes = holes

    def argument(self, number: int, type_: str = "i32", end: int = 1 << 32) -> str:
        assert number < FIRST_REGISTER, "the others are those of the instruction to which it belongs"
        if type_ == "i32":
            return self._holes.word(Hole.ARGUMENT, number, end)
        if end > 1 << 31:  # it does not fit a signed 32-bit operand
            return self.f.emit(f"zext i32 {self._holes.word(Hole.ARGUMENT, number, end)} to i64")
        return self._holes.wide(Hole.ARGUMENT, number, end)

    def native(self, name: str, element: int = 0) -> str:
        slot = NATIVE[name]
        return self.f.emit(f"getelementptr i8, ptr %cpu, i64 {slot.offset + slot.size * element}")

    def go(self, callee: str, **changed: str) -> None:
        self.f.do(tail_call(callee, **{"op": "poison", **changed}))
        self.f.do("ret void")

    def go_native(self, name: str, **changed: str) -> None:
        """Go to a function of the image, whose address is in CpuState."""
        self.go(self.f.emit(f"load ptr, ptr {self.native(name)}"), **changed)

    def op_number(self) -> str:
        """Return argument 0, the number of an op, as a pointer, which is how the image's functions take it."""
        return self.f.emit(f"inttoptr i64 {self.argument(0, 'i64')} to ptr")

    def give_back(self, measured: bool) -> str:
        """Return the budget with the instructions that argument 1 says."""
        count = self.argument(1, "i64", SMALL)
        if measured:
            self.measure("sub", count)
        return self.f.emit(f"add i64 %budget, {count}")

    def measure(self, operation: str, count: str) -> None:
        """Change the number of instructions that stitched code has executed."""
        place = self.native("stitched_insns")
        executed = self.f.emit(f"load i64, ptr {place}")
        self.f.do(f"store i64 {self.f.emit(f'{operation} i64 {executed}, {count}')}, ptr {place}")


def _head(special: Special, measured: bool = False) -> Callable[[Holes], str]:
    def make(holes: Holes) -> str:
        b = _SpecialBuilder(special + MEASURED * measured, holes)
        f, length = b.f, b.argument(0, "i64", MAX_BLOCK + 1)
        if measured:
            b.measure("add", length)
        left = f.emit(f"sub i64 %budget, {length}")
        f.do(f"br i1 {f.emit(f'icmp ult i64 %budget, {length}')}, label %bad, label %good, !prof !0")
        f.label("good")
        if special is Special.COUNTED_HEAD:
            counter = f.emit(f"getelementptr i8, ptr %cpu, i64 {b.argument(1, 'i64', 1 << 31)}")
            before, insns = f.emit(f"load i32, ptr {counter}"), b.argument(2, end=MAX_BLOCK + 1)
            f.do(f"store i32 {f.emit(f'sub i32 {before}, {insns}')}, ptr {counter}")
            f.do(f"br i1 {f.emit(f'icmp ult i32 {before}, {insns}')}, label %hot, label %on, !prof !0")
            f.label("hot")
            b.go("@skip", budget=left)
            f.label("on")
        b.go("@cont", budget=left)
        f.label("bad")
        b.go("@bail", budget=left)
        return f.text()

    return make


def _set_pc(holes: Holes) -> str:
    low = StencilLowering(Function(header(stencil_name(Special.SET_PC))), {}, holes)
    low.begin()
    low.f.do(f"store i32 {low.lower_pc(8)}, ptr {low.state_pointer(R15)}")
    low.fall_through()
    return low.f.text()


def _jump(holes: Holes) -> str:
    b = _SpecialBuilder(Special.JUMP, holes)
    b.go("@target")
    return b.f.text()


def _bail(holes: Holes, measured: bool = False) -> str:
    b = _SpecialBuilder(Special.BAIL + MEASURED * measured, holes)
    b.go_native("bypass_op", op=b.op_number(), budget=b.give_back(measured))
    return b.f.text()


def _hot(holes: Holes, measured: bool = False) -> str:
    b = _SpecialBuilder(Special.HOT + MEASURED * measured, holes)
    b.f.do(f"store i64 {b.argument(2, 'i64', 1 << 31)}, ptr {b.native('exit_args')}")
    b.f.do(f"store i64 {b.argument(3, 'i64', SMALL)}, ptr {b.native('exit_args', 1)}")
    b.go_native("stitched_hot", op=b.op_number(), budget=b.give_back(measured))
    return b.f.text()


def _edge(holes: Holes) -> str:
    b = _SpecialBuilder(Special.EDGE, holes)
    b.f.do(f"store i64 {b.argument(1, 'i64', 1 << 31)}, ptr {b.native('exit_args', 1)}")
    b.go_native("stitched_edge", op=b.op_number())
    return b.f.text()


def _cross_edge(holes: Holes) -> str:
    b = _SpecialBuilder(Special.CROSS_EDGE, holes)
    f = b.f
    page = f.emit(f"load i32, ptr {b.native('page_gva')}")
    target = f.emit(f"add i32 {page}, {b.argument(0)}")
    f.do(f"store i64 {f.emit(f'zext i32 {target} to i64')}, ptr {b.native('exit_args')}")
    f.do(f"store i64 {b.argument(1, 'i64', 1 << 31)}, ptr {b.native('exit_args', 1)}")
    b.go_native("stitched_cross")
    return f.text()


def _cross(holes: Holes) -> str:
    b = _SpecialBuilder(Special.CROSS, holes)
    f = b.f
    here = f.emit(f"load i32, ptr {b.native('page_gva')}")
    page = f.emit(f"add i32 {here}, {b.argument(0)}")
    table = f.emit(f"load ptr, ptr {b.native('code_table')}")
    number = f.emit(f"zext i32 {f.emit(f'lshr i32 {page}, {PAGE_SHIFT}')} to i64")
    ops = f.emit(f"load ptr, ptr {f.emit(f'getelementptr ptr, ptr {table}, i64 {number}')}")
    f.do(f"br i1 {f.emit(f'icmp eq ptr {ops}, null')}, label %unknown, label %known, !prof !0")
    f.label("unknown")
    target = f.emit(f"or i32 {page}, {b.argument(2, end=1 << PAGE_SHIFT)}")
    f.do(f"store i64 {f.emit(f'zext i32 {target} to i64')}, ptr {b.native('exit_args')}")
    b.go_native("goto")
    f.label("known")
    f.do(f"store i32 {page}, ptr {b.native('page_gva')}")
    op = f.emit(f"getelementptr i8, ptr {ops}, i64 {b.argument(1, 'i64', 1 << 16)}")
    b.go(f.emit(f"load ptr, ptr {op}"), op=op)
    return f.text()


def _enter(holes: Holes) -> str:
    b = _SpecialBuilder(Special.ENTER, holes)
    f = b.f
    base = f.emit(f"load ptr, ptr {b.native('code_pages')}")
    offset = f.emit(f"shl i64 {b.argument(0, 'i64')}, {OP_SIZE_SHIFT}")
    op = f.emit(f"getelementptr i8, ptr {base}, i64 {offset}")
    b.go(f.emit(f"load ptr, ptr {op}"), op=op)
    return f.text()


_SPECIALS: dict[Special, Callable[[Holes], str]] = {
    Special.HEAD: _head(Special.HEAD),
    Special.COUNTED_HEAD: _head(Special.COUNTED_HEAD),
    Special.BAIL: _bail,
    Special.HOT: _hot,
    Special.MEASURED_HEAD: _head(Special.HEAD, measured=True),
    Special.MEASURED_COUNTED_HEAD: _head(Special.COUNTED_HEAD, measured=True),
    Special.MEASURED_BAIL: partial(_bail, measured=True),
    Special.MEASURED_HOT: partial(_hot, measured=True),
    Special.SET_PC: _set_pc,
    Special.JUMP: _jump,
    Special.EDGE: _edge,
    Special.CROSS_EDGE: _cross_edge,
    Special.CROSS: _cross,
    Special.ENTER: _enter,
}


def condition_stencil(holes: Holes, condition: int) -> str:
    """Return the stencil that goes on if a condition holds, and else skips the instruction."""
    low = StencilLowering(Function(header(stencil_name(Special.FIRST_CONDITION + condition))), {}, holes)
    low.begin()
    u = Recorder()
    holds = condition_holds(u, condition)
    low.lower_block(u.block)
    f = low.f
    passed, failed = f.new_label("passed"), f.new_label("failed")
    f.do(f"br i1 {low.value(holds)}, label %{passed}, label %{failed}, !prof !1")
    f.label(passed)
    f.do(tail_call("@cont", op="poison"))
    f.do("ret void")
    f.label(failed)
    f.do(tail_call("@skip", op="poison"))
    f.do("ret void")
    return f.text()
