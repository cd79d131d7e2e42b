"""The file of a translation trace. Records are appended, each with its checksum.

    DBTTRACE  version (u32)  { length (u32)  kind (u8)  CRC-32 of kind and content (u32)  content }

If a run is killed, its file can be read up to the last complete record. The kinds of records are:

=========== ======================================================================================
``HEADER``  JSON: what is run and by what; the first record
``NOTE``    JSON: something that happens seldom: see :class:`Note`
``REGION``  JSON length (u32), JSON, and a compile record (:mod:`dbt.backend.compile_record`): a region is installed
``EVENTS``  :data:`EVENT` after another: what happens often
``COUNTS``  time (u64, ns), icount (u64), and a u64 for each name in the header's ``counts``
``MEMORY``  JSON, compressed: the page tables, what was executed and where branches went, at the end
``BLOCK_COUNTERS`` JSON, compressed: what regions counted, if they did: [GPA, number] by block, exit
``STITCHED`` compressed: JSON length (u32), JSON, code, and a u16 for each byte of it: what was stitched, as it is at
            the end (:class:`dbt.engine.stitch_log.StitchedImage`)
``END``     JSON: how the run ended, and its statistics; the last record
=========== ======================================================================================
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from zlib import crc32

MAGIC = b"DBTTRACE"
VERSION = 4
_FILE = struct.Struct("<8sI")
_RECORD = struct.Struct("<IBI")
#: Kind (u8), size of an access (u8), number of a name (u16), PC (u32), time (u64, ns since the start), icount (u64),
#: and two numbers that depend on the kind (u64).
EVENT = struct.Struct("<BBHIQQQQ")


class RecordKind(IntEnum):
    HEADER = 1
    NOTE = 2
    REGION = 3
    EVENTS = 4
    COUNTS = 5
    MEMORY = 6
    END = 7
    BLOCK_COUNTERS = 8
    STITCHED = 9


class EventKind(IntEnum):
    """The kinds of events. The comments say what the two numbers of each are."""

    # Where a slice ended. What passed since the sample before: ns << 32 | instructions in regions, and instructions in
    # stitched code << 32 | all instructions.
    SAMPLE = 1
    DEVICE_READ = 2  # GPA, value
    DEVICE_WRITE = 3  # GPA, value
    EXIT = 4  # the tier left for the run loop with something else than the end of its budget; name, -
    INTERRUPT = 5  # taken between two slices; name, -
    CHECKPOINT = 6  # CRC-32 of the registers, -


class Note(StrEnum):
    """The kinds of notes, in their field ``what``. All notes have ``time`` in nanoseconds and ``icount``."""

    REQUESTED = "requested"  # entry, gva
    REFUSED = "refused"  # entry, gva, why
    OUTDATED = "outdated"  # entry, gva, changed (GPA or null)
    DROPPED = "dropped"  # region, why, written (GPA or null), pc
    PREDECODED = "predecoded"  # pages: GPAs >> 12
    NAME = "name"  # number, text: what an event's number stands for


class TraceError(ValueError):
    """Raised for a file that is not a readable trace. The message names the file."""


class LogWriter:
    """Appends records to a new file. Raises OSError if it cannot be written."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._write(_FILE.pack(MAGIC, VERSION))

    def append(self, kind: RecordKind, content: bytes) -> None:
        tag = bytes((kind,))
        self._write(_RECORD.pack(len(content), kind, crc32(content, crc32(tag))) + content)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True, slots=True)
class Log:
    """``records`` up to the last complete one. ``missing`` counts the bytes behind it, of a record without an end."""

    records: list[tuple[RecordKind, bytes]]
    missing: int


def read_log(path: str) -> Log:
    """Return the records of a file. Raises TraceError if it is no trace, damaged, or of another version."""
    try:
        # Looked at before it is read: it may be a pipe that nobody writes to, or gigabytes of something else.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(handle).st_mode)
            data = file.read(_FILE.size) if is_file else b""
            if data.startswith(MAGIC):
                data += file.read()
    except OSError as error:
        raise TraceError(f"{path}: it cannot be read: {error.strerror}") from None
    if len(data) < _FILE.size or not data.startswith(MAGIC):
        raise TraceError(f"{path}: this is no translation trace; `dbt run --record-trace FILE` writes one")
    version = _FILE.unpack_from(data)[1]
    if version != VERSION:
        raise TraceError(f"{path}: a trace of version {version}, and this dbt reads version {VERSION}: record it again")
    records = []
    at = _FILE.size
    for kind, content, end in _split(data, path):
        records.append((kind, content))
        at = end
    if not records or records[0][0] is not RecordKind.HEADER:
        raise TraceError(f"{path}: the trace has no header, because the run ended before it began")
    return Log(records, len(data) - at)


def _split(data: bytes, path: str) -> Iterator[tuple[RecordKind, bytes, int]]:
    at = _FILE.size
    while at + _RECORD.size <= len(data):
        size, kind, checksum = _RECORD.unpack_from(data, at)
        end = at + _RECORD.size + size
        if end > len(data):
            return
        content = data[at + _RECORD.size : end]
        if crc32(content, crc32(bytes((kind,)))) != checksum or kind not in RecordKind.__members__.values():
            raise TraceError(f"{path}: the trace is damaged at byte {at}: its checksum is wrong. Record it again")
        yield RecordKind(kind), content, end
        at = end
