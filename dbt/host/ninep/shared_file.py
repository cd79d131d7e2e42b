"""A single file of the host as a shared directory, in which it is the only file: its name there is :data:`NAME`.

The file is opened once, so that the guest has the same one whatever happens to its name on the host. Nothing else can
be found or made there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dbt.host.ninep.fids import Path
from dbt.host.ninep.messages import failure
from dbt.host.ninep.tree import SharedTree, by_number

#: The name of the file.
NAME: Final = b"file"
_PATH: Final = (NAME,)
_OPEN: Final = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
#: The place of the mode in what stat(2) says.
_DIRECTORY_MODE: Final = stat.S_IFDIR | 0o555


class SharedFile(SharedTree):
    """The regular file ``path``. Raise OSError if it is none."""

    def __init__(self, path: str) -> None:
        self._root = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(self._root)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        self.device = found.st_dev
        folder = os.stat(os.path.dirname(os.path.abspath(path)))
        self._folder = os.stat_result((_DIRECTORY_MODE, *folder[1:]), _fields(folder))

    @contextmanager
    def directory(self, path: Path) -> Iterator[int]:
        """Raise OSError: names are looked up in no directory of the host."""
        raise failure(errno.EACCES)
        yield -1

    @contextmanager
    def node(self, path: Path) -> Iterator[int]:
        """Yield a descriptor of the file."""
        _check(path)
        yield self._root

    def stat(self, path: Path) -> os.stat_result:
        """Return what is known of the file, or of the directory that it seems to be in."""
        if not path:
            return self._folder
        _check(path)
        return os.fstat(self._root)

    def open(self, path: Path, flags: int) -> int:
        """Return a descriptor of the file. ``flags`` are those of open(2)."""
        _check(path)
        return os.open(by_number(self._root), flags | _OPEN)

    def create(self, path: Path, flags: int, mode: int) -> int:
        """Return a descriptor of the file, unless O_EXCL is set. No other one can be made."""
        if path != _PATH:
            raise failure(errno.EACCES)
        if flags & os.O_EXCL:
            raise failure(errno.EEXIST)
        return self.open(path, flags & ~os.O_CREAT)


def _check(path: Path) -> None:
    if path != _PATH:
        raise failure(errno.ENOENT if path else errno.EACCES)


def _fields(found: os.stat_result) -> dict[str, object]:
    """Return what is known of a file besides the numbers that every system has."""
    names = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blksize", "st_blocks", "st_rdev")
    return {name: getattr(found, name) for name in names}
