"""The index by which the decoders in Python and in native code find A32 instructions."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from isa.arm.operands import UNCONDITIONAL
from isa.ir.encoding import DecodeIndex

CONDITION_SHIFT = 28
#: The index is ``word >> HIGH_SHIFT & HIGH_MASK | word >> LOW_SHIFT & LOW_MASK``: bits 27:20 and 7:4 of the word ...
HIGH_SHIFT, HIGH_MASK = 16, 0xFF0
LOW_SHIFT, LOW_MASK = 4, 0xF
#: ... and this bit, if the word is unconditional.
UNCONDITIONAL_BIT = 1 << 12

_CONDITION_HOLE = (0xF << CONDITION_SHIFT, UNCONDITIONAL << CONDITION_SHIFT)


class A32Index(DecodeIndex):
    """An index of bits 27:20 and 7:4, which have most of the opcode, and one bit for the unconditional space."""

    size = 2 * UNCONDITIONAL_BIT

    def of(self, word: int) -> int:
        """Return the index of a word."""
        space = UNCONDITIONAL_BIT if word >> CONDITION_SHIFT == UNCONDITIONAL else 0
        return space | word >> HIGH_SHIFT & HIGH_MASK | word >> LOW_SHIFT & LOW_MASK

    def values(self, mask: int, value: int, holes: Collection[tuple[int, int]]) -> Iterable[int]:
        """Yield the indices that words with ``word & mask == value`` can have."""
        opcode_bits = UNCONDITIONAL_BIT - 1
        free = ~self.of(mask) & opcode_bits
        spaces = [0, UNCONDITIONAL_BIT]
        if mask >> CONDITION_SHIFT == UNCONDITIONAL:
            spaces = [UNCONDITIONAL_BIT if value >> CONDITION_SHIFT == UNCONDITIONAL else 0]
        elif _CONDITION_HOLE in holes:
            spaces = [0]
        for space in spaces:
            base = space | self.of(value) & opcode_bits
            choice = free
            while choice:  # all subsets of the free bits, downwards
                yield base | choice
                choice = choice - 1 & free
            yield base
