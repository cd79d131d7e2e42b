"""The file jail: opens the files beneath one directory of the host by the names that a guest uses.

A name is resolved one component at a time from a descriptor of the directory, and never as a path. A ``..`` returns to
the descriptor of the parent. Therefore neither ``..`` nor an absolute name nor a symbolic link leads outside, even if
the tree changes meanwhile. Hard links cannot be distinguished from files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_MAX_LINKS = 32
_MAX_NAME = 4096
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class FileJail:
    """The files beneath ``root``, which must be a directory. Every failure is an OSError with its errno."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the directory. Nothing can be opened afterwards."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __del__(self) -> None:
        if hasattr(self, "_root"):
            self.close()

    def open(self, name: bytes, flags: int, truncate: bool = False) -> int:
        """Return a descriptor of a regular file. ``flags`` are those of open(2) without O_TRUNC, for which is
        ``truncate``.
        """
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
        """Remove a regular file, or a symbolic link and not its target."""
        with self._parent(name, follow=False) as (directory, last):
            _check_changeable(last, directory)
            os.unlink(last, dir_fd=directory)

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename a regular file or a symbolic link. What has the new name is replaced if it is such a file or link."""
        with (
            self._parent(old, follow=False) as (old_directory, old_last),
            self._parent(new, follow=False) as (new_directory, new_last),
        ):
            _check_changeable(old_last, old_directory)
            with suppress(FileNotFoundError):
                _check_changeable(new_last, new_directory)
            os.rename(old_last, new_last, src_dir_fd=old_directory, dst_dir_fd=new_directory)

    @contextmanager
    def _parent(self, name: bytes, follow: bool) -> Iterator[tuple[int, bytes]]:
        """Yield a descriptor of the directory that holds ``name``, and the last component.

        With ``follow``, a symbolic link as the last component is resolved too.
        """
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
        # POSIX (4.13): a name that ends in a slash or in "." is that of a directory, and here only files are named.
        names_directory = name.endswith((b"/", b"/."))
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
                names_directory = names_directory or (not todo and target.endswith((b"/", b"/.")))
                todo += _components(target)
            elif todo:
                path.append(os.open(part, _WALK, dir_fd=here))
            elif names_directory:
                _refuse_as_directory(part, here)
            else:
                return here, part
        raise _refuse(errno.EISDIR)


def _refuse_as_directory(part: bytes, directory: int) -> NoReturn:
    """Raise the OSError for a file that is named as a directory: EISDIR if it is one, ENOENT if there is none."""
    mode = os.stat(part, dir_fd=directory, follow_symlinks=False).st_mode
    raise _refuse(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOTDIR)


def _check_changeable(part: bytes, directory: int) -> None:
    """Raise OSError unless ``part`` may be removed, renamed and replaced: a regular file or a symbolic link.

    Should another process put something else there in between, it is still beneath the root.
    """
    mode = os.stat(part, dir_fd=directory, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise _refuse(errno.EISDIR if stat.S_ISDIR(mode) else errno.EACCES)


def _components(name: bytes) -> list[bytes]:
    """Return the components of a relative name, the last one first. Raise OSError for an absolute name."""
    if name.startswith(b"/"):
        raise _refuse(errno.EACCES)
    return [part for part in reversed(name.split(b"/")) if part not in (b"", b".")]


def _link_target(part: bytes, directory: int) -> bytes | None:
    """Return the target of the symbolic link ``part``, or None if it is not a symbolic link."""
    try:
        return os.readlink(part, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
