"""Stencils: native code of instruction forms with holes, which the stitched tier copies and fills (copy-and-patch).

A stencil is made of the same uops as the handler of its form. What the handler loads from the op is a *hole* here: a
symbol whose value LLVM does not know, only its range. The linker's relocations say where the holes are. A stencil does
not dispatch. It continues at the symbol ``cont``, which is what comes behind it, so the jump there is cut off.

Copy-and-patch is due to Xu and Kjolstad (Copy-and-Patch Compilation, OOPSLA 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import partial

from dbt.abi.cpu import NATIVE
from dbt.abi.layout import MAX_BLOCK, OP_SIZE_SHIFT, PAGE_SHIFT
from dbt.backend.builder import R15
from dbt.backend.convention import ARGUMENTS, PARAMETERS, tail_call
from dbt.backend.handlers import HandlerLowering
from dbt.backend.lower import FLAGS, module_text, remember_target
from dbt.backend.module import Function
from dbt.backend.predecode import OperandSlot, allocate_slots, slot_key
from isa.arm.operands import ALWAYS, condition_holds
from isa.arm.recorder import Recorder
from isa.arm.state import LAYOUT
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.registry import Form, Insn
from isa.ir.sensitivity import makes_callouts
from isa.ir.uop import BranchKind, Uop


class Hole(IntEnum):
    """What the stitcher writes into a hole. SLOT values are operands in the op, at the offset that is named."""

    SLOT1 = 0
    SLOT2 = 1
    SLOT4 = 2
    REGISTER = 3  # four times the byte in the op: the offset of a guest register in CpuState
    PLACE = 4  # the offset of the instruction in its page
    OP = 5  # the low half of the op's HVA
    ARGUMENT = 6  # argument number 0, 1 or 2 of a special stencil


class Link(IntEnum):
    """Where a jump of a stencil goes. They are numbered behind the holes."""

    CONT = 16  # to what comes behind the stencil
    TARGET = 17  # to the target of the direct branch
    SKIP = 18  # behind the instruction, because its condition fails; or to where a hot head goes
    BAIL = 19  # to the op's handler, which executes the instruction again


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


class FormFlags(IntFlag):
    """What the stitcher knows of a form."""

    ENDS = 1  # the block ends with it
    DIRECT = 2  # it is a direct branch
    CALL = 4
    FALLS = 8  # control may go on behind it, although the block ends


NO_FLAGS = FormFlags(0)


@dataclass(frozen=True, slots=True)
class FormStencil:
    """The stencil of a form of an instruction, by its number. ``number`` is None where there is none.

    The target of a direct branch is ``ahead`` bytes behind the instruction, plus the operand at ``slot`` of the op.
    """

    number: int | None = None
    flags: FormFlags = NO_FLAGS
    slot: int = 0
    ahead: int = 0


class NotStitchableError(Exception):
    """Raised for a form that has no stencil: it makes callouts or raises exceptions, so the handler executes it."""


class _Holes:
    """The symbols of holes that the stencils use."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def hole(self, kind: Hole, operand: int, end: int) -> str:
        """Return a constant (ptr) whose value is in ``[0, end)``."""
        name = f"hole.{int(kind)}.{operand}.{end.bit_length()}"
        self.names[name] = end
        return f"@{name}"

    def word(self, kind: Hole, operand: int, end: int = 1 << 32) -> str:
        """Return the hole as a constant i32."""
        return f"ptrtoint (ptr {self.hole(kind, operand, end)} to i32)"

    def wide(self, kind: Hole, operand: int, end: int) -> str:
        """Return the hole as a constant i64."""
        return f"ptrtoint (ptr {self.hole(kind, operand, end)} to i64)"

    def declarations(self) -> str:
        ends = sorted(set(self.names.values()))
        lines = [
            f"@{name} = external dso_local global i8, !absolute_symbol !{_FIRST_RANGE + ends.index(end)}"
            for name, end in self.names.items()
        ]
        types = ", ".join(type_ for type_, _ in ARGUMENTS)
        lines += [f"declare preserve_nonecc void @{link.name.lower()}({types})" for link in Link]
        return "\n".join(lines)

    def ranges(self) -> str:
        ends = sorted(set(self.names.values()))
        return "\n".join(f"!{_FIRST_RANGE + number} = !{{i64 0, i64 {end}}}" for number, end in enumerate(ends))


#: The first number of metadata that is a range.
_FIRST_RANGE = 100
#: A hole in an instruction for signed bytes: see the psABI's R_X86_64_8.
_SMALL = 128


def _header(name: str) -> str:
    # With optsize, LLVM makes conditional jumps of conditional tail calls.
    return f"define preserve_nonecc void @{name}({PARAMETERS}) optsize"


class StencilLowering(HandlerLowering):
    """Lowers a form: operands are holes, and control continues behind it."""

    def __init__(self, function: Function, slots: dict[str, OperandSlot], holes: _Holes) -> None:
        super().__init__(function, slots, "bail")
        self._holes = holes
        self.form = FormStencil()

    def begin(self) -> None:
        """Take over the flags."""
        for name in FLAGS:
            self.f.do(f"store i32 %{name}, ptr {self.flags[name]}")

    def _left(self) -> str:
        """Return the budget. The head of the block has taken this instruction from it."""
        return "%budget"

    def fall_through(self) -> None:
        self._continue("@cont", "poison")

    def end_slow(self) -> None:
        if self._bail:
            self.f.label(self._bail)
            self.f.do(tail_call("@bail", op="poison"))
            self.f.do("ret void")

    def static_value(self, uop: Uop) -> str | None:
        slot = self._slots.get(slot_key(uop))
        if slot is None:
            if uop.op == "field":
                raise KeyError(f"field {uop!r} has no slot")
            return None
        kind = {1: Hole.SLOT1, 2: Hole.SLOT2, 4: Hole.SLOT4}[slot.size]
        word = self._holes.word(kind, slot.offset, 1 << 8 * slot.size)
        if uop.width == 64:
            return self.f.emit(f"zext i32 {word} to i64")
        if uop.width == 32:
            return self.f.emit(f"add i32 {word}, 0")
        return self.f.emit(f"trunc i32 {word} to i{uop.width}")

    def array_pointer(self, offset: int, index: Uop) -> str:
        slot = self._slots.get(slot_key(index)) if index.number is None and index.static else None
        if slot is None or slot.size != 1:
            return super().array_pointer(offset, index)
        place = self._holes.wide(Hole.REGISTER, slot.offset, 64)
        return self.f.emit(f"getelementptr i8, ptr {self.state_pointer(offset)}, i64 {place}")

    def _pc(self, ahead: int) -> str:
        f = self.f
        page = f.emit(f"load i32, ptr {self.state_pointer(NATIVE['page_gva'].offset)}")
        return f.emit(
            f"add i32 {f.emit(f'add i32 {page}, {self._holes.word(Hole.PLACE, 0, 1 << PAGE_SHIFT)}')}, {ahead}"
        )

    def lower_uop(self, uop: Uop) -> bool:
        if uop.op != "get_reg":
            return super().lower_uop(uop)
        # A load of its own: hosts forward a store to a plain load in less time than to an operand in memory.
        loaded = self.f.emit(f"load i32, ptr {self.array_pointer(LAYOUT['r'].offset, uop.args[0])}")
        self.values[uop] = self.f.emit(f'call i32 asm "", "=r,0"(i32 {loaded})')
        return True

    # -- control -------------------------------------------------------------------------------

    def lower_branch(self, target: Uop, kind: BranchKind) -> None:
        if kind is BranchKind.SYNCHRONISE:
            raise NotStitchableError("it synchronises")
        flags = FormFlags.ENDS | (FormFlags.CALL if kind is BranchKind.CALL else NO_FLAGS)
        if target.op == "add" and target.args[0].op == "pc" and target.args[1].static:
            offset = target.args[1]
            slot = self._slots[slot_key(offset)]
            assert slot.size == 4
            assert isinstance(target.args[0].attr, int)
            self.form = FormStencil(None, flags | FormFlags.DIRECT, slot.offset, target.args[0].attr)
            self._continue("@target", "poison")
            return
        self.form = FormStencil(None, flags)
        value = self.value(target)
        if kind is not BranchKind.RETURN:
            op = self.f.emit(f"zext i32 {self._holes.word(Hole.OP, 0)} to i64")
            remember_target(self.f, self.cpu, op, value)
        self._branch_to(value, kind is not BranchKind.RETURN)

    def _remember_target(self, target: str) -> None:
        """Do nothing: what is remembered, and of which op, was decided above."""

    def _goto(self, target: str, counted: bool) -> None:
        wide = self.f.emit(f"zext i32 {target} to i64")
        self.f.do(f"store i64 {wide}, ptr {self.state_pointer(NATIVE['exit_args'].offset)}")
        self._continue(self._function("goto_counted" if counted else "goto"), "poison")

    def _function(self, name: str) -> str:
        return self.f.emit(f"load ptr, ptr {self.state_pointer(NATIVE[name].offset)}")

    def lower_exception(self, kind: InsnException, immediate: Uop) -> None:
        raise NotStitchableError("it raises an exception")

    def lower_callout(self, callout: Callout, args: Iterable[Uop]) -> bool:
        if callout.name != "enter_thumb":
            raise NotStitchableError("it makes a callout")
        self.f.do(f"br label %{self._bail_label()}")
        return False


@dataclass(frozen=True, slots=True)
class Stencils:
    """``text`` is the LLVM module of the stencils, in which number N is the function ``stencil.N``.

    ``forms`` are those of the decoder's rows, in their order.
    """

    text: str
    forms: list[FormStencil]


def generate_stencils(registry: Iterable[Insn]) -> Stencils:
    """Generate the stencils of every form that can have one. Their order is that of the handlers."""
    holes = _Holes()
    texts = [make(holes) for make in _SPECIALS.values()]
    texts += [condition_stencil(holes, condition) for condition in range(ALWAYS)]
    forms = [FormStencil()]  # the row of undefined words
    number = int(FIRST_FORM)
    for insn in registry:
        for form in insn.forms():
            block = insn.record_form(form)
            try:
                text, made = _form_stencil(number, block, insn.name, holes)
            except NotStitchableError:
                forms.append(FormStencil())
                continue
            texts.append(text)
            forms.append(made)
            number += 1
    text = module_text(holes.declarations(), *texts) + "\n" + holes.ranges()
    return Stencils(text, forms)


def obstacle(insn: Insn, form: Form) -> str | None:
    """Return why a form has no stencil, in words, or None if it has one."""
    try:
        _form_stencil(int(FIRST_FORM), insn.record_form(form), insn.name, _Holes())
    except NotStitchableError as error:
        return str(error)
    return None


def stencil_name(number: int) -> str:
    return f"stencil.{number}"


def _form_stencil(number: int, block: list[Uop], name: str, holes: _Holes) -> tuple[str, FormStencil]:
    if makes_callouts(block):
        raise NotStitchableError("it makes callouts")
    low = StencilLowering(Function(_header(stencil_name(number))), allocate_slots(block, name), holes)
    low.begin()
    falls = low.lower_block(block)
    if falls:
        low.fall_through()
    low.end_slow()
    form = low.form
    if falls and form.flags:
        form = FormStencil(None, form.flags | FormFlags.FALLS, form.slot, form.ahead)
    return low.f.text(), FormStencil(number, form.flags, form.slot, form.ahead)


# -- special stencils --------------------------------------------------------------------------


class _SpecialBuilder:
    """Writes a special stencil. ``argument`` is one of its holes, as an i32 or i64."""

    def __init__(self, number: int, holes: _Holes) -> None:
        self.f = Function(_header(stencil_name(number)))
        self._holes = holes

    def argument(self, number: int, type_: str = "i32", end: int = 1 << 32) -> str:
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
        count = self.argument(1, "i64", _SMALL)
        if measured:
            self.measure("sub", count)
        return self.f.emit(f"add i64 %budget, {count}")

    def measure(self, operation: str, count: str) -> None:
        """Change the number of instructions that stitched code has executed."""
        place = self.native("stitched_insns")
        executed = self.f.emit(f"load i64, ptr {place}")
        self.f.do(f"store i64 {self.f.emit(f'{operation} i64 {executed}, {count}')}, ptr {place}")


def _head(special: Special, measured: bool = False) -> Callable[[_Holes], str]:
    def make(holes: _Holes) -> str:
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


def _set_pc(holes: _Holes) -> str:
    low = StencilLowering(Function(_header(stencil_name(Special.SET_PC))), {}, holes)
    low.begin()
    low.f.do(f"store i32 {low.lower_pc(8)}, ptr {low.state_pointer(R15)}")
    low.fall_through()
    return low.f.text()


def _jump(holes: _Holes) -> str:
    b = _SpecialBuilder(Special.JUMP, holes)
    b.go("@target")
    return b.f.text()


def _bail(holes: _Holes, measured: bool = False) -> str:
    b = _SpecialBuilder(Special.BAIL + MEASURED * measured, holes)
    b.go_native("bypass_op", op=b.op_number(), budget=b.give_back(measured))
    return b.f.text()


def _hot(holes: _Holes, measured: bool = False) -> str:
    b = _SpecialBuilder(Special.HOT + MEASURED * measured, holes)
    b.f.do(f"store i64 {b.argument(2, 'i64', 1 << 31)}, ptr {b.native('exit_args')}")
    b.f.do(f"store i64 {b.argument(3, 'i64', _SMALL)}, ptr {b.native('exit_args', 1)}")
    b.go_native("stitched_hot", op=b.op_number(), budget=b.give_back(measured))
    return b.f.text()


def _edge(holes: _Holes) -> str:
    b = _SpecialBuilder(Special.EDGE, holes)
    b.f.do(f"store i64 {b.argument(1, 'i64', 1 << 31)}, ptr {b.native('exit_args', 1)}")
    b.go_native("stitched_edge", op=b.op_number())
    return b.f.text()


def _cross_edge(holes: _Holes) -> str:
    b = _SpecialBuilder(Special.CROSS_EDGE, holes)
    f = b.f
    page = f.emit(f"load i32, ptr {b.native('page_gva')}")
    target = f.emit(f"add i32 {page}, {b.argument(0)}")
    f.do(f"store i64 {f.emit(f'zext i32 {target} to i64')}, ptr {b.native('exit_args')}")
    f.do(f"store i64 {b.argument(1, 'i64', 1 << 31)}, ptr {b.native('exit_args', 1)}")
    b.go_native("stitched_cross")
    return f.text()


def _cross(holes: _Holes) -> str:
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


def _enter(holes: _Holes) -> str:
    b = _SpecialBuilder(Special.ENTER, holes)
    f = b.f
    base = f.emit(f"load ptr, ptr {b.native('code_pages')}")
    offset = f.emit(f"shl i64 {b.argument(0, 'i64')}, {OP_SIZE_SHIFT}")
    op = f.emit(f"getelementptr i8, ptr {base}, i64 {offset}")
    b.go(f.emit(f"load ptr, ptr {op}"), op=op)
    return f.text()


_SPECIALS: dict[Special, Callable[[_Holes], str]] = {
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


def condition_stencil(holes: _Holes, condition: int) -> str:
    """Return the stencil that goes on if a condition holds, and else skips the instruction."""
    low = StencilLowering(Function(_header(stencil_name(Special.FIRST_CONDITION + condition))), {}, holes)
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
