"""JSON that others have written: manifests, configurations and what else archives and registries have of it."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

#: A document of an image has some hundreds of values. This many take some 50 MB of memory.
_MOST_VALUES: Final = 1 << 19
T = TypeVar("T")


def decode(document: bytes, form: type[T]) -> T:
    """Return a JSON document as a checked value. Raise msgspec.DecodeError, RecursionError or UnicodeDecodeError.

    Two bytes of a document, as an empty list and its comma, take up to 100 in memory, and msgspec sees that a list is
    too long when it has made all of it. So one that may have too many values is not read. Those that have no value
    before them in their list or object are counted by its bracket, the others by their comma.
    """
    if sum(map(document.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise msgspec.ValidationError(f"it may have more than {_MOST_VALUES} values")
    return msgspec.json.decode(document, type=form)
