"""Lowering of a form to a stencil (:mod:`dbt.backend.stencils`): operands become holes, and control falls through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from dbt.abi.cpu import NATIVE
from dbt.abi.layout import PAGE_SHIFT
from dbt.backend.convention import ARGUMENTS, PARAMETERS, tail_call
from dbt.backend.handlers import HandlerLowering
from dbt.backend.lower import FLAGS, remember_target
from dbt.backend.module import Function
from dbt.backend.predecode import OperandSlot, slot_key
from isa.arm.state import LAYOUT
from isa.arm.vectors import InsnException
from isa.ir.callouts import Callout
from isa.ir.uop import BranchKind, Uop


class Hole(IntEnum):
    """What the stitcher writes into a hole. SLOT values are operands in the op, at the offset that is named."""

    SLOT1 = 0
    SLOT2 = 1
    SLOT4 = 2
    REGISTER = 3  # four times the byte in the op: the offset of a guest register in CpuState
    PLACE = 4  # the offset of the instruction in its page
    OP = 5  # the low half of the op's HVA
    ARGUMENT = 6  # an argument of a special or an unrolled stencil, by its number


class Link(IntEnum):
    """Where a jump of a stencil goes. They are numbered behind the holes."""

    CONT = 16  # to what comes behind the stencil
    TARGET = 17  # to the target of the direct branch
    SKIP = 18  # behind the instruction, because its condition fails; or to where a hot head goes
    BAIL = 19  # to the op's handler, which executes the instruction again


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
    A block transfer has ``unrolled_count`` stencils from the number ``unrolled`` on: the first for words in which one
    bit of the operand at ``slot`` is 1, and so on.
    """

    number: int | None = None
    flags: FormFlags = NO_FLAGS
    slot: int = 0
    ahead: int = 0
    unrolled: int = 0
    unrolled_count: int = 0


class NotStitchableError(Exception):
    """Raised for a form that has no stencil: it makes callouts or raises exceptions, so the handler executes it."""


class Holes:
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
SMALL = 128


def stencil_name(number: int) -> str:
    """Return the name of the function of a stencil in the LLVM module."""
    return f"stencil.{number}"


def header(name: str) -> str:
    # With optsize, LLVM makes conditional jumps of conditional tail calls.
    return f"define preserve_nonecc void @{name}({PARAMETERS}) optsize"


class StencilLowering(HandlerLowering):
    """Lowers a form: operands are holes, and control continues behind it."""

    def __init__(self, function: Function, slots: dict[str, OperandSlot], holes: Holes) -> None:
        super().__init__(function, slots, "bail")
        self._holes = holes
        self.form = FormStencil()

    def lower_form(self, block: list[Uop]) -> bool:
        """Lower all of a form. Return True if control goes on behind it, always or under some condition."""
        self.begin()
        falls = self.lower_block(block)
        if falls:
            self.fall_through()
        self.end_slow()
        return falls

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

    def lower_callout_value(self, callout: Callout, args: Iterable[Uop]) -> str:
        raise NotStitchableError("it makes a callout")

    def lower_callout(self, callout: Callout, args: Iterable[Uop]) -> bool:
        if callout.name != "enter_thumb":
            raise NotStitchableError("it makes a callout")
        self.f.do(f"br label %{self._bail_label()}")
        return False
