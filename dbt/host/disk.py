"""Files of the host's as disks: opened without following what the guest says, and locked against other writers.

The locks are those that QEMU takes on images (block/file-posix.c): read locks of single bytes. A byte from 100 on says
that its owner uses a permission, a byte from 200 on that its owner does not share it. So a disk that is written by
QEMU, or by another machine, is refused, and the other way round.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import Final, Protocol

from dbt.devices.medium import DiskFile
from dbt.memory.closing import Closing
from dbt.memory.ram import data_parts

_USES, _DOES_NOT_SHARE, _END = 100, 200, 300
_READ, _WRITE, _RESIZE = 0, 1, 3
_FLOCK: Final = struct.Struct("hhqqi4x")
#: The bytes of a piece of a file of which it is noted whether it has changed, as a power of 2.
PIECE_SHIFT: Final = 16


#: The errors of a file system that has no such locks.
_NO_LOCKS: Final = (errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP)


class DiskError(ValueError):
    """Raised for a disk that cannot be used. The text names it and says why."""


class DiskImage(DiskFile, Protocol):
    """The content of a disk in a file of the host's, which is called ``path``."""

    path: str

    def version(self) -> int:
        """Return a number below 2^63 that changes when a file is written."""

    def lock(self) -> None:
        """Take the locks of the files again. Raise DiskError, after which none is held."""

    def unlock(self) -> None:
        """Give the locks back and keep the files open, because another machine is to use them."""

    def files(self) -> list[RawFile]:
        """Return the files that it is on: its own, and those that are behind it."""

    def close(self) -> None:
        """Give the files and their locks back. A second call does nothing."""


class RawFile(Closing):
    """A raw image; see :class:`dbt.devices.medium.DiskFile`. Without ``writable`` it cannot change."""

    def __init__(self, path: str, writable: bool, locked: bool = True) -> None:
        """Open it and, if it is to be ``locked`` from now on, lock it. Raise DiskError."""
        self.path, self._writable = path, writable
        #: The numbers of the pieces (:data:`PIECE_SHIFT`) that were written since somebody wanted to know, or None.
        self.changed: set[int] | None = None
        try:
            self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise DiskError(f"cannot open the disk {path}: {error.strerror}") from None
        try:
            self.size = self._checked_size()
            if locked:
                self.lock()
        except BaseException:
            self.close()
            raise

    def _checked_size(self) -> int:
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISBLK(found.st_mode):
            raise DiskError(f"the disk {self.path} is neither a regular file nor a block device")
        try:
            size = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise DiskError(f"cannot find the size of the disk {self.path}: {error.strerror}") from None
        if not size:
            raise DiskError(f"the disk {self.path} is empty: make it as large as the disk, with `truncate -s SIZE`")
        return size

    def lock(self) -> None:
        """See :class:`DiskImage`: say what this machine does, and look if somebody else does what goes not with it."""
        mine = (_READ, _WRITE) if self._writable else (_READ,)
        try:
            for byte in (*(_USES + one for one in mine), _DOES_NOT_SHARE + _WRITE, _DOES_NOT_SHARE + _RESIZE):
                self._flock(fcntl.F_OFD_SETLK, fcntl.F_RDLCK, byte)
            others = (*(_DOES_NOT_SHARE + one for one in mine), _USES + _WRITE, _USES + _RESIZE)
            taken = any(self._flock(fcntl.F_OFD_GETLK, fcntl.F_WRLCK, byte) != fcntl.F_UNLCK for byte in others)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise DiskError(f"the disk {self.path} cannot be locked: its file system has no locks") from None
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            taken = True
        if taken:
            self.unlock()
            does = "use" if self._writable else "read"
            raise DiskError(
                f"cannot {does} the disk {self.path}: another machine uses it, or another disk of this one, and "
                "one of the two would write to it. Stop the other machine, or give both the disk with `snapshot`"
            )

    def unlock(self) -> None:
        """See :class:`DiskImage`."""
        for byte in (*(_USES + one for one in (_READ, _WRITE)), _DOES_NOT_SHARE + _WRITE, _DOES_NOT_SHARE + _RESIZE):
            self._flock(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, byte)

    def _flock(self, command: int, kind: int, byte: int) -> int:
        return _flock(self._fd, command, kind, byte, 1)

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        while len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                return data.ljust(size, b"\0")
            data += more
        return data

    def data(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of ``[start, stop)`` where the file has data, as bounds. All others are zero."""
        return data_parts(self._fd, start, stop)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        if self.changed is not None:
            self.changed.update(range(offset >> PIECE_SHIFT, (offset + len(view) - 1 >> PIECE_SHIFT) + 1))
        while view:
            done = os.pwrite(self._fd, view, offset)
            offset, view = offset + done, view[done:]

    def grow(self, size: int) -> None:
        """Make the file so large, with zeros."""
        os.ftruncate(self._fd, size)
        self.size = size

    def files(self) -> list[RawFile]:
        return [self]

    @property
    def handle(self) -> int:
        """The descriptor of the file."""
        return self._fd

    def flush(self) -> None:
        os.fdatasync(self._fd)

    def version(self) -> int:
        """See :class:`DiskImage`: the nanosecond at which the file was written last."""
        return os.fstat(self._fd).st_mtime_ns

    @property
    def is_closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Give the file and its locks back. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def is_in_use(path: str) -> bool:
    """Return True if a machine, of this process or another, holds the locks of a disk. A file that cannot be read has
    none. Raise OSError if there is no file, or it cannot be opened for another reason.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return False
    try:
        return _flock(handle, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, _USES, _END - _USES) != fcntl.F_UNLCK
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False  # where nothing is a disk
    finally:
        os.close(handle)


def _flock(handle: int, command: int, kind: int, first: int, count: int) -> int:
    """Set a lock of bytes, or return the kind of the lock that is in the way of one."""
    answer = fcntl.fcntl(handle, command, _FLOCK.pack(kind, os.SEEK_SET, first, count, 0))
    found: int = _FLOCK.unpack(answer)[0]
    return found
