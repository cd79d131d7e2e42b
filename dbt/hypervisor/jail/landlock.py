"""Landlock: a process gives up all files but what is beneath some directories (landlock(7))."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ONLY_VERSION: Final = 1
_BENEATH: Final = 1
#: What can be done with files: all bits of version 1, and those that later ones have added.
_FIRST: Final = (1 << 13) - 1
_ADDED: Final = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_READ: Final = 1 << 2 | 1 << 3  # a file, and the entries of a directory
_NETWORK: Final = 3  # binding and connecting by TCP, since version 4
_SCOPES: Final = 3  # abstract unix sockets and signals, since version 6
_EXECUTE: Final = 1 << 0
_OF_FILES: Final = 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # writing, reading, truncating and controlling one


class Folder(NamedTuple):
    """A directory beneath which files can be read, and changed too if it ``is_writable``; or a file."""

    path: str
    is_writable: bool = False


def version() -> int:
    """Return the version of Landlock that the host has, or 0."""
    return max(int(ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, 0, _ONLY_VERSION)), 0)


def restrict(folders: Iterable[Folder]) -> None:
    """Give up all files that this process has not open, but those beneath ``folders``; TCP; and signals to others.

    Raise OSError if the host refuses. Precondition: :func:`dbt.hypervisor.jail.measures.give_up_privileges`.
    """
    found = version()
    if not found:
        raise OSError(95, "the host has no Landlock")
    libc = ctypes.CDLL(None, use_errno=True)
    files = _FIRST | sum(bit for since, bit in _ADDED.items() if found >= since)
    rules = struct.pack("<3Q", files, _NETWORK if found >= 4 else 0, _SCOPES if found >= 6 else 0)
    size = 8 if found < 4 else 16 if found < 6 else 24
    handle = _checked(libc.syscall(_CREATE, rules, size, 0))
    try:
        for folder in folders:
            _allow(libc, handle, folder, files)
        _checked(libc.syscall(_RESTRICT, handle, 0))
    finally:
        os.close(handle)


def _allow(libc: ctypes.CDLL, handle: int, folder: Folder, files: int) -> None:
    try:
        place = os.open(folder.path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        access = files & ~_EXECUTE if folder.is_writable else _READ
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= _OF_FILES
        _checked(libc.syscall(_ADD, handle, _BENEATH, struct.pack("<Qi", access, place), 0))
    finally:
        os.close(place)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result
