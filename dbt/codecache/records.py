"""The format of a file of records: byte strings with checksums, by which damage is detected when they are read.

    magic  number of records  { length  digest  content }

The format does not depend on the content of the records, so a file of another version of dbt can be checked too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from dbt.backend.digest import digest

MAGIC = b"DBTREC02"
_HEADER = struct.Struct("<8sI")
_RECORD = struct.Struct("<I32s")


def pack_records(records: Sequence[bytes]) -> bytes:
    """Return the content of a file with these records."""
    parts = [_HEADER.pack(MAGIC, len(records))]
    for record in records:
        parts += _RECORD.pack(len(record), digest(record)), record
    return b"".join(parts)


def unpack_records(data: bytes) -> Iterator[bytes]:
    """Return an iterator over the undamaged records, in order. Each is checked when it is requested."""
    return (record for record in _split(data) if record is not None)


def are_whole(data: bytes) -> bool:
    """Return True if ``data`` is exactly what :func:`pack_records` returned."""
    records = list(_split(data))
    return None not in records and _HEADER.unpack_from(data)[1] == len(records)


def _split(data: bytes) -> Iterator[bytes | None]:
    """Yield the records in order, and None in place of a damaged one."""
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        yield None
        return
    at = _HEADER.size
    while at < len(data):
        length, expected = _RECORD.unpack_from(data, at) if len(data) - at >= _RECORD.size else (0, b"")
        at += _RECORD.size
        record = data[at : at + length]
        at += length
        yield record if at <= len(data) and digest(record) == expected else None
