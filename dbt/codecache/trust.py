"""Checks that nobody else could have written what is in the cache directory.

The cache holds native code that runs in this process. Therefore it is used only where nobody but the user and root
could have put it: the directory, the folder of regions and each file belong to one of these two, and
neither the group nor others may write to them. The checks look at open descriptors, and files are opened
relative to the descriptor of their directory, so that what was checked is what is read.

A symbolic link may stand in the place of the cache directory, not inside it. The directories above the cache
directory are not looked at: who may write to one of them can put another directory in its place, which is then refused.
"""

from __future__ import annotations

import errno
import os
import stat

_ROOT_USER = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _DIRECTORY | os.O_NOFOLLOW
#: Opening a FIFO must not wait for a writer, and opening a terminal must not make it the process's own.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: No file of the cache is nearly as large, in bytes.
LARGEST_FILE = 256 << 20


class UntrustedCacheError(PermissionError):
    """Raised for an object that somebody else could have written. The text names it, the reason and the remedy."""

    def __init__(self, what: str, path: str, why: str, remedy: str) -> None:
        super().__init__(errno.EPERM, os.strerror(errno.EPERM), path)
        self.why = why
        self._text = f"{what} {path} is not used, because {why}: {remedy}"

    def __str__(self) -> str:
        return self._text


def distrust(status: os.stat_result) -> str | None:
    """Return why somebody else could have written an object of this status; None if only the user and root could."""
    owner, mode = status.st_uid, status.st_mode
    if owner not in (_ROOT_USER, user := os.geteuid()):
        return f"it belongs to user {owner} and you are user {user}"
    if mode & _OTHERS_WRITE and not stat.S_ISLNK(mode):
        return f"others may write to it (mode {stat.S_IMODE(mode):04o})"
    return None


def open_directory(path: str) -> int:
    """Return a descriptor of the cache directory. Raise OSError, or UntrustedCacheError."""
    handle = os.open(path, _DIRECTORY)
    status = os.fstat(handle)
    why = distrust(os.lstat(path)) or distrust(status)
    if why is None:
        return handle
    os.close(handle)
    remedy = _remedy(path, status, "set DBT_CACHE_DIR to a directory of your own")
    raise UntrustedCacheError("the cache directory", path, why, remedy)


def open_folder(directory: int, name: str, path: str) -> int:
    """Return a descriptor of the folder ``name`` of the open ``directory``; ``path`` names that in errors.

    Raise OSError, or UntrustedCacheError.
    """
    handle = os.open(name, _FOLDER, dir_fd=directory)
    status = os.fstat(handle)
    why = distrust(status)
    if why is None:
        return handle
    os.close(handle)
    path = f"{path}/{name}"
    remedy = _remedy(path, status, "remove it with `dbt cache clear`")
    raise UntrustedCacheError("the folder of compiled regions", path, why, remedy)


def open_file(directory: int, name: str, path: str) -> tuple[int, os.stat_result]:
    """Return a descriptor of the regular file ``name`` of the open ``directory``, and its status. Never wait.

    ``path`` names the directory in errors. Raise OSError, or UntrustedCacheError.
    """
    handle = os.open(name, _FILE, dir_fd=directory)
    status = os.fstat(handle)
    why = distrust(status)
    if why is None and stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_FILE:
        return handle, status
    os.close(handle)
    path = f"{path}/{name}"
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    if why is None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    raise UntrustedCacheError("the cache file", path, why, "remove it with `dbt cache verify --repair`")


def _remedy(path: str, status: os.stat_result, otherwise: str) -> str:
    """Return the remedy. Only the owner of the object can revoke the right of others to write to it."""
    return f"`chmod go-w {path}`, or {otherwise}" if status.st_uid == os.geteuid() else otherwise
