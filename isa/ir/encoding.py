"""The pattern language: the bits of an instruction with named fields, and the decoder built from them.

A pattern is a text of 32 bits, most significant first, in tokens separated by blanks:

    ``0101``      fixed bits
    ``(0)``       should-be bits: written so by an assembler, ignored by the decoder
                  (choice: should-be-bits)
    ``rn:4``      a field of that width

``cond`` is special: a pattern with a field of that name never matches the value 0b1111, which is
the unconditional space. ``where="rn!=15"`` removes further values, so that an encoding carved out
of another one (a literal load from a register load, say) needs no order of precedence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_TOKEN = re.compile(r"(?P<fixed>[01]+)|\((?P<should>[01]+)\)|(?P<name>[a-z][a-z0-9_]*):(?P<width>\d+)")
_WHERE = re.compile(r"(?P<name>[a-z][a-z0-9_]*)\s*!=\s*(?P<value>\d+)")
UNCONDITIONAL = 0b1111


class EncodingError(ValueError):
    """A pattern that is not well formed, or two patterns that claim one word."""


@dataclass(frozen=True, slots=True)
class Field:
    """Bits ``[lo, lo + width)`` of the instruction word."""

    name: str
    lo: int
    width: int

    @property
    def mask(self) -> int:
        return ((1 << self.width) - 1) << self.lo

    def extract(self, word: int) -> int:
        return (word >> self.lo) & ((1 << self.width) - 1)

    def insert(self, value: int) -> int:
        if value >> self.width:
            raise EncodingError(f"{value} does not fit the {self.width} bits of field {self.name}")
        return value << self.lo


@dataclass(frozen=True, slots=True)
class Pattern:
    """One encoding: ``word & mask == value``, no excluded field value, and the fields in between.

    ``should`` holds the should-be bits of ``should_mask``, for assemblers and test generators.
    """

    text: str
    mask: int
    value: int
    should_mask: int
    should: int
    fields: Mapping[str, Field]
    excluded: frozenset[tuple[str, int]]

    @classmethod
    def parse(cls, text: str, where: str = "") -> Pattern:
        mask = value = should_mask = should = 0
        fields: dict[str, Field] = {}
        left = 32
        for token in text.split():
            match = _TOKEN.fullmatch(token)
            if match is None:
                raise EncodingError(f"pattern {text!r}: cannot read token {token!r}")
            bits = match["fixed"] or match["should"] or ""
            width = len(bits) or int(match["width"])
            left -= width
            if left < 0 or width == 0:
                raise EncodingError(f"pattern {text!r}: it is wider than 32 bits at {token!r}")
            span = ((1 << width) - 1) << left
            if match["fixed"]:
                mask, value = mask | span, value | int(bits, 2) << left
            elif match["should"]:
                should_mask, should = should_mask | span, should | int(bits, 2) << left
            elif match["name"] in fields:
                raise EncodingError(f"pattern {text!r}: field {match['name']} occurs twice")
            else:
                fields[match["name"]] = Field(match["name"], left, width)
        if left:
            raise EncodingError(f"pattern {text!r}: it is {32 - left} bits wide, not 32")
        excluded = {("cond", UNCONDITIONAL)} if "cond" in fields else set()
        for clause in filter(None, (part.strip() for part in where.split(","))):
            match = _WHERE.fullmatch(clause)
            if match is None or match["name"] not in fields:
                raise EncodingError(f"pattern {text!r}: cannot read condition {clause!r}")
            fields[match["name"]].insert(int(match["value"]))
            excluded.add((match["name"], int(match["value"])))
        return cls(text, mask, value, should_mask, should, fields, frozenset(excluded))

    def matches(self, word: int) -> bool:
        return word & self.mask == self.value and not any(
            self.fields[name].extract(word) == value for name, value in self.excluded
        )

    def decode(self, word: int) -> dict[str, int]:
        return {name: field.extract(word) for name, field in self.fields.items()}

    def encode(self, fields: Mapping[str, int]) -> int:
        """The word with these field values; unnamed fields are zero, should-be bits as they should be."""
        word = self.value | self.should
        for name, value in fields.items():
            word |= self.fields[name].insert(value)
        return word

    def overlaps(self, other: Pattern) -> bool:
        """Whether some word matches both (exactly, as long as a pattern excludes single values)."""
        if (self.value ^ other.value) & self.mask & other.mask:
            return False
        fixed, value = self.mask | other.mask, self.value | other.value
        for pattern in (self, other):
            for name, hole in pattern.excluded:
                field = pattern.fields[name]
                if field.mask & ~fixed == 0 and field.extract(value) == hole:
                    return False
        return True


class Encoded(Protocol):
    """Anything that has a name and a pattern."""

    @property
    def name(self) -> str: ...
    @property
    def pattern(self) -> Pattern: ...


E = TypeVar("E", bound=Encoded)


def decode_index(word: int) -> int:
    """Bits 27:20 and 7:4, where the architecture keeps most of its opcode bits, and the unconditional bit."""
    return (word >> 28 == UNCONDITIONAL) << 12 | word >> 16 & 0xFF0 | word >> 4 & 0xF


INDEX_SIZE = 1 << 13


def index_values(mask: int, value: int) -> Iterable[int]:
    """The decode indexes that a word with ``word & mask == value`` can have."""
    free = ~decode_index(mask) & 0xFFF
    spaces = [0, 1]
    if mask >> 28 == UNCONDITIONAL:
        spaces = [int(value >> 28 == UNCONDITIONAL)]
    for space in spaces:
        base = space << 12 | decode_index(value) & 0xFFF
        choice = free
        while choice:  # all parts of the free bits, downwards
            yield base | choice
            choice = choice - 1 & free
        yield base


class Decoder(Generic[E]):
    """Finds the one entry whose pattern matches a word. Overlapping patterns are refused here."""

    def __init__(self, entries: Iterable[E]) -> None:
        self._buckets: list[list[E]] = [[] for _ in range(INDEX_SIZE)]
        for entry in entries:
            pattern = entry.pattern
            for index in index_values(pattern.mask, pattern.value):
                if index >> 12 and "cond" in pattern.fields:
                    continue
                for other in self._buckets[index]:
                    if other is not entry and other.pattern.overlaps(pattern):
                        raise EncodingError(
                            f"{other.name} [{other.pattern.text}] and {entry.name} [{pattern.text}] overlap"
                        )
                self._buckets[index].append(entry)

    def decode(self, word: int) -> E | None:
        for entry in self._buckets[decode_index(word)]:
            if entry.pattern.matches(word):
                return entry
        return None
