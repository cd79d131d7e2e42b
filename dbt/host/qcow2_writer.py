"""Writing to qcow2 images of the usual form, in an order in which a failure of the host leaves them in order.

A cluster of the disk that has none in the file gets a new one, behind the end of the file. What was written is in the
file at once, but the tables that say so are written by a flush: first the data, the counts of what is used, and new
tables, to which nothing refers; then, when these are on the host's disk, the entries that refer to them; last, counts
of what is not used any more. So a failure loses at most what was not flushed, and some room.
"""

from __future__ import annotations

import atexit
import errno
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final
from weakref import WeakSet

from dbt.host.disk import DiskError, DiskImage
from dbt.host.qcow2 import COMPRESSED, PLACE, ZERO, Qcow2File

_COPIED: Final = 1 << 63
#: The least bits of a cluster, with which the table of counts never has to grow: it is for a file of 16 TiB.
_LEAST_BITS: Final = 16
_COUNT_BITS: Final = 16
#: So many entries wait at most for the guest to flush.
_MOST_PENDING: Final = 1 << 16
#: The images that may have to be flushed at the end of the process.
_OPEN: Final[WeakSet[WritableQcow2File]] = WeakSet()


class WritableQcow2File(Qcow2File):
    """A qcow2 image that the guest writes to. :meth:`close` flushes it.

    Raises DiskError for images of other forms: with smaller clusters than 64 KiB, with snapshots, counts of other
    sizes, bitmaps, or left in disorder.
    """

    def __init__(self, path: str, backing: DiskImage | None = None) -> None:
        super().__init__(path, backing, writable=True)
        try:
            self._check_form()
        except BaseException:
            self.close_unflushed()
            raise
        self._next = -(-self._file.size >> self._bits)
        self._per_block = self._cluster * 8 // _COUNT_BITS
        #: Entries of clusters of the disk, the clusters of the file that are used since the last flush, or no more.
        self._pending: dict[int, int] = {}
        self._used: list[int] = []
        self._unused: list[int] = []
        #: The places of new tables and of new blocks of counts, by their index.
        self._tables: dict[int, int] = {}
        self._blocks: dict[int, int] = {}
        _OPEN.add(self)

    def _check_form(self) -> None:
        header, counts = self.header, self.header.counts
        wrong = (
            (header.cluster_bits < _LEAST_BITS, f"has clusters of {1 << header.cluster_bits} bytes, less than 64 KiB"),
            (counts.snapshots, "has snapshots in it"),
            (counts.bits != _COUNT_BITS, f"has reference counts of {counts.bits} bits, and not 16"),
            (counts.has_extras, "has bitmaps or the like"),
            (counts.is_dirty, "was not closed, so its reference counts may be wrong"),
        )
        for is_wrong, what in wrong:
            if is_wrong:
                raise DiskError(
                    f"the disk {self.path} {what}, so it cannot be written. Add `overlay=FILE` or `snapshot`, or make "
                    "another one with `qemu-img convert -O qcow2`"
                )
        end = counts.table + (counts.clusters << self._bits)
        if not counts.table or counts.table & self._cluster - 1 or not counts.clusters or end > self._file.size:
            raise DiskError(f"the disk {self.path} is damaged: it has no table of reference counts")

    # -- the disk ------------------------------------------------------------------------------

    def _entry(self, cluster: int) -> int:
        found = self._pending.get(cluster)
        return super()._entry(cluster) if found is None else found

    def write(self, offset: int, data: bytes) -> None:
        """Write to the disk. Raise OSError if the host cannot, or where the image is damaged."""
        view, at = memoryview(data), 0
        while at < len(data):
            cluster, within = divmod(offset + at, self._cluster)
            count = min(self._cluster - within, len(data) - at)
            self._write_within(cluster, within, view[at : at + count])
            at += count
        if len(self._pending) > _MOST_PENDING:
            self.flush()

    def _write_within(self, cluster: int, within: int, data: memoryview) -> None:
        """Write to one cluster of the disk."""
        entry = self._entry(cluster)
        place = 0 if entry & COMPRESSED else entry & PLACE
        is_zero = self._is_version_3 and not entry & COMPRESSED and entry & ZERO
        is_own = bool(place and entry & _COPIED)
        if place:
            self._check_place(place, f"cluster {cluster} is")
        if is_own and not is_zero:
            self._file.write(place + within, data)
            return
        content = bytearray(self._read_within(cluster, 0, self._cluster))
        content[within : within + len(data)] = data
        if not is_own:
            if entry & COMPRESSED or place:
                self._unused += self._clusters_of(entry)
            place = self._allocate() << self._bits
        self._file.write(place, content)
        self._pending[cluster] = place | _COPIED

    def _clusters_of(self, entry: int) -> range:
        """Return the clusters of the file that an entry refers to."""
        start, size = self._compressed(entry) if entry & COMPRESSED else (entry & PLACE, self._cluster)
        return range(start >> self._bits, (start + size - 1 >> self._bits) + 1)

    def _allocate(self) -> int:
        """Return a new cluster of the file, which is zero."""
        table, _ = divmod(self._next, self._per_block)
        if table >= self.header.counts.clusters << self._bits - 3:
            raise OSError(errno.ENOSPC, f"the image {self.path} cannot grow any more")
        self._file.grow(self._next + 1 << self._bits)
        self._used.append(self._next)
        self._next += 1
        return self._used[-1]

    # -- the tables ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Return when all that was written will survive a failure of the host."""
        if self._used or self._pending:
            self._write_tables()
        self._file.flush()

    def _write_tables(self) -> None:
        self._make_tables()
        self._make_blocks()
        for index, place in self._tables.items():
            self._file.write(place, self._new_table(index))
        for index, place in self._blocks.items():
            self._file.write(place, self._new_block(index))
        self._write_counts()
        self._file.flush()
        if self._blocks:
            counts = self.header.counts.table
            self._write_words((counts + 8 * index, place) for index, place in self._blocks.items())
            self._file.flush()
        self._write_words(self._entries())
        self._file.flush()
        self._slices.clear()
        self._pending.clear()
        self._tables.clear()
        self._blocks.clear()
        self._used.clear()
        unused, self._unused = self._unused, []
        for cluster in unused:
            self._drop(cluster)

    def _make_tables(self) -> None:
        """Have tables for all entries that wait."""
        for index in sorted({cluster >> self._bits - 3 for cluster in self._pending}):
            place = self._word(self._table, index) & PLACE
            if place:
                self._check_place(place, f"table {index} is")
            elif index not in self._tables:
                self._tables[index] = self._allocate() << self._bits

    def _make_blocks(self) -> None:
        """Have blocks for the counts of all clusters that are used, those of the blocks among them."""
        for cluster in self._used:  # which becomes longer meanwhile
            index = cluster // self._per_block
            if index not in self._blocks and not self._block(index):
                self._blocks[index] = self._allocate() << self._bits

    def _block(self, index: int) -> int:
        """Return the place of a block of counts in the file, or 0."""
        place = self._word(self.header.counts.table, index) & PLACE
        if place:
            self._check_place(place, f"block {index} of reference counts is")
        return place

    def _new_table(self, index: int) -> bytes:
        first = index << self._bits - 3
        return struct.pack(
            f">{self._cluster // 8}Q",
            *(self._pending.get(cluster, 0) for cluster in range(first, first + self._cluster // 8)),
        )

    def _new_block(self, index: int) -> bytes:
        block, first = bytearray(self._cluster), index * self._per_block
        for cluster in self._used:
            if first <= cluster < first + self._per_block:
                block[2 * (cluster - first) + 1] = 1
        return bytes(block)

    def _write_counts(self) -> None:
        """Count the clusters that are used, whose counts are in blocks of the file."""
        for index, clusters in groupby(self._used, lambda cluster: cluster // self._per_block):
            if index not in self._blocks:
                numbers = list(clusters)  # in a row, because all are at the end of the file
                place = self._block(index) + 2 * (numbers[0] % self._per_block)
                self._file.write(place, b"\0\1" * len(numbers))

    def _entries(self) -> Iterator[tuple[int, int]]:
        """Yield the places of the entries that wait, and what they are to be."""
        for index, place in self._tables.items():
            yield self._table + 8 * index, place | _COPIED
        for cluster, entry in sorted(self._pending.items()):
            index, within = divmod(cluster, self._cluster // 8)
            if index not in self._tables:
                yield (self._word(self._table, index) & PLACE) + 8 * within, entry

    def _write_words(self, words: Iterable[tuple[int, int]]) -> None:
        """Write words, those in a row at once."""
        start, run = 0, bytearray()
        for place, word in words:
            if place != start + len(run):
                self._file.write(start, run)
                start, run = place, bytearray()
            run += word.to_bytes(8, "big")
        self._file.write(start, run)

    def _drop(self, cluster: int) -> None:
        """Count down the uses of a cluster of the file. A damaged image may have counted none."""
        block = self._block(cluster // self._per_block)
        place = block + 2 * (cluster % self._per_block)
        count = int.from_bytes(self._file.read(place, 2), "big")
        if block and count:
            self._file.write(place, (count - 1).to_bytes(2, "big"))

    def version(self) -> int:
        self.flush()
        return super().version()

    def close(self) -> None:
        """Flush, and give the files and their locks back. A second call does nothing."""
        try:
            if not self.is_closed:
                self.flush()
        finally:
            self.close_unflushed()

    def close_unflushed(self) -> None:
        """Give the files and their locks back, and forget what was not flushed."""
        super().close()

    def __del__(self) -> None:
        if self in _OPEN:
            self.close()


def close_open_images() -> list[str]:
    """Close the images that are open, because the process ends. Return what the host has refused to write."""
    refused = []
    for image in list(_OPEN):
        try:
            image.close()
        except OSError as error:
            refused.append(f"cannot write what the guest has not flushed to {image.path}: {error.strerror}")
    return refused


atexit.register(close_open_images)
