"""A file system of its own: a process gives up the tree of the host's files, and has some folders of it alone.

Landlock says which files can be opened. It governs neither what is looked at by a path nor to which sockets a process
connects, so nothing else may have a path: the root becomes an empty one, in which the folders are mounted where they
were. No descriptor may lead back: what is above an open directory is found by its mount, so all are opened anew.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from dbt.hypervisor.jail.landlock import Folder

#: System calls that the C library has no functions for, or has them since lately.
_PIVOT_ROOT, _OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 155, 428, 429, 442
_AT_FDCWD: Final = -100
_EMPTY_PATH, _RECURSIVE, _CLONE = 0x1000, 0x8000, 1
_MOVE_EMPTY_PATH: Final = 4
_READ_ONLY, _NO_SET_USER, _NO_DEVICES, _NO_PROGRAMS = 1, 2, 4, 8
_HARMLESS: Final = _NO_SET_USER | _NO_DEVICES | _NO_PROGRAMS
_ATTRIBUTES: Final = struct.Struct("<4Q")
_DETACH: Final = 2
_NEW_NS, _RECURSIVE_MOUNT, _SLAVE = 1 << 17, 1 << 14, 1 << 19
#: Where the new root is made: a directory that is there on each host, and of which nothing is needed any more.
_PLACE: Final = "/proc"
_SIZE: Final = b"mode=0700,size=256k"
_DESCRIPTORS: Final = "/proc/self/fd"


class _Tree(NamedTuple):
    """A folder of the host as a mount that is nowhere yet, and where it will be."""

    path: str
    handle: int
    is_directory: bool


def leave_host_tree(folders: Iterable[Folder]) -> None:
    """Have a root in which are ``folders`` only, by the paths that they have, and as far as they are there.

    Directories that are open, and not in one of them, become empty. Raise OSError if the host refuses; everything is as
    it was then, but that nobody else sees what this process mounts. Precondition: it has one thread.
    """
    folders = list(folders)
    _leave_mount_namespace()
    directories, here, real_paths = _open_directories(), _working_directory(), _real_paths(folders)
    writable = {real_paths.get(os.path.abspath(folder.path)) for folder in folders if folder.is_writable}
    trees: list[_Tree] = []
    try:
        for path in sorted(set(real_paths.values())):
            trees.append(_cloned(path, path in writable))
        _mount(b"dbt", _PLACE.encode(), b"tmpfs", 0, _SIZE)
        try:
            _furnish(trees, real_paths, here)
            os.chdir(_PLACE)
            _call(_PIVOT_ROOT, b".", b".")  # the old root is above the new one now
        except OSError:
            _unmount(_PLACE)
            os.chdir(here)
            raise
    finally:
        for tree in trees:
            os.close(tree.handle)
    _unmount(".")
    os.chdir(here)
    for number, path in directories.items():
        _open_anew(number, path)


def _leave_mount_namespace() -> None:
    """Have mounts of its own, which are those that there were. The host sees none of those that are made later."""
    _checked(ctypes.CDLL(None, use_errno=True).unshare(_NEW_NS))
    _mount(None, b"/", None, _RECURSIVE_MOUNT | _SLAVE, None)


def _open_directories() -> dict[int, str]:
    """Return the directories that are open, and the path of each."""
    found = {}
    for name in os.listdir(_DESCRIPTORS):
        with suppress(OSError):  # that of the list itself
            if stat.S_ISDIR(os.fstat(int(name)).st_mode):
                found[int(name)] = os.readlink(f"{_DESCRIPTORS}/{name}")
    return found


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return "/"


def _real_paths(folders: Iterable[Folder]) -> dict[str, str]:
    """Return by which path without symbolic links a folder is found, for each path of one that there is."""
    paths = {os.path.abspath(folder.path): os.path.realpath(folder.path) for folder in folders}
    return {path: real for path, real in paths.items() if os.path.lexists(real)}


def _cloned(path: str, is_writable: bool) -> _Tree:
    """Return a copy of the mount that ``path`` is in, from there on, with what is mounted beneath it."""
    handle = _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _CLONE | os.O_CLOEXEC | _RECURSIVE)
    try:
        _set_attributes(handle, _HARMLESS | (0 if is_writable else _READ_ONLY), _RECURSIVE)
        return _Tree(path, handle, stat.S_ISDIR(os.fstat(handle).st_mode))
    except OSError:
        os.close(handle)
        raise


def _furnish(trees: Iterable[_Tree], links: Mapping[str, str], here: str) -> None:
    """Put everything into the new root, and let nothing be changed there. ``links`` are the paths that lead to others,
    and ``here`` is the working directory.
    """
    base = os.open(_PLACE, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for tree in trees:
            _make_place(tree)
        for path in sorted(links):
            _link(path, links[path])
        os.makedirs(_PLACE + here, 0o700, exist_ok=True)
        for tree in trees:
            place = os.fsencode(_PLACE + tree.path)
            _call(_MOVE_MOUNT, tree.handle, b"", _AT_FDCWD, place, _MOVE_EMPTY_PATH)
        _set_attributes(base, _HARMLESS | _READ_ONLY)
    finally:
        os.close(base)


def _make_place(tree: _Tree) -> None:
    """Make the directory or the file that a tree will be mounted on."""
    place = _PLACE + tree.path
    os.makedirs(place if tree.is_directory else os.path.dirname(place), 0o700, exist_ok=True)
    if not tree.is_directory:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _link(path: str, target: str) -> None:
    """Let a path that has symbolic links in it lead to where it leads on the host."""
    place = _PLACE + path
    if not os.path.lexists(place):
        os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
        os.symlink(os.path.relpath(_PLACE + target, os.path.realpath(os.path.dirname(place))), place)


def _open_anew(number: int, path: str) -> None:
    """Let the descriptor of a directory lead to what is at its path now, or to the root if that is another one."""
    before, flags = os.fstat(number), fcntl.fcntl(number, fcntl.F_GETFL)
    try:
        handle = os.open(path, flags | os.O_CLOEXEC)
        if not os.path.samestat(os.fstat(handle), before):
            os.close(handle)
            raise FileNotFoundError(path)
    except OSError:
        handle = os.open("/", flags | os.O_CLOEXEC)
    os.dup2(handle, number, inheritable=False)
    os.close(handle)


def _set_attributes(handle: int, attributes: int, flags: int = 0) -> None:
    packed = _ATTRIBUTES.pack(attributes, 0, 0, 0)
    _call(_MOUNT_SETATTR, handle, b"", _EMPTY_PATH | flags, packed, len(packed))


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None) -> None:
    _checked(ctypes.CDLL(None, use_errno=True).mount(source, target, kind, flags, data))


def _unmount(path: str) -> None:
    _checked(ctypes.CDLL(None, use_errno=True).umount2(path.encode(), _DETACH))


def _call(number: int, *arguments: int | bytes) -> int:
    """Make a system call by its number. Raise OSError if it fails."""
    return _checked(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"a root of its own: {os.strerror(error)}")
    return result
