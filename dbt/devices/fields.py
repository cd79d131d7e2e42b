"""Reading plain values that somebody else may have made: each is of the wanted type and within its bounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from dbt.devices.state import StateError

#: Ticks and counts of instructions are below this, so that sums of some of them fit in eight signed bytes.
LARGEST_COUNT = 1 << 61
_WORDS = re.compile("[a-z -]{1,40}")


class Fields:
    """The values of a mapping by their names. ``where`` names the mapping in messages.

    Raises StateError unless the mapping has exactly the wanted ``names``.
    """

    def __init__(self, values: object, where: str, names: frozenset[str]) -> None:
        if type(values) is not dict or values.keys() != names:
            raise StateError(_other_fields(values, where, names))
        self._values: dict[str, Any] = values
        self._where = where

    def wrong(self, name: str, wanted: str) -> StateError:
        """Return the error for a value that is not ``wanted``, to be raised."""
        return StateError(f"{name} in {self._where} is not {wanted}: {self._values[name]!r:.100}")

    def get(self, name: str) -> Any:
        """Return a value that somebody else checks."""
        return self._values[name]

    def sub(self, name: str, names: frozenset[str]) -> Fields:
        """Return the values of a mapping in this one."""
        return Fields(self._values[name], f"{name} in {self._where}", names)

    def number(self, name: str, end: int = LARGEST_COUNT) -> int:
        """Return a whole number in ``[0, end)``."""
        value = self._values[name]
        if type(value) is not int or not 0 <= value < end:
            raise self.wrong(name, f"a number from 0 to {end - 1:#x}")
        return value

    def flag(self, name: str) -> bool:
        value = self._values[name]
        if type(value) is not bool:
            raise self.wrong(name, "True or False")
        return value

    def text(self, name: str, longest: int) -> str:
        value = self._values[name]
        if type(value) is not str or len(value) > longest:
            raise self.wrong(name, f"text of at most {longest} characters")
        return value

    def data(self, name: str, longest: int) -> bytes:
        value = self._values[name]
        if type(value) is not bytes or len(value) > longest:
            raise self.wrong(name, f"at most {longest} bytes")
        return value

    def numbers(self, name: str, longest: int, end: int = LARGEST_COUNT) -> list[int]:
        """Return a list of at most ``longest`` whole numbers in ``[0, end)``."""
        value = self._values[name]
        if type(value) is not list or len(value) > longest or not all(type(n) is int and 0 <= n < end for n in value):
            raise self.wrong(name, f"a list of at most {longest} numbers from 0 to {end - 1:#x}")
        return value

    def choice(self, name: str, choices: Callable[[str], bool]) -> str:
        """Return a text for which ``choices`` returns True."""
        value = self._values[name]
        if type(value) is not str or not choices(value):
            raise self.wrong(name, "one that this dbt knows")
        return value

    def is_none(self, name: str) -> bool:
        return self._values[name] is None

    def counts(self, name: str, longest: int) -> dict[str, int]:
        """Return a mapping of at most ``longest`` names, which are words in lower case, to counts."""
        value = self._values[name]
        if type(value) is not dict or len(value) > longest or not all(map(_is_count, value.items())):
            raise self.wrong(name, f"a mapping of at most {longest} words in lower case to counts")
        return value

    def items(self, name: str, longest: int, names: frozenset[str]) -> Iterator[tuple[int, Fields]]:
        """Yield key and fields of a mapping of at most ``longest`` numbers to mappings."""
        value = self._values[name]
        if type(value) is not dict or len(value) > longest or not all(type(key) is int for key in value):
            raise self.wrong(name, f"a mapping of at most {longest} numbers to values")
        for key, held in value.items():
            yield key, Fields(held, f"{name} {key} in {self._where}", names)


def _is_count(item: tuple[object, object]) -> bool:
    name, count = item
    is_name = type(name) is str and _WORDS.fullmatch(name)
    return bool(is_name) and type(count) is int and 0 <= count < LARGEST_COUNT


def _other_fields(values: object, where: str, names: frozenset[str]) -> str:
    """Return what is wrong with a mapping that has other fields than it must."""
    if type(values) is not dict:
        return f"{where} is no mapping"
    lacks, more = sorted(names - values.keys()), sorted(map(repr, values.keys() - names))
    parts = []
    if lacks:
        parts.append(f"lacks {', '.join(lacks)}")
    if more:
        parts.append(f"has {', '.join(more):.100}, which is unknown here")
    return f"{where} {' and '.join(parts)}: another version of dbt has written it, or it is damaged"
