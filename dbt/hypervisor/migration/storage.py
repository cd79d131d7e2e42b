"""Disks that are copied to the destination while the guest runs, piece by piece: what is said of them, and the source.

Files are copied as they are, whatever their format, so an overlay or a qcow2 image arrives with its own tables. All
that has data is sent once. What the guest has written meanwhile is sent again, and the last of it when the guest is
stopped. Either side keeps a tree of the digests of a file's pieces, as it does of RAM.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.host.disk import PIECE_SHIFT
from dbt.hypervisor.migration.errors import MigrationError, ProtocolError
from dbt.hypervisor.migration.messages import Kind
from dbt.hypervisor.migration.page_tree import PageTree
from dbt.memory.ram import data_parts
from dbt.snapshot.format import Runs

if TYPE_CHECKING:
    from dbt.hypervisor.migration.channel import Channel
    from dbt.hypervisor.migration.settings import Progress

PIECE: Final = 1 << PIECE_SHIFT
#: The pieces of one message, at most.
BATCH: Final = 16
#: The largest file, and the most files of one machine.
MOST_SIZE: Final = 1 << 44
MOST_FILES: Final = 64
#: The number of the file, its size, the first piece and how many there are, and whether all of them are zero.
_HEAD: Final = struct.Struct("<HQIIB")


class Blocks(NamedTuple):
    """A message with consecutive pieces of a file, which has ``size`` bytes now. Without content they are zero."""

    file: int
    size: int
    first: int
    pieces: int
    content: memoryview[int]

    @property
    def start(self) -> int:
        return self.first << PIECE_SHIFT

    @property
    def end(self) -> int:
        return min(self.first + self.pieces << PIECE_SHIFT, self.size)

    def head(self) -> bytes:
        """Return all of the body but the content."""
        return _HEAD.pack(self.file, self.size, self.first, self.pieces, not self.content)

    @classmethod
    def unpack(cls, body: memoryview[int]) -> Blocks:
        """Return what a body says. Raise ProtocolError."""
        if len(body) < _HEAD.size:
            raise ProtocolError("a message of disk blocks ends before its head does")
        file, size, first, count, is_zero = _HEAD.unpack_from(body)
        found = cls(file, size, first, count, body[_HEAD.size :])
        if not 0 < size <= MOST_SIZE or not 0 < count <= BATCH or found.start >= size:
            raise ProtocolError("a message of disk blocks is of none that the disk has")
        if len(found.content) != (0 if is_zero else found.end - found.start):
            raise ProtocolError(f"a message of {count} disk blocks has {len(found.content):,} bytes of content")
        return found


class FileFacts(NamedTuple):
    """What a source says of a file that a disk is on.

    ``room`` are the bytes that it takes, ``version`` is the nanosecond at which it was written last.
    """

    size: int
    room: int
    version: int

    @classmethod
    def of(cls, handle: int) -> FileFacts:
        """Return what is so of an open file. Raise MigrationError for one that cannot be copied."""
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISBLK(found.st_mode):
            raise MigrationError("a disk is on what is neither a file nor a block device, and cannot be copied")
        size = os.lseek(handle, 0, os.SEEK_END)
        return cls(size, min(found.st_blocks * 512, size) if stat.S_ISREG(found.st_mode) else size, found.st_mtime_ns)


def digest_of(tree: PageTree, size: int) -> bytes:
    """Return the digest of a file of ``size`` bytes with the content that a tree of its pieces has."""
    return tree.root(size.to_bytes(8, "little"))


def empty_tree() -> PageTree:
    """Return a tree for the pieces of a file."""
    return PageTree(PIECE)


class StorageSender:
    """Sends the files of a machine's disks: those that are ``wanted``, of all that ``handles`` are."""

    def __init__(self, channel: Channel, handles: Sequence[int], wanted: Iterable[int], progress: Progress) -> None:
        self._channel, self._handles, self._progress = channel, handles, progress
        self._trees = {number: empty_tree() for number in wanted}
        self._left: dict[int, set[int]] = {number: self._with_data(number) for number in self._trees}

    def _with_data(self, number: int) -> set[int]:
        handle, found = self._handles[number], set[int]()
        for start, end in data_parts(handle, 0, os.lseek(handle, 0, os.SEEK_END)):
            found.update(range(start >> PIECE_SHIFT, (end - 1 >> PIECE_SHIFT) + 1))
        return found

    def note(self, changed: Sequence[Iterable[int]]) -> None:
        """Note which pieces of each file the guest has changed. They are to be sent."""
        for number, pieces in self._left.items():
            pieces.update(changed[number])

    @property
    def left(self) -> int:
        """The bytes that are to be sent: at first all that have data."""
        return sum(map(len, self._left.values())) << PIECE_SHIFT

    def send(self, bandwidth: int | None = None) -> None:
        """Send what is to be sent. The guest may be writing to it again. ``bandwidth`` is in bytes a second."""
        for number, pieces in self._left.items():
            self._left[number] = set()
            self._send_pieces(number, pieces, bandwidth)

    def _send_pieces(self, number: int, pieces: Iterable[int], limit: int | None) -> None:
        handle, tree = self._handles[number], self._trees[number]
        size = os.lseek(handle, 0, os.SEEK_END)
        began, sent = time.monotonic(), 0
        for first, count in _batches(Runs.of(sorted(pieces))):
            blocks = Blocks(number, size, first, count, memoryview(b""))
            if blocks.start >= size:
                raise MigrationError("a disk has become smaller while it was copied")
            content = _read(handle, blocks.start, blocks.end - blocks.start)
            if content.count(0) != len(content):
                blocks = blocks._replace(content=memoryview(content))
            note(tree, blocks)
            self._channel.send_raw(Kind.BLOCKS, (blocks.head(), blocks.content))
            sent += len(content)
            self._progress.storage_bytes += len(blocks.content)
            if limit is not None and (ahead := sent / limit - (time.monotonic() - began)) > 0:
                time.sleep(ahead)

    def states(self) -> list[list[Any]]:
        """Return what the files are, once the guest is stopped and all is sent: for each that is sent its number, size,
        version and digest.
        """
        found = list[list[Any]]()
        for number, tree in self._trees.items():
            facts = FileFacts.of(self._handles[number])
            found.append([number, facts.size, facts.version, digest_of(tree, facts.size)])
        return found

    def settle(self) -> None:
        """Hash what can be hashed beforehand."""
        for tree in self._trees.values():
            tree.settle()


def note(tree: PageTree, blocks: Blocks) -> None:
    """Note in a tree what a message says of a file."""
    if not blocks.content:
        tree.clear(blocks.first, blocks.pieces)
    else:
        tree.update(blocks.first, bytes(blocks.content).ljust(blocks.pieces << PIECE_SHIFT, b"\0"))


def _batches(runs: Runs) -> Iterator[tuple[int, int]]:
    for first, count in runs.runs():
        for at in range(first, first + count, BATCH):
            yield at, min(BATCH, first + count - at)


def _read(handle: int, start: int, size: int) -> bytes:
    data = os.pread(handle, size, start)
    while len(data) < size:
        more = os.pread(handle, size - len(data), start + len(data))
        if not more:
            raise MigrationError("a disk has become smaller while it was copied")
        data += more
    return data
