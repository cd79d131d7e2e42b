"""Filters of lists and events, as clients write them in JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from dbt.containers.engine.errors import BadParameter

_Written = dict[str, list[str] | dict[str, bool]]
_TRUE: Final = frozenset({"1", "true", "True", "TRUE", "t", "T"})
_FALSE: Final = frozenset({"0", "false", "False", "FALSE", "f", "F"})


class Filters:
    """Values by the names of filters. A thing passes a filter if one of its values fits."""

    def __init__(self, values: Mapping[str, Sequence[str]] | None = None) -> None:
        self.values = {name: list(chosen) for name, chosen in (values or {}).items() if chosen}

    @classmethod
    def read(cls, text: str, known: frozenset[str]) -> Filters:
        """Return the filters in a JSON text: lists, or objects as older clients write them. Raise BadParameter for
        filters that are not ``known``.
        """
        try:
            written = msgspec.json.decode(text or "{}", type=_Written)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise BadParameter(f"invalid filter: {error}") from None
        for name in written:
            if name not in known:
                raise BadParameter(f"Invalid filter '{name}'")
        return cls({name: list(chosen) for name, chosen in written.items()})

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str) -> list[str]:
        """Return the values of a filter, none if it was not given."""
        return self.values.get(name, [])

    def exact(self, name: str, value: str) -> bool:
        """Return True if there is no such filter, or the value is one of its."""
        return name not in self.values or value in self.values[name]

    def any_of(self, name: str, values: Sequence[str]) -> bool:
        """Return True if there is no such filter, or one of the values is one of its."""
        return name not in self.values or any(value in self.values[name] for value in values)

    def matches(self, name: str, value: str) -> bool:
        """Return True if there is no such filter, or one of its values is in the value, as text or as a pattern."""
        return name not in self.values or any(_is_in(one, value) for one in self.values[name])

    def labels(self, labels: Mapping[str, str], name: str = "label") -> bool:
        """Return True if the labels have each of the filter: KEY, or KEY=VALUE."""
        return all(_has_label(one, labels) for one in self.get(name))

    def no_labels(self, labels: Mapping[str, str], name: str = "label!") -> bool:
        """Return True if the labels have none of the filter."""
        return not any(_has_label(one, labels) for one in self.get(name))

    def boolean(self, name: str) -> bool | None:
        """Return the truth value of a filter, or None if there is none. Raise BadParameter for other values."""
        chosen = self.get(name)
        if not chosen:
            return None
        if len(chosen) > 1 or chosen[0] not in _TRUE | _FALSE:
            raise BadParameter(f"Invalid filter '{name}=[{' '.join(chosen)}]'")
        return chosen[0] in _TRUE


def _is_in(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return pattern in value


def _has_label(wanted: str, labels: Mapping[str, str]) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
