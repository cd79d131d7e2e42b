"""The file jail: a guest's file names go in, host files beneath one directory come out.

A name is walked one component at a time from a descriptor of the directory, never as a path, and a
``..`` goes back to the descriptor that it came from. So neither ``..`` nor an absolute name nor a
symbolic link leads out, even if the tree changes meanwhile. Hard links are not told from files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_LINKS = 32
_MAX_NAME = 4096
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class FileJail:
    """Files beneath ``root``, which must be a directory. Every failure is an OSError with its errno."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the directory back; nothing can be opened any more."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __del__(self) -> None:
        if hasattr(self, "_root"):
            self.close()

    def open(self, name: bytes, flags: int, truncate: bool = False) -> int:
        """A descriptor of a regular file; ``flags`` as of open(2), without O_TRUNC."""
        with self._parent(name, follow=True) as (directory, last):
            handle = os.open(last, flags | _OPEN, 0o666, dir_fd=directory)
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                raise _refuse(errno.EISDIR if stat.S_ISDIR(mode) else errno.EACCES)
            if truncate:
                os.ftruncate(handle, 0)
        except OSError:
            os.close(handle)
            raise
        return handle

    def remove(self, name: bytes) -> None:
        with self._parent(name, follow=False) as (directory, last):
            os.unlink(last, dir_fd=directory)

    def rename(self, old: bytes, new: bytes) -> None:
        with (
            self._parent(old, follow=False) as (old_directory, old_last),
            self._parent(new, follow=False) as (new_directory, new_last),
        ):
            os.rename(old_last, new_last, src_dir_fd=old_directory, dst_dir_fd=new_directory)

    @contextmanager
    def _parent(self, name: bytes, follow: bool) -> Iterator[tuple[int, bytes]]:
        """The directory that holds ``name``, and its name there. ``follow``: also if that is a symbolic link."""
        path: list[int] = []  # descriptors of the directories from below the root to where we are
        try:
            yield self._walk(name, follow, path)
        finally:
            for handle in path:
                os.close(handle)

    def _walk(self, name: bytes, follow: bool, path: list[int]) -> tuple[int, bytes]:
        if not name or b"\0" in name:
            raise _refuse(errno.ENOENT)
        if len(name) > _MAX_NAME:
            raise _refuse(errno.ENAMETOOLONG)
        todo = _components(name)
        links = 0
        while todo:
            part = todo.pop()
            here = path[-1] if path else self._root
            if part == b"..":
                if not path:
                    raise _refuse(errno.EACCES)
                os.close(path.pop())
                continue
            target = _link_target(part, here) if todo or follow else None
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    raise _refuse(errno.ELOOP)
                todo += _components(target)
            elif todo:
                path.append(os.open(part, _WALK, dir_fd=here))
            else:
                return here, part
        raise _refuse(errno.EISDIR)


def _components(name: bytes) -> list[bytes]:
    """The components of a relative name, last one first."""
    if name.startswith(b"/"):
        raise _refuse(errno.EACCES)
    return [part for part in reversed(name.split(b"/")) if part not in (b"", b".")]


def _link_target(part: bytes, directory: int) -> bytes | None:
    """Where the symbolic link ``part`` points to; None if it is not one."""
    try:
        return os.readlink(part, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
