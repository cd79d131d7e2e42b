"""A check that data from a file has the types that its reader relies on, because a trace may come from anybody.

A shape is a type; a tuple of types, any of which will do; a list of one shape, for lists of it; a dict of shapes by
key, all of which must be present; :class:`Each`, for a dict with any keys; or :class:`Fields`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Each:
    """A dict whose values have a shape."""

    shape: Any


class Negative:
    """The type of -1, which stands for "all of them"."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A list of exactly these shapes, in this order."""

    shapes: tuple[Any, ...]


def check(value: Any, shape: Any, what: str) -> Any:
    """Return the value. Raises ValueError if it does not have the shape; ``what`` names it in the message."""
    match shape:
        case dict():
            _check_dict(value, what)
            for key, inner in shape.items():
                if key not in value:
                    raise ValueError(f"{what} has no {key!r}")
                check(value[key], inner, f"{what}: {key}")
        case Each():
            _check_dict(value, what)
            for inner in value.values():
                check(inner, shape.shape, what)
        case Fields():
            if not isinstance(value, list) or len(value) != len(shape.shapes):
                raise ValueError(f"{what} has not {len(shape.shapes)} parts")
            for inner, inner_shape in zip(value, shape.shapes, strict=True):
                check(inner, inner_shape, what)
        case list():
            if not isinstance(value, list):
                raise ValueError(f"{what} is no list")
            for inner in value:
                check(inner, shape[0], what)
        case tuple():
            if not any(_fits(value, inner) for inner in shape):
                raise ValueError(f"{what} is of another type than it should be")
        case _:
            if not _fits(value, shape):
                raise ValueError(f"{what} is no {shape.__name__ if shape is not None else 'null'}")
    return value


def _check_dict(value: Any, what: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object")


def _fits(value: Any, shape: Any) -> bool:
    """Return True if the value has the simple type. A number must be in the range of a u64, so that it prints fast."""
    if shape is None:
        return value is None
    if shape is int:
        return type(value) is int and 0 <= value < 1 << 64
    if shape is Negative:
        return type(value) is int and value == -1
    if shape is float:
        return type(value) in (int, float) and abs(value) < 1 << 64
    return type(value) is shape
