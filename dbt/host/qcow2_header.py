"""The headers of qcow2 images, which may come from anybody. Nothing in them is believed."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dbt.host.disk import DiskError, RawFile

_MAGIC: Final = b"QFI\xfb"
#: Magic number, version, place and length of the name of a backing file, bits of a cluster, size of the disk,
#: encryption, entries and place of the first table, place and clusters of the table of counts, number of snapshots.
_HEADER: Final = struct.Struct(">4sIQIIQIIQQII")
#: Of version 3, from byte 72 on: features that a reader has to know, others, others, refcount bits, header's length.
_MORE: Final = struct.Struct(">QQQII")
_MORE_AT, _COMPRESSION_AT = 72, 104
#: An extension of the header: its kind and its size. They begin behind the header, and are of multiples of 8 bytes.
_EXTENSION: Final = struct.Struct(">II")
_LAST, _BACKING_FORMAT = 0, 0xE2792ACA
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED = (1 << bit for bit in range(5))
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED
_LEAST_BITS, _MOST_BITS = 9, 21
#: QEMU's limit for the first table, in bytes, and what an offset of the disk can be.
_MOST_TABLE: Final = 32 << 20
_MOST_SIZE: Final = 1 << 62
_LONGEST_NAME: Final = 1023
_MOST_ORDER: Final = 6


class Counts(NamedTuple):
    """What a header says about the use of clusters: the table of the blocks of reference counts, as its place and its
    size in clusters, the bits of a count, the snapshots in the image, and whether counts may be wrong.

    ``has_extras`` tells of data that a writer without knowledge of it has to disown.
    """

    table: int
    clusters: int
    bits: int
    snapshots: int
    is_dirty: bool
    has_extras: bool


class Header(NamedTuple):
    """What a header says: the size of the disk, the bits of a cluster, the place of the first table, the name of the
    backing file and its format, or empty texts.
    """

    size: int
    cluster_bits: int
    table: int
    is_version_3: bool
    is_zstd: bool
    backing: str
    backing_format: str
    counts: Counts


def read_header(file: RawFile) -> Header:
    """Return what the header says. Raise DiskError if it is none that can be used."""
    path = file.path
    fields = _HEADER.unpack(file.read(0, _HEADER.size))
    magic, version, name_at, name_size, bits, size, encryption, entries, table, *counts = fields
    if magic != _MAGIC:
        raise DiskError(f"the disk {path} is no qcow2 image. If it is a raw one, leave `format=qcow2` out")
    if version not in (2, 3):
        raise DiskError(f"the disk {path} is a qcow2 image of version {version}: only versions 2 and 3 are known")
    more = _read_features(file) if version == 3 else _Features(0, 0, 4, False, _MORE_AT)
    features = more.known
    if encryption:
        raise _unsupported(path, "is encrypted")
    if features & _DATA_FILE:
        raise _unsupported(path, "has its data in another file")
    if features & _EXTENDED:
        raise _unsupported(path, "has extended table entries (subclusters)")
    if features & _CORRUPT:
        raise DiskError(f"the disk {path} is marked as damaged. Repair it with `qemu-img check -r all`")
    _check_geometry(file, bits, size, entries, table)
    backing = backing_format = ""
    if name_at:
        if name_size > _LONGEST_NAME or name_at + name_size > file.size:
            raise _wrong(path, f"a name of {name_size} bytes at {name_at:#x}")
        backing = file.read(name_at, name_size).decode(errors="replace") or "?"
        backing_format = _read_backing_format(file, more.length, name_at)
    is_dirty, has_extras = bool(features & _DIRTY), more.disowned != 0
    uses = Counts(counts[0], counts[1], 1 << more.count_order, counts[2], is_dirty, has_extras)
    return Header(size, bits, table, version == 3, more.is_zstd, backing, backing_format, uses)


def _check_geometry(file: RawFile, bits: int, size: int, entries: int, table: int) -> None:
    """Raise DiskError unless there can be clusters of that size, and a first table for so large a disk at its place."""
    path = file.path
    if not _LEAST_BITS <= bits <= _MOST_BITS:
        raise _wrong(path, f"clusters of 2^{bits} bytes")
    if not 0 < size <= _MOST_SIZE:
        raise _wrong(path, f"a disk of {size} bytes")
    needed = -(-size >> 2 * bits - 3)
    if entries < needed or needed * 8 > _MOST_TABLE:
        raise _wrong(path, f"a table of {entries} entries for a disk of {size} bytes")
    if table & (1 << bits) - 1 or not table or table + 8 * needed > file.size:
        raise _wrong(path, f"a table at {table:#x}, in a file of {file.size:#x} bytes")


class _Features(NamedTuple):
    """Features that a reader has to know, those that a writer has to clear, the logarithm of a count's bits, and the
    header's length.
    """

    known: int
    disowned: int
    count_order: int
    is_zstd: bool
    length: int


def _read_features(file: RawFile) -> _Features:
    """Return what only version 3 has."""
    features, _, disowned, order, length = _MORE.unpack(file.read(_MORE_AT, _MORE.size))
    if length < _COMPRESSION_AT or length % 8:
        raise _wrong(file.path, f"a header of {length} bytes")
    if features & ~_KNOWN:
        raise _unsupported(file.path, f"has features that are not known here ({features & ~_KNOWN:#x})")
    method = file.read(_COMPRESSION_AT, 1)[0] if length > _COMPRESSION_AT else 0
    if method > 1 or bool(method) != bool(features & _COMPRESSION):
        raise _wrong(file.path, f"compression of kind {method}")
    if order > _MOST_ORDER:
        raise _wrong(file.path, f"reference counts of 2^{order} bits")
    return _Features(features, disowned, order, method == 1, length)


def _read_backing_format(file: RawFile, at: int, end: int) -> str:
    """Return what the extensions from ``at`` to ``end`` say of the backing file's format, or an empty text."""
    while at + _EXTENSION.size <= end:
        kind, size = _EXTENSION.unpack(file.read(at, _EXTENSION.size))
        at += _EXTENSION.size
        if kind == _LAST:
            break
        if at + size > end:
            raise _wrong(file.path, f"an extension of {size} bytes")
        if kind == _BACKING_FORMAT:
            return file.read(at, size).decode(errors="replace")
        at += size + 7 & ~7
    return ""


def _wrong(path: str, what: str) -> DiskError:
    return DiskError(f"the disk {path} is damaged: its header says that it has {what}")


def _unsupported(path: str, what: str) -> DiskError:
    return DiskError(f"the disk {path} {what}, which is not supported. Convert it with `qemu-img convert -O qcow2`")
