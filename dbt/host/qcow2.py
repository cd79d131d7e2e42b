"""Images in the format qcow2, versions 2 and 3 (docs/interop/qcow2.txt of QEMU). They are read here.

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
from typing import Final, TypeVar

from dbt.host.disk import DiskError, DiskImage, RawFile
from dbt.host.drive import FORMATS, QCOW2, RAW
from dbt.host.qcow2_header import Header, read_header
from dbt.memory.closing import Closing

PLACE: Final = (1 << 56) - (1 << 9)
COMPRESSED, ZERO = 1 << 62, 1
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


class Qcow2File(Closing):
    """The disk of a qcow2 image, as :class:`dbt.host.disk.DiskImage`. It cannot be written
    (but see :mod:`dbt.host.qcow2_writer`).

    ``backing`` has what the image leaves out, and is closed with it. Raises DiskError for a file that is no such image,
    or has features that are not supported, and unless ``backing`` is there exactly if the image wants it. Reading
    raises OSError where the image is damaged.
    """

    def __init__(self, path: str, backing: DiskImage | None = None, writable: bool = False) -> None:
        """``writable`` opens the file for a class that can write it."""
        self.path = path
        self._backing = backing
        self._file = RawFile(path, writable)
        try:
            self.header = read_header(self._file)
            _check_backing(path, self.header, backing)
        except BaseException:
            self._file.close()
            raise
        self.size = self.header.size
        self._is_version_3 = self.header.is_version_3
        self._table = self.header.table
        self._bits = self.header.cluster_bits
        self._cluster = 1 << self._bits
        self._slices: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._kept: OrderedDict[int, bytes] = OrderedDict()

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
        if entry & COMPRESSED:
            return self._decompressed(cluster, entry)[within : within + count]
        if self._is_version_3 and entry & ZERO:
            return bytes(count)
        place = entry & PLACE
        if place:
            self._check_place(place, f"cluster {cluster} is")
            return self._file.read(place + within, count)
        if self._backing is not None:
            return self._backing.read((cluster << self._bits) + within, count)
        return bytes(count)

    def _entry(self, cluster: int) -> int:
        """Return the entry of a cluster in the tables of the second level, or 0 if there is no such table."""
        bits = self._bits - 3
        table = self._word(self._table, cluster >> bits) & PLACE
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
        found = self._kept.get(entry)
        if found is not None:
            return found
        place, size = self._compressed(entry)
        if place >= self._file.size:
            raise DamagedImage(self.path, f"cluster {cluster} is at {place:#x}, behind the end of the file")
        packed = self._file.read(place, size)
        data = _unzstd(packed, self._cluster) if self.header.is_zstd else _inflate(packed, self._cluster)
        if len(data) != self._cluster:
            raise DamagedImage(self.path, f"cluster {cluster} cannot be decompressed")
        _keep(self._kept, entry, data, _KEPT_CLUSTERS)
        return data

    def _compressed(self, entry: int) -> tuple[int, int]:
        """Return where the data of a compressed cluster is, and the bytes that it has at most."""
        shift = 62 - (self._bits - 8)
        place = entry & (1 << shift) - 1
        sectors = (entry >> shift & (1 << self._bits - 8) - 1) + 1
        return place, sectors * _SECTOR - place % _SECTOR

    def write(self, offset: int, data: bytes) -> None:
        """Raise OSError: the image cannot be written."""
        raise OSError(errno.EROFS, f"the image {self.path} is only read")

    def flush(self) -> None:
        """Nothing was written."""

    def version(self) -> int:
        """Return a number that changes when the image or what is behind it is written."""
        behind = self._backing.version() if self._backing is not None else 0
        return (self._file.version() + behind) % (1 << 63)

    def lock(self) -> None:
        """See :class:`dbt.host.disk.DiskImage`."""
        self._file.lock()
        if self._backing is not None:
            try:
                self._backing.lock()
            except DiskError:
                self._file.unlock()
                raise

    def unlock(self) -> None:
        """See :class:`dbt.host.disk.DiskImage`."""
        self._file.unlock()
        if self._backing is not None:
            self._backing.unlock()

    def files(self) -> list[RawFile]:
        """See :class:`dbt.host.disk.DiskImage`."""
        return [self._file, *(() if self._backing is None else self._backing.files())]

    @property
    def is_closed(self) -> bool:
        return self._file.is_closed

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


def _check_backing(path: str, header: Header, backing: DiskImage | None) -> None:
    name = header.backing
    if name and backing is None:
        raise DiskError(
            f"the disk {path} is made on a backing file, which it calls {name!r}. Names in images are not followed: "
            "give it yourself, with `backing=FILE` and, if that is a qcow2 image, `backing-format=qcow2`"
        )
    if backing is None:
        return
    if not name:
        raise DiskError(f"the disk {path} has no backing file: leave `backing={backing.path}` out")
    given = QCOW2 if isinstance(backing, Qcow2File) else RAW
    if header.backing_format in FORMATS and header.backing_format != given:
        raise DiskError(
            f"the disk {path} says that its backing file has the format {header.backing_format}, and {backing.path} "
            f"was given as {given}: write `backing-format={header.backing_format}`"
        )
