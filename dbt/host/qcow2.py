"""Images in the format qcow2, versions 2 and 3 (docs/interop/qcow2.txt of QEMU), read and never written.

A file of this format maps each cluster of a disk to a place in the file by tables of two levels. It may come from
anybody, so nothing in it is believed: whatever a table says, memory stays bounded, only the file itself and the files
that were named by the user are read, and what makes no sense is an error. The header is checked when the file is
opened, an entry of a table when the guest reads what it is about.
"""

from __future__ import annotations

import errno
import struct
import zlib
from collections import OrderedDict
from types import TracebackType
from typing import Final, NamedTuple, TypeVar

from dbt.host.disk import DiskError, DiskImage, RawFile

_MAGIC: Final = b"QFI\xfb"
#: Magic number, version, place and length of the name of a backing file, bits of a cluster, size of the disk,
#: encryption, entries and place of the first table.
_HEADER: Final = struct.Struct(">4sIQIIQIIQ")
#: Of version 3, from byte 72 on: features that a reader has to know, others, others, refcount bits, header's length.
_MORE: Final = struct.Struct(">QQQII")
_MORE_AT, _COMPRESSION_AT = 72, 104
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED = (1 << bit for bit in range(5))
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED
_LEAST_BITS, _MOST_BITS = 9, 21
#: QEMU's limit for the first table, in bytes, and what an offset of the disk can be.
_MOST_TABLE: Final = 32 << 20
_MOST_SIZE: Final = 1 << 62
_LONGEST_NAME: Final = 1023

_PLACE: Final = (1 << 56) - (1 << 9)
_COMPRESSED, _ZERO = 1 << 62, 1
_SECTOR: Final = 512
#: Tables are read in slices of so many entries, of which so many are kept: 1 MiB.
_SLICE: Final = 512
_KEPT_SLICES: Final = 256
#: Compressed clusters that are kept, at most 8 MiB.
_KEPT_CLUSTERS: Final = 4
#: A frame of zstd may want a window of so many bytes.
_MOST_WINDOW: Final = 8 << 20
_Value = TypeVar("_Value")


class DamagedImage(OSError):
    """Raised for a place of a disk at which the image makes no sense. The text names the image and says what."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(errno.EIO, f"the image {path} is damaged: {what}. Look at it with `qemu-img check`")


class _Header(NamedTuple):
    """What a header says. ``backing`` is the name of the backing file, or empty."""

    size: int
    cluster_bits: int
    table: int
    is_version_3: bool
    is_zstd: bool
    backing: str


class Qcow2File:
    """The disk of a qcow2 image, as :class:`dbt.host.disk.DiskImage`. It cannot be written.

    ``backing`` has what the image leaves out, and is closed with it. Raises DiskError for a file that is no such image,
    or has features that are not supported, and unless ``backing`` is there exactly if the image wants it. Reading
    raises OSError where the image is damaged.
    """

    def __init__(self, path: str, backing: DiskImage | None = None) -> None:
        self.path = path
        self._backing = backing
        self._file = RawFile(path, writable=False)
        try:
            header = _read_header(self._file)
            _check_backing(path, header.backing, backing)
        except BaseException:
            self._file.close()
            raise
        self.size = header.size
        self._is_version_3 = header.is_version_3
        self._is_zstd = header.is_zstd
        self._table = header.table
        self._bits = header.cluster_bits
        self._cluster = 1 << header.cluster_bits
        self._slices: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._clusters: OrderedDict[int, bytes] = OrderedDict()

    # -- the disk ------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes. What is behind the end of the disk is zero."""
        end = min(offset + size, self.size)
        pieces = []
        at = offset
        while at < end:
            within = at & self._cluster - 1
            count = min(self._cluster - within, end - at)
            pieces.append(self._read_within(at >> self._bits, within, count))
            at += count
        return b"".join(pieces).ljust(size, b"\0")

    def _read_within(self, cluster: int, within: int, count: int) -> bytes:
        """Return bytes of one cluster."""
        entry = self._entry(cluster)
        if entry & _COMPRESSED:
            return self._decompressed(cluster, entry)[within : within + count]
        if self._is_version_3 and entry & _ZERO:
            return bytes(count)
        place = entry & _PLACE
        if place:
            self._check_place(place, f"cluster {cluster} is")
            return self._file.read(place + within, count)
        if self._backing is not None:
            return self._backing.read((cluster << self._bits) + within, count)
        return bytes(count)

    def _entry(self, cluster: int) -> int:
        """Return the entry of a cluster in the tables of the second level, or 0 if there is no such table."""
        bits = self._bits - 3
        table = self._word(self._table, cluster >> bits) & _PLACE
        if not table:
            return 0
        self._check_place(table, f"the table of cluster {cluster} is")
        return self._word(table, cluster & (1 << bits) - 1)

    def _word(self, table: int, index: int) -> int:
        """Return an entry of the table at ``table``."""
        first = index // _SLICE * _SLICE
        place = table + 8 * first
        found = self._slices.get(place)
        if found is None:
            found = struct.unpack(f">{_SLICE}Q", self._file.read(place, 8 * _SLICE))
            _keep(self._slices, place, found, _KEPT_SLICES)
        return found[index - first]

    def _check_place(self, place: int, what: str) -> None:
        if place & self._cluster - 1:
            raise DamagedImage(self.path, f"{what} at {place:#x}, which is not the beginning of a cluster")
        if place >= self._file.size:
            raise DamagedImage(self.path, f"{what} at {place:#x}, behind the end of the file")

    def _decompressed(self, cluster: int, entry: int) -> bytes:
        """Return the content of a compressed cluster. ``entry`` has its place, and how many more sectors it is in."""
        found = self._clusters.get(entry)
        if found is not None:
            return found
        shift = 62 - (self._bits - 8)
        place = entry & (1 << shift) - 1
        sectors = (entry >> shift & (1 << self._bits - 8) - 1) + 1
        if place >= self._file.size:
            raise DamagedImage(self.path, f"cluster {cluster} is at {place:#x}, behind the end of the file")
        packed = self._file.read(place, sectors * _SECTOR - place % _SECTOR)
        data = _unzstd(packed, self._cluster) if self._is_zstd else _inflate(packed, self._cluster)
        if len(data) != self._cluster:
            raise DamagedImage(self.path, f"cluster {cluster} cannot be decompressed")
        _keep(self._clusters, entry, data, _KEPT_CLUSTERS)
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Raise OSError: the image cannot be written."""
        raise OSError(errno.EROFS, f"the image {self.path} is only read")

    def flush(self) -> None:
        """Nothing was written."""

    def version(self) -> int:
        """Return a number that changes when the image or what is behind it is written."""
        behind = self._backing.version() if self._backing is not None else 0
        return (self._file.version() + behind) % (1 << 63)

    def __enter__(self) -> Qcow2File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the files and their locks back. A second call does nothing."""
        self._file.close()
        if self._backing is not None:
            self._backing.close()


def _keep(kept: OrderedDict[int, _Value], key: int, value: _Value, most: int) -> None:
    """Keep a value, and at most ``most`` of them: those that were kept last."""
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)


def _inflate(packed: bytes, size: int) -> bytes:
    """Return at most ``size`` bytes of raw deflate data, or fewer if it is damaged."""
    try:
        return zlib.decompressobj(-12).decompress(packed, size)
    except zlib.error:
        return b""


def _unzstd(packed: bytes, size: int) -> bytes:
    """Return at most ``size`` bytes of a frame of zstd, or fewer if it is damaged."""
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).stream_reader(packed) as reader:
            return reader.read(size)
    except zstandard.ZstdError:
        return b""


# -- the header --------------------------------------------------------------------------------


def _read_header(file: RawFile) -> _Header:
    """Return what the header says. Raise DiskError if it is none that can be used."""
    path = file.path
    magic, version, name_at, name_size, bits, size, encryption, entries, table = _HEADER.unpack(
        file.read(0, _HEADER.size)
    )
    if magic != _MAGIC:
        raise DiskError(f"the disk {path} is no qcow2 image. If it is a raw one, leave `format=qcow2` out")
    if version not in (2, 3):
        raise DiskError(f"the disk {path} is a qcow2 image of version {version}: only versions 2 and 3 are known")
    features, is_zstd = 0, False
    if version == 3:
        features, is_zstd = _read_features(file)
    if encryption:
        raise _unsupported(path, "is encrypted")
    if features & _DATA_FILE:
        raise _unsupported(path, "has its data in another file")
    if features & _EXTENDED:
        raise _unsupported(path, "has extended table entries (subclusters)")
    if features & _CORRUPT:
        raise DiskError(f"the disk {path} is marked as damaged. Repair it with `qemu-img check -r all`")
    if not _LEAST_BITS <= bits <= _MOST_BITS:
        raise _wrong(path, f"clusters of 2^{bits} bytes")
    if not 0 < size <= _MOST_SIZE:
        raise _wrong(path, f"a disk of {size} bytes")
    needed = -(-size >> 2 * bits - 3)
    if entries < needed or needed * 8 > _MOST_TABLE:
        raise _wrong(path, f"a table of {entries} entries for a disk of {size} bytes")
    if table & (1 << bits) - 1 or not table or table + 8 * needed > file.size:
        raise _wrong(path, f"a table at {table:#x}, in a file of {file.size:#x} bytes")
    backing = ""
    if name_at:
        if name_size > _LONGEST_NAME or name_at + name_size > file.size:
            raise _wrong(path, f"a name of {name_size} bytes at {name_at:#x}")
        backing = file.read(name_at, name_size).decode(errors="replace") or "?"
    return _Header(size, bits, table, version == 3, is_zstd, backing)


def _read_features(file: RawFile) -> tuple[int, bool]:
    """Return the features of version 3 that a reader has to know, and whether compression is zstd's."""
    features, _, _, _, length = _MORE.unpack(file.read(_MORE_AT, _MORE.size))
    if length < _COMPRESSION_AT or length % 8:
        raise _wrong(file.path, f"a header of {length} bytes")
    if features & ~_KNOWN:
        raise _unsupported(file.path, f"has features that are not known here ({features & ~_KNOWN:#x})")
    method = file.read(_COMPRESSION_AT, 1)[0] if length > _COMPRESSION_AT else 0
    if method > 1 or bool(method) != bool(features & _COMPRESSION):
        raise _wrong(file.path, f"compression of kind {method}")
    return features, method == 1


def _check_backing(path: str, name: str, backing: DiskImage | None) -> None:
    if name and backing is None:
        raise DiskError(
            f"the disk {path} is made on a backing file, which it calls {name!r}. Names in images are not followed: "
            "give it yourself, with `backing=FILE` and, if that is a qcow2 image, `backing-format=qcow2`"
        )
    if backing is not None and not name:
        raise DiskError(f"the disk {path} has no backing file: leave `backing={backing.path}` out")


def _wrong(path: str, what: str) -> DiskError:
    return DiskError(f"the disk {path} is damaged: its header says that it has {what}")


def _unsupported(path: str, what: str) -> DiskError:
    return DiskError(f"the disk {path} {what}, which is not supported. Convert it with `qemu-img convert -O qcow2`")
