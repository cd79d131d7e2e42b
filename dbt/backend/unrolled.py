"""Unrolled stencils of block transfers: one for each number of registers, with their memory checked at once.

A form that has a loop over the bits of one of its operands (``for_each_bit``) also gets stencils in which the loop is
unrolled N times, for words in which N bits of the operand are 1. The registers are holes. All accesses at constant
distances from one address are checked together: the first and the last lie in one page, which is in the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from dbt.abi.layout import PAGE_SIZE
from dbt.backend.module import Function
from dbt.backend.predecode import OperandSlot, slot_key
from dbt.backend.stencil_lowering import Hole, Holes, NotStitchableError, StencilLowering
from isa.arm.state import LAYOUT
from isa.ir.operations import PURE
from isa.ir.queries import loop_variables, walk
from isa.ir.uop import Access, Uop

#: The most registers of an unrolled stencil.
MAX_UNROLLED = 10
#: The number of the argument that is the offset in CpuState of the first register; those of the others follow.
FIRST_REGISTER = 4

_WORD = 4
_MASK = (1 << 32) - 1


def looped_operand(block: list[Uop], slots: dict[str, OperandSlot]) -> OperandSlot | None:
    """Return the operand over whose bits the form loops, or None if there is not exactly one, of two bytes."""
    found = {slot_key(uop.args[0]): uop.args[0] for uop in walk(block) if uop.op == "for_each_bit"}
    slot = slots.get(next(iter(found))) if len(found) == 1 else None
    return slot if slot is not None and slot.size == 2 else None


class UnrolledLowering(StencilLowering):
    """Lowers a form for words in which ``count`` bits of the operand ``mask`` are 1."""

    def __init__(
        self, function: Function, slots: dict[str, OperandSlot], holes: Holes, mask: OperandSlot, count: int
    ) -> None:
        super().__init__(function, slots, holes)
        self._mask, self._registers = slot_key(mask.uop), count
        self._ordinal: dict[Uop, int] = {}  # of the loops' variables, in this pass
        self._temps: dict[int, str] = {}
        self._spans: dict[Uop, tuple[int, int]] = {}  # by what the addresses are relative to: the first and the last
        self._hosts: dict[tuple[Uop, str], str] = {}  # likewise, and by the table: the HVA of distance 0

    def lower_block(self, block: list[Uop]) -> bool:
        if not self._spans:
            for address in self._addresses(block):
                root, distance = self._displacement(address)
                first, last = self._spans.get(root, (distance, distance))
                self._spans[root] = min(first, distance), max(last, distance)
        return super().lower_block(block)

    def _addresses(self, block: list[Uop]) -> Iterator[Uop]:
        """Yield the addresses of accesses to aligned words, with the loops unrolled."""
        for uop in block:
            if uop.op == "for_each_bit":
                for _ in self._passes(uop):
                    yield from self._addresses(uop.body)
            elif self._is_word(uop):
                yield uop.args[0]

    def _passes(self, loop: Uop) -> Iterator[int]:
        """Yield the number of each pass of a loop, while the variables have its values."""
        for number in range(self._registers):
            self._ordinal = dict.fromkeys(loop_variables(loop), number)
            yield number
        self._ordinal = {}

    @staticmethod
    def _is_word(uop: Uop) -> bool:
        access = uop.attr
        return isinstance(access, Access) and access.size == _WORD and access.aligned and not access.user

    def lower_for_each_bit(self, uop: Uop) -> None:
        for _ in self._passes(uop):
            self._scoped(uop.body)

    # -- values that are constants here --------------------------------------------------------

    def _constant(self, uop: Uop) -> int | None:
        """Return the value of what depends on the number of bits, the pass and constants only."""
        if uop.number is not None:
            return uop.number
        if uop.op == "bit_ordinal":
            return self._ordinal.get(uop)
        if uop.op == "popcount":
            return self._registers if slot_key(uop.args[0]) == self._mask else None
        if uop.op not in PURE or not uop.args:
            return None
        numbers = [self._constant(arg) for arg in uop.args]
        known = [number for number in numbers if number is not None]
        if len(known) < len(numbers):
            return None
        return PURE[uop.op](*known, uop.args[0].width) & (1 << uop.width) - 1

    def static_value(self, uop: Uop) -> str | None:
        constant = self._constant(uop)
        return super().static_value(uop) if constant is None else str(constant)

    def _displacement(self, address: Uop) -> tuple[Uop, int]:
        """Return what an address is relative to, and the distance in bytes."""
        distance = 0
        while address.op in ("add", "sub"):
            constant = self._constant(address.args[1])
            if constant is None:
                break
            distance += constant if address.op == "add" else -constant
            address = address.args[0]
        distance &= _MASK
        return address, distance - (distance >> 31 << 32)

    # -- registers, scratch words and memory ---------------------------------------------------

    def array_pointer(self, offset: int, index: Uop) -> str:
        if index.op != "bit_index":
            return super().array_pointer(offset, index)
        if offset != LAYOUT["r"].offset:
            raise NotStitchableError("the bit's number is not that of a register")
        place = self._holes.wide(Hole.ARGUMENT, FIRST_REGISTER + self._ordinal[index], 64)
        return self.f.emit(f"getelementptr i8, ptr {self.state_pointer(offset)}, i64 {place}")

    def lower_uop(self, uop: Uop) -> bool:
        if uop.op == "set_temp" and (number := self._constant(uop.args[0])) is not None:
            self._temps[number] = self.value(uop.args[1])
        elif uop.op == "get_temp" and (number := self._constant(uop.args[0])) is not None:
            self.values[uop] = self._temps[number]
        elif uop.op == "load" and self._is_word(uop):
            self.values[uop] = self.f.emit(f"load i32, ptr {self._word_pointer(uop.args[0], 'reads')}")
        elif uop.op == "store" and self._is_word(uop):
            pointer = self._word_pointer(uop.args[0], "writes")
            self.f.do(f"store i32 {self.value(uop.args[1])}, ptr {pointer}")
        else:
            return super().lower_uop(uop)
        return True

    def _word_pointer(self, address: Uop, table: str) -> str:
        """Return the HVA of a word. The first time, all that is relative to the same address is checked."""
        root, distance = self._displacement(address)
        host = self._hosts.get((root, table))
        if host is None:
            host = self._hosts[root, table] = self._check_span(root, table)
        return self.f.emit(f"getelementptr i8, ptr {host}, i64 {distance}")

    def _check_span(self, root: Uop, table: str) -> str:
        f, bail = self.f, self._bail_label()
        low, high = self._spans[root]
        base = self.value(root)
        first, last = (f.emit(f"add i32 {base}, {distance}") for distance in (low, high))
        # Two addresses in one page differ in no bit above the offset.
        differ = f.emit(f"and i32 {f.emit(f'xor i32 {first}, {last}')}, {-PAGE_SIZE}")
        wrong = f.emit(f"or i32 {differ}, {f.emit(f'and i32 {first}, {_WORD - 1}')}")
        good = f.new_label("good")
        f.do(f"br i1 {f.emit(f'icmp eq i32 {wrong}, 0')}, label %{good}, label %{bail}, !prof !1")
        f.label(good)
        host = self.host_pointer(self.checked_entry(first, f"%{table}", bail), first)
        return f.emit(f"getelementptr i8, ptr {host}, i64 {-low}")
