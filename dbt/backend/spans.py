"""Spans: memory accesses of a block that are checked together.

Functions save registers, and code works on structures and stack frames: several accesses by one register and
small constants, between which the register does not change. All but the first of such a span are as good as
checked once the first has made sure of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dbt.frontend.forming import Block
from isa.ir.queries import registers_written
from isa.ir.uop import Access, Uop

#: The number of bytes that the address of an access must be a multiple of.
Alignment = Callable[[Access], int]
#: The spans of a block, by the position of the instruction and the access.
Spans = dict[tuple[int, Uop], "Span"]
#: A wider span would fail too often where a part of it could be accessed.
WIDEST = 512


@dataclass(slots=True, eq=False)
class Span:
    """Bytes from register ``base`` + ``low`` to + ``high`` (not included); base + low is a multiple of ``align``.

    ``host`` is the HVA of its first byte, once it was checked.
    """

    base: int
    low: int
    high: int
    align: int
    accesses: int = 1
    host: str = ""

    def add(self, low: int, high: int, align: int) -> bool:
        """Extend the span by an access. Return False if the two cannot be checked together."""
        first, last, widest = min(self.low, low), max(self.high, high), max(self.align, align)
        # The first byte must be aligned if every access is.
        phase = low if align > self.align else self.low
        first -= (first - phase) % widest
        if last - first > WIDEST or (low - first) % align or (self.low - first) % self.align:
            return False
        self.low, self.high, self.align = first, last, widest
        self.accesses += 1
        return True


def displacement(address: Uop) -> tuple[int, int] | None:
    """Return the register and the constant whose sum an address is, or None if it is no such sum."""
    if address.op == "get_reg" and address.args[0].number is not None:
        return address.args[0].number, 0
    if address.op not in ("add", "sub", "adc") or any(arg.number is None for arg in address.args[1:]):
        return None
    inner = displacement(address.args[0])
    if inner is None:
        return None
    # An adc has two constants. The second one is a carry.
    constant = sum(arg.number or 0 for arg in address.args[1:]) & 0xFFFFFFFF
    constant -= (constant & 1 << 31) << 1
    return inner[0], inner[1] + (-constant if address.op == "sub" else constant)


def list_access(loop: Uop) -> tuple[Uop, Uop] | None:
    """Return the access of a loop over a register list, one word for each bit, and the address of the first word.

    None if the loop makes no such access.
    """
    for uop in loop.body:
        if uop.op in ("load", "store"):
            address = uop.args[0]
            if address.op == "add" and address.args[1].op == "shl" and address.args[1].args[0].op == "bit_ordinal":
                return uop, address.args[0]
    return None


def _accesses(block: list[Uop], alignment: Alignment) -> Iterator[tuple[Uop, Uop, int, int]]:
    """Yield the accesses that are always made: uop, address of the first byte, size and alignment in bytes."""
    for uop in block:
        if uop.op in ("load", "store"):
            assert isinstance(uop.attr, Access)
            yield uop, uop.args[0], uop.attr.size, alignment(uop.attr)
        elif uop.op == "for_each_bit" and uop.args[0].number is not None and (found := list_access(uop)):
            assert isinstance(found[0].attr, Access)
            yield *found, 4 * uop.args[0].number.bit_count(), alignment(found[0].attr)


def find_spans(block: Block, alignment: Alignment) -> Spans:
    """Return the spans of a block."""
    found: Spans = {}
    open_spans: dict[tuple[int, str], Span] = {}
    for index, insn in enumerate(block.insns):
        for uop, address, size, align in _accesses(insn.uops, alignment):
            place = displacement(address)
            if place is None:
                continue
            base, low = place
            span = open_spans.get((base, uop.op))
            if span is None or not span.add(low, low + size, align):
                span = open_spans[base, uop.op] = Span(base, low, low + size, align)
            found[index, uop] = span
        for register in registers_written(insn.uops):
            for op in ("load", "store"):
                open_spans.pop((register, op), None)
    return {key: span for key, span in found.items() if span.accesses > 1 or span.high - span.low > 4}
