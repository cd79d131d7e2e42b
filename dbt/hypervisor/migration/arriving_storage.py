"""Disks that are copied to this host: files that are made for them, and are there only once the machine is.

A file that is being copied has a mark beside it, which is locked by whoever takes it. It is removed when the machine is
about to run here. So what is left of a migration that came to nothing, as when this process was killed, is known: the
next migration removes it, and nothing else.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from dbt.host.disk import DiskError, RawFile
from dbt.host.drive import Drive
from dbt.hypervisor.migration.errors import MigrationError, ProtocolError
from dbt.hypervisor.migration.storage import MOST_FILES, MOST_SIZE, Blocks, digest_of, empty_tree, note
from dbt.memory.closing import Closing

#: What a file that is not complete has beside it, behind its name, and how that begins.
MARK: Final = ".incoming"
_MAGIC: Final = b"dbt incoming disk\n"
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ArrivingFile(Closing):
    """A file that is made at ``path``, with ``size`` bytes. Raise MigrationError if it cannot be."""

    def __init__(self, path: str, size: int) -> None:
        self.path, self.size = path, size
        self._tree = empty_tree()
        self._handle = self._mark = -1
        try:
            _remove_left_over(path)
            self._mark = os.open(path + MARK, _NEW, 0o600)
            fcntl.flock(self._mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._handle = os.open(path, _NEW, 0o600)
            os.write(self._mark, _MAGIC + b"%d" % os.fstat(self._handle).st_ino)
            os.ftruncate(self._handle, size)
        except FileExistsError as error:
            self.close()
            raise MigrationError(_is_there(str(error.filename or path))) from None
        except OSError as error:
            self.close()
            raise MigrationError(f"there is no place for the disk {path}: {error.strerror}") from None

    def take(self, blocks: Blocks) -> None:
        """Write what has come. What is hashed is what the file has afterwards. Raise MigrationError if there is no room
        for it.
        """
        start, size = blocks.start, blocks.end - blocks.start
        try:
            if blocks.size != self.size:
                os.ftruncate(self._handle, blocks.size)
                self.size = blocks.size
            if blocks.content or self._has_data(blocks):
                _write(self._handle, start, blocks.content or memoryview(bytes(size)))
            written = os.pread(self._handle, size, start) if blocks.content else b""
        except OSError as error:
            raise MigrationError(f"the disk {self.path} cannot be written: {error.strerror}") from None
        note(self._tree, blocks._replace(content=memoryview(written)))

    def _has_data(self, blocks: Blocks) -> bool:
        return any(self._tree.is_present(piece) for piece in range(blocks.first, blocks.first + blocks.pieces))

    def flush(self) -> None:
        """Return when all that has come will survive a failure of the host. Raise MigrationError."""
        try:
            os.fdatasync(self._handle)
        except OSError as error:
            raise MigrationError(f"the disk {self.path} cannot be written: {error.strerror}") from None
        self._tree.settle()

    def verify(self, size: int, version: int, digest: bytes) -> None:
        """Be as the file is at the source. Raise MigrationError unless it has the same content."""
        if size != self.size:
            os.ftruncate(self._handle, size)
            self.size = size
        if digest_of(self._tree, size) != digest:
            raise MigrationError(f"the disk {self.path} would not be the one at the source: its digest is another one")
        self.flush()
        os.utime(self._handle, ns=(version, version))

    def keep(self) -> None:
        """Let the file be an ordinary one, for a machine that has it. A second call does nothing."""
        if self._mark >= 0:
            os.unlink(self.path + MARK)
            _sync_directory(self.path)
        self._close_handles()

    def _close_handles(self) -> None:
        for handle in (self._handle, self._mark):
            if handle >= 0:
                os.close(handle)
        self._handle = self._mark = -1

    def close(self) -> None:
        """Remove the file, unless it is kept. A second call does nothing."""
        with suppress(FileNotFoundError):
            if self._handle >= 0:
                os.unlink(self.path)
            if self._mark >= 0:
                os.unlink(self.path + MARK)
        self._close_handles()


class ArrivingStorage(Closing):
    """The files of a machine's ``drives`` that a source copies. ``offered`` is what it says of all of them, by disk.

    Raise ProtocolError for what makes no sense, and MigrationError with the reason if they cannot be taken.
    """

    def __init__(self, drives: Sequence[Drive], offered: list[Any]) -> None:
        self._files: dict[int, ArrivingFile] = {}
        wanted = [
            (number, path, writable, facts)
            for number, (path, writable, facts) in enumerate(_paired(drives, offered))
            if writable or not _is_same(path, facts)
        ]
        _check_room(wanted)
        try:
            for number, path, _, (size, _, _) in wanted:
                self._files[number] = ArrivingFile(path, size)
        except BaseException:
            self.close()
            raise

    @property
    def wanted(self) -> list[int]:
        """The numbers of the files that are to be copied, of all files of all disks."""
        return list(self._files)

    def take(self, body: memoryview[int]) -> None:
        """Take a message of blocks."""
        blocks = Blocks.unpack(body)
        file = self._files.get(blocks.file)
        if file is None:
            raise ProtocolError("the source sends a disk that nobody wants")
        file.take(blocks)

    def flush(self) -> None:
        """See :meth:`ArrivingFile.flush`."""
        for file in self._files.values():
            file.flush()

    def verify(self, states: list[Any]) -> None:
        """Be as the files are at the source, which says of each number, size, version and digest."""
        left = dict(self._files)
        for one in states:
            match one:
                case [int(number), int(size), int(version), bytes(digest)] if number in left:
                    if not 0 < size <= MOST_SIZE or not 0 <= version < 1 << 63:
                        raise ProtocolError("the source says of a disk what no file can be")
                    left.pop(number).verify(size, version, digest)
                case _:
                    raise ProtocolError("what the source says of disks makes no sense")
        if left:
            raise ProtocolError("the source says nothing of a disk that it has sent")

    def keep(self) -> None:
        """Let the files be ordinary ones, for a machine that may run here."""
        for file in self._files.values():
            file.keep()

    def close(self) -> None:
        """Remove the files, unless they are kept. A second call does nothing."""
        for file in self._files.values():
            file.close()


def _paired(drives: Sequence[Drive], offered: list[Any]) -> list[tuple[str, bool, tuple[int, int, int]]]:
    """Return path here, use and facts of each file. Raise ProtocolError unless the drives are of as many files."""
    files = [drive.files for drive in drives]
    if [len(one) if type(one) is list else -1 for one in offered] != [len(one) for one in files]:
        raise MigrationError("the disks of the machine are of other files at the source than here")
    found = [(path, writable) for one in files for path, writable in one]
    said = [facts for one in offered for facts in one]
    if len(found) > MOST_FILES:
        raise MigrationError(f"the machine has more than {MOST_FILES} files as disks, which cannot be copied")
    for facts in said:
        match facts:
            case [int(size), int(room), int(version)] if 0 < size <= MOST_SIZE and 0 <= room <= size and version >= 0:
                continue
            case _:
                raise ProtocolError("what the source says of its disks makes no sense")
    return [(path, writable, tuple(facts)) for (path, writable), facts in zip(found, said, strict=True)]


def _is_same(path: str, facts: tuple[int, int, int]) -> bool:
    """Return True if a file that is only read is here already. Raise MigrationError if it is another one."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    if os.path.exists(path + MARK):
        return False  # which is what is left of an earlier migration
    if (found.st_size, found.st_mtime_ns) != (facts[0], facts[2]):
        raise MigrationError(f"the image {path} is another one at the source, or has been written since")
    return True


def _check_room(wanted: Sequence[tuple[int, str, bool, tuple[int, int, int]]]) -> None:
    """Raise MigrationError if the host has not the room for these files, or not the directories."""
    needed: dict[int, tuple[int, int, str]] = {}
    for _, path, _, (_, room, _) in wanted:
        directory = os.path.dirname(path) or "."
        try:
            device, found = os.stat(directory).st_dev, os.statvfs(directory)
        except OSError as error:
            raise MigrationError(f"there is no place for the disk {path}: {error.strerror}") from None
        needed[device] = (needed.get(device, (0, 0, ""))[0] + room, found.f_bavail * found.f_frsize, directory)
    for room, free, directory in needed.values():
        if room > free:
            raise MigrationError(f"the disks have {room:,} bytes, and {directory} has room for {free:,}")


def _is_there(path: str) -> str:
    return (
        f"the disk {path.removesuffix(MARK)} exists already here, and is not overwritten: remove it, or let the "
        "destination have the disk elsewhere"
    )


def _remove_left_over(path: str) -> None:
    """Remove what a migration has left at a path, of which nothing has come. Raise MigrationError if one is under way,
    and FileExistsError if the file is another one.
    """
    try:
        mark = os.open(path + MARK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MigrationError(f"the disk {path} is being copied here already") from None
        if not _is_left_over(path, os.pread(mark, len(_MAGIC) + 32, 0)):
            raise FileExistsError(0, "", path)
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.unlink(path + MARK)
    finally:
        os.close(mark)


def _is_left_over(path: str, mark: bytes) -> bool:
    """Return True if a file is the one of which a mark says that it is not complete, and nobody has it."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return not mark or mark.startswith(_MAGIC)
    if not mark:  # before it was written, the file was made
        return found.st_size == 0
    if mark != _MAGIC + b"%d" % found.st_ino:
        return False
    try:
        if found.st_size:
            RawFile(path, writable=True).close()
    except DiskError:
        return False
    return True


def _write(handle: int, start: int, data: memoryview[int]) -> None:
    while data:
        done = os.pwrite(handle, data, start)
        start, data = start + done, data[done:]


def _sync_directory(path: str) -> None:
    handle = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
