"""Replacing a file in one step: whoever opens it gets the old content or all of the new, also after a crash.

The new content is written to ``.NAME.part`` beside the file, which is then renamed. Only one process at a time can do
that, because it holds a lock on the part. So a part that a killed process has left behind has no lock: the next one
that writes the same file takes it over. There is never more than one for each file.

With ``durable``, the content is on the disk before the name leads to it, so that a failure of the power leaves the old
content or the new one as well. The directory is not synchronised: after such a failure it may be the old one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MODE = 0o600


class Occupied(OSError):
    """Raised if a file cannot be replaced because of what is in its place, or beside it. The text says what."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EEXIST, why)


@contextmanager
def replacing(path: str, durable: bool = True) -> Iterator[int]:
    """Yield the descriptor of an empty file, which replaces ``path`` at the end of the block.

    A symbolic link is followed, and the file that it leads to is replaced. A new file can be read by its owner alone.
    If the block raises, there is no new file, and an existing one stays. Raise OSError, or ValueError for a name with a
    NUL.
    """
    target = os.path.realpath(path)
    _check_target(target)
    folder, name = os.path.split(target)
    part = os.path.join(folder, f".{name}.part")
    handle = _lock_part(part)
    try:
        try:
            os.ftruncate(handle, 0)
            yield handle
            if durable:
                os.fsync(handle)
            os.rename(part, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
    finally:
        os.close(handle)


def check_place(path: str) -> None:
    """Raise OSError, or ValueError, if it is certain that :func:`replacing` could not replace ``path``."""
    target = os.path.realpath(path)
    _check_target(target)
    folder = os.path.dirname(target)
    if not os.access(folder, os.W_OK | os.X_OK):
        os.stat(folder)  # which says why, if it is not there
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_target(target: str) -> None:
    with suppress(FileNotFoundError):
        mode = os.lstat(target).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise Occupied("it is not a regular file")
        from dbt.host.disk import is_in_use  # which only files that are replaced need

        if is_in_use(target):
            raise Occupied("a machine has it as a disk")


def _lock_part(part: str) -> int:
    """Return a descriptor of the file ``part``, which this process alone writes to and renames."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            handle = os.open(part, flags, _MODE)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise Occupied(f"{part} is in the way, and is not a regular file") from None
            raise
        try:
            if _is_ours(handle, part):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_ours(handle: int, part: str) -> bool:
    """Lock the file. Return False if another process has just renamed or removed it."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
        raise Occupied(f"{part} is in the way, and is another user's or has another name, too")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Occupied("another process is writing it at this moment") from None
    with suppress(FileNotFoundError):
        now = os.lstat(part)
        return (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino)
    return False
