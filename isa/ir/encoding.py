"""The pattern language, in which encodings are written, and the decoder that is built from patterns.

A pattern is a text with all bits of the instruction, the most significant first, in tokens separated by blanks:

    ``0101``      fixed bits
    ``(0)``       should-be bits: an assembler writes these values, and the decoder ignores them
                  (choice: should-be-bits)
    ``rn:4``      a field of that width

``where="rn!=15"`` excludes a value of a field. So an encoding that is a special case of another one, such as a literal
load, needs no order of precedence. An instruction set can reserve a field value in all of its patterns, such as 0b1111
of A32's ``cond``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_TOKEN = re.compile(r"(?P<fixed>[01]+)|\((?P<should>[01]+)\)|(?P<name>[a-z][a-z0-9_]*):(?P<width>\d+)")
_WHERE = re.compile(r"(?P<name>[a-z][a-z0-9_]*)\s*!=\s*(?P<value>\d+)")


class EncodingError(ValueError):
    """Raised for a pattern that is not well formed, and for two patterns that match the same word."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field: the bits ``[lo, lo + width)`` of the instruction word."""

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
    """One encoding. It matches a word if ``word & mask == value`` and no field has an excluded value.

    ``should`` holds the should-be bits of ``should_mask``, for assemblers and test generators. ``width`` is in bits.
    """

    text: str
    width: int
    mask: int
    value: int
    should_mask: int
    should: int
    fields: Mapping[str, Field]
    excluded: frozenset[tuple[str, int]]

    @classmethod
    def parse(
        cls, text: str, where: str = "", *, widths: Sequence[int] = (32,), reserved: Mapping[str, int] | None = None
    ) -> Pattern:
        """Return the pattern of a text. Raise EncodingError if it is not well formed, or if its width is none of
        ``widths``.

        ``reserved`` has field values that are excluded if the pattern has a field of that name.
        """
        tokens = []
        for token in text.split():
            match = _TOKEN.fullmatch(token)
            if match is None:
                raise EncodingError(f"pattern {text!r}: cannot read token {token!r}")
            bits = match["fixed"] or match["should"] or ""
            width = len(bits) or int(match["width"])
            if width == 0:
                raise EncodingError(f"pattern {text!r}: a field of 0 bits at {token!r}")
            tokens.append((match, bits, width))
        left = total = sum(width for *_, width in tokens)
        if total not in widths:
            raise EncodingError(f"pattern {text!r}: it is {total} bits wide, not {' or '.join(map(str, widths))}")
        mask = value = should_mask = should = 0
        fields: dict[str, Field] = {}
        for match, bits, width in tokens:
            left -= width
            span = ((1 << width) - 1) << left
            if match["fixed"]:
                mask, value = mask | span, value | int(bits, 2) << left
            elif match["should"]:
                should_mask, should = should_mask | span, should | int(bits, 2) << left
            elif match["name"] in fields:
                raise EncodingError(f"pattern {text!r}: field {match['name']} occurs twice")
            else:
                fields[match["name"]] = Field(match["name"], left, width)
        excluded = {item for item in (reserved or {}).items() if item[0] in fields}
        for clause in filter(None, (part.strip() for part in where.split(","))):
            match = _WHERE.fullmatch(clause)
            if match is None or match["name"] not in fields:
                raise EncodingError(f"pattern {text!r}: cannot read condition {clause!r}")
            fields[match["name"]].insert(int(match["value"]))
            excluded.add((match["name"], int(match["value"])))
        return cls(text, total, mask, value, should_mask, should, fields, frozenset(excluded))

    def holes(self) -> tuple[tuple[int, int], ...]:
        """Return the excluded field values, each as a mask and a value of the word's bits."""
        return tuple((self.fields[name].mask, self.fields[name].insert(value)) for name, value in self.excluded)

    def matches(self, word: int) -> bool:
        """Return True if the pattern matches the word."""
        return word & self.mask == self.value and not any(
            self.fields[name].extract(word) == value for name, value in self.excluded
        )

    def decode(self, word: int) -> dict[str, int]:
        """Return the values of the fields in a word. Precondition: the pattern matches it."""
        return {name: field.extract(word) for name, field in self.fields.items()}

    def encode(self, fields: Mapping[str, int]) -> int:
        """Return the word with these field values. Fields that are not given are 0; should-be bits have their values.

        Raises EncodingError if a value does not fit.
        """
        word = self.value | self.should
        for name, value in fields.items():
            word |= self.fields[name].insert(value)
        return word

    def overlaps(self, other: Pattern) -> bool:
        """Return True if some word matches both patterns. This is exact as long as patterns exclude single values."""
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


class DecodeIndex(Protocol):
    """A number made of the bits of a word that distinguish most instructions. Decoders use it as an index."""

    #: How many numbers there are, from 0 up.
    size: int

    def of(self, word: int) -> int:
        """Return the number of a word."""

    def values(self, mask: int, value: int, holes: Collection[tuple[int, int]]) -> Iterable[int]:
        """Yield the numbers of the words with ``word & mask == value`` that are in none of ``holes``.

        Holes are pairs like ``mask`` and ``value``. The result may include numbers that only words in a hole have.
        """


class Decoder(Generic[E]):
    """Finds the entry whose pattern matches a word. Raises EncodingError if two patterns overlap."""

    def __init__(self, entries: Iterable[E], index: DecodeIndex) -> None:
        self._number_of = index.of
        self._buckets: list[list[E]] = [[] for _ in range(index.size)]
        for entry in entries:
            pattern = entry.pattern
            for number in index.values(pattern.mask, pattern.value, pattern.holes()):
                for other in self._buckets[number]:
                    if other is not entry and other.pattern.overlaps(pattern):
                        raise EncodingError(
                            f"{other.name} [{other.pattern.text}] and {entry.name} [{pattern.text}] overlap"
                        )
                self._buckets[number].append(entry)

    def decode(self, word: int) -> E | None:
        """Return the entry whose pattern matches the word, or None if there is none."""
        for entry in self._buckets[self._number_of(word)]:
            if entry.pattern.matches(word):
                return entry
        return None
