"""The values of a state on their way to another machine: what :mod:`dbt.snapshot.plain` says, in a tenth of the time.

Somebody waits for them while a guest stands still. msgspec encodes and decodes in native code. What it makes has the
one encoding of plain values, if there are no mappings by numbers, and what it reads is compared with that.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dbt.devices.state import Plain
from dbt.snapshot import plain

#: What is longer is decoded with the other decoder's bounds on memory.
_LONGEST: Final = 1 << 20
_SCALARS: Final = frozenset({int, bool, str, bytes, type(None)})
_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")
_decoder: Final = msgspec.msgpack.Decoder()
#: What msgspec raises for values and bytes that the other module has to judge.
_ERRORS: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def encode(value: Plain) -> bytes:
    """Return the bytes of a plain value: those of :func:`dbt.snapshot.plain.encode`."""
    try:
        return _encoder.encode(value)
    except _ERRORS:
        return plain.encode(value)


def decode(data: bytes) -> Plain:
    """Return the value whose encoding is exactly ``data``. Raise NotPlain for other bytes."""
    if len(data) <= _LONGEST:
        try:
            found = _decoder.decode(data)
            if _is_plain(found, 0) and _encoder.encode(found) == data:
                return found  # type: ignore[no-any-return]
        except _ERRORS:
            pass  # which the other decoder tells better
    return plain.decode(data)


def _is_plain(value: object, depth: int) -> bool:
    """Return True if a decoded value is of no other kinds than plain ones, and not too deep."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if depth >= plain.MAX_DEPTH:
        return False
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return held is not None and all(type(one) in _SCALARS or _is_plain(one, depth + 1) for one in held)
