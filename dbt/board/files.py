"""Reading a file that a user names. Its kind and size are checked first, and no more is read than can be used."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable


def read_bounded(path: str, largest: Callable[[bytes], int], head_size: int = 64) -> bytes:
    """Return the content of a regular file. Raise OSError, or ValueError for a name with a NUL.

    ``largest`` gives the number of bytes that the file may have, from the first ``head_size`` of them. Opening a FIFO
    or a device does not wait.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(handle, "rb", buffering=0) as file:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        limit = largest(os.pread(handle, head_size, 0))
        if status.st_size > limit:
            raise FileTooLarge(path, status.st_size, limit)
        # A file may grow while it is read, and one in /proc says that it has no bytes.
        pieces = [file.read(min(max(status.st_size, 1 << 16), limit) + 1)]
        while pieces[-1]:
            total = sum(map(len, pieces))
            if total > limit:
                raise FileTooLarge(path, total, limit)
            pieces.append(file.read(limit + 1 - total))
        return b"".join(pieces[:-1])


class FileTooLarge(OSError):
    """Raised for a file with more bytes than can be used: it has ``size``, and ``limit`` are allowed."""

    def __init__(self, path: str, size: int, limit: int) -> None:
        super().__init__(errno.EFBIG, f"it has {size:,} bytes, and {limit:,} can be used", path)
        self.size = size
        self.limit = limit
