"""The files of a shared directory, by paths from its root on.

A path is resolved one component at a time, from a descriptor of the root, and symbolic links are never followed.
Therefore no path leads outside, even if the tree changes meanwhile. What is opened is what was looked at: a descriptor
that is for the path only (O_PATH) is examined, and opened again by its number.

Device nodes, FIFOs and sockets are shown, and never opened. Every failure is an OSError with its errno.
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

#: Where the descriptors of a process have names.
DESCRIPTORS: Final = "/proc/self/fd"
_NODE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = _NODE | os.O_DIRECTORY
_OPEN: Final = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_PRIVILEGED: Final = stat.S_ISUID | stat.S_ISGID


def by_number(handle: int) -> str:
    """Return the name of what a descriptor leads to, whatever that is: no link is followed from there."""
    return f"{DESCRIPTORS}/{handle}"


class SharedTree:
    """The files beneath the directory ``root``. Raise OSError if it is none."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self._root).st_dev

    def close(self) -> None:
        """Close the directory. Nothing can be found afterwards."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __del__(self) -> None:
        if hasattr(self, "_root"):
            self.close()

    @contextmanager
    def directory(self, path: Path) -> Iterator[int]:
        """Yield a descriptor of a directory, in which names can be looked up."""
        handle = self._root
        try:
            for name in path:
                inner = os.open(name, _DIRECTORY, dir_fd=handle)
                if handle != self._root:
                    os.close(handle)
                handle = inner
            yield handle
        finally:
            if handle != self._root:
                os.close(handle)

    @contextmanager
    def node(self, path: Path) -> Iterator[int]:
        """Yield a descriptor of whatever is there, which can be examined and not read."""
        with self.directory(path[:-1]) as parent:
            if not path:
                yield parent
                return
            handle = os.open(path[-1], _NODE, dir_fd=parent)
            try:
                yield handle
            finally:
                os.close(handle)

    def stat(self, path: Path) -> os.stat_result:
        """Return what is known of a file, or of a symbolic link itself."""
        with self.directory(path[:-1]) as parent:
            return os.stat(path[-1], dir_fd=parent, follow_symlinks=False) if path else os.fstat(parent)

    def open(self, path: Path, flags: int) -> int:
        """Return a descriptor of a file or directory that is there. ``flags`` are those of open(2)."""
        with self.node(path) as handle:
            mode = os.fstat(handle).st_mode
            if stat.S_ISLNK(mode):
                raise failure(errno.ELOOP)
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise failure(errno.EACCES)
            return os.open(by_number(handle), flags | _OPEN)

    def create(self, path: Path, flags: int, mode: int) -> int:
        """Return a descriptor of a new file with these permissions, or of one that is there unless O_EXCL is set."""
        check_mode(mode, is_directory=False)
        with self.directory(path[:-1]) as parent:
            try:
                new = flags & ~os.O_TRUNC | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | _OPEN
                handle = os.open(path[-1], new, 0o600, dir_fd=parent)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
                return self.open(path, flags & ~os.O_CREAT)
            os.fchmod(handle, mode & 0o1777)
            return handle

    def make_directory(self, path: Path, mode: int) -> None:
        check_mode(mode, is_directory=True)
        with self.directory(path[:-1]) as parent:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
            handle = os.open(path[-1], _DIRECTORY, dir_fd=parent)
            try:
                os.chmod(by_number(handle), mode & 0o3777)
            finally:
                os.close(handle)

    def make_link(self, path: Path, target: bytes) -> None:
        """Make a symbolic link, which may say anything."""
        with self.directory(path[:-1]) as parent:
            os.symlink(target, path[-1], dir_fd=parent)

    def link(self, old: Path, new: Path) -> None:
        """Give a file one more name. A symbolic link gets it itself."""
        if not old:
            raise failure(errno.EPERM)
        with self.directory(old[:-1]) as source, self.directory(new[:-1]) as target:
            os.link(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def rename(self, old: Path, new: Path) -> None:
        if not old:
            raise failure(errno.EBUSY)
        with self.directory(old[:-1]) as source, self.directory(new[:-1]) as target:
            os.rename(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target)

    def remove(self, path: Path, is_directory: bool) -> None:
        if not path:
            raise failure(errno.EBUSY)
        with self.directory(path[:-1]) as parent:
            if is_directory:
                os.rmdir(path[-1], dir_fd=parent)
            else:
                os.unlink(path[-1], dir_fd=parent)

    def read_link(self, path: Path) -> bytes:
        """Return what a symbolic link says."""
        if not path:
            raise failure(errno.EINVAL)
        with self.directory(path[:-1]) as parent:
            return os.readlink(path[-1], dir_fd=parent)

    def space(self, path: Path) -> os.statvfs_result:
        """Return what is known of the file system."""
        with self.node(path) as handle:
            return os.fstatvfs(handle)


def check_mode(mode: int, is_directory: bool) -> None:
    """Raise OSError (EPERM) for permissions that would let others act as the user who runs dbt."""
    if mode & (stat.S_ISUID if is_directory else _PRIVILEGED):
        raise failure(errno.EPERM)
