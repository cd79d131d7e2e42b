"""The files in the cache directory that dbt has put there. All other files are ignored.

    handlers-KEY.img     an image of the handlers
    regions-KEY/NAME     compiled regions of one entry address
    regions-KEY/ID.hot   a hot list: what was hot in a program and was not compiled
    linux-KEY-ID.snapshot  a Linux guest that waits for a program (:mod:`dbt.linux.template`)
    .NAME.xxxxxxxx       a file that is being written, beside the one that it will replace

``KEY`` identifies the version of the translator; see :func:`dbt.codecache.handlers.image_key`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from dbt.backend.image import Image, ImageDamaged
from dbt.codecache.records import are_whole
from dbt.codecache.store import cache_directory, load_file
from dbt.codecache.trust import UntrustedCacheError

_FOLDER = re.compile(r"regions-(\w+)")
_HANDLERS = re.compile(r"handlers-(\w+)\.img")
_REGIONS = re.compile(r"[0-9a-f]{32}")
_LINUX = re.compile(r"linux-(\w{32})-[0-9a-f]{16}\.snapshot")
_HOT_LIST = re.compile(r"[0-9a-f]{32}\.hot")
#: The second form is the one in which earlier versions kept regions.
_LEFTOVER = re.compile(r"\.handlers-\w+\.img\.\w{8}|region-[0-9a-f]{32}|\.region-[0-9a-f]{32}\.\w{8}")
_LEFTOVER_REGIONS = re.compile(r"\.[0-9a-f]{32}(\.hot)?\.\w{8}")
_BLOCK = 4096


class Kind(Enum):
    """The kinds of cache files. A leftover is a file that is being written, or was when its process ended."""

    HANDLERS = "handlers"
    REGIONS = "regions"
    HOT_LIST = "hot_lists"
    LINUX = "linux_guests"
    LEFTOVER = "leftover"


class Entry(NamedTuple):
    """A cache file. ``name`` is relative to the cache directory, ``size`` is the number of bytes that it takes on disk,
    and ``used`` the time of its last use in seconds since 1970.
    """

    kind: Kind
    key: str
    name: str
    size: int
    used: float


def size_on_disk(size: int) -> int:
    """Return the number of bytes of the whole blocks that hold ``size`` bytes."""
    return -(-size // _BLOCK) * _BLOCK


def entries() -> Iterator[Entry]:
    """Yield every file of dbt's, in no order, whether it is trusted or not. Symbolic links are none of them."""
    for item in _scan(cache_directory()):
        name = item.name
        if found := _HANDLERS.fullmatch(name):
            yield from _entry(Kind.HANDLERS, found[1], name, item)
        elif found := _LINUX.fullmatch(name):
            yield from _entry(Kind.LINUX, found[1], name, item)
        elif _LEFTOVER.fullmatch(name):
            yield from _entry(Kind.LEFTOVER, "", name, item)
        elif (found := _FOLDER.fullmatch(name)) and item.is_dir(follow_symlinks=False):
            for inner in _scan(item.path):
                if _REGIONS.fullmatch(inner.name):
                    yield from _entry(Kind.REGIONS, found[1], f"{name}/{inner.name}", inner)
                elif _HOT_LIST.fullmatch(inner.name):
                    yield from _entry(Kind.HOT_LIST, found[1], f"{name}/{inner.name}", inner)
                elif _LEFTOVER_REGIONS.fullmatch(inner.name):
                    yield from _entry(Kind.LEFTOVER, found[1], f"{name}/{inner.name}", inner)


def _scan(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return list(found)
    except OSError:
        return []


def _entry(kind: Kind, key: str, name: str, item: os.DirEntry[str]) -> tuple[Entry, ...]:
    """Return a tuple with the entry, or an empty one if the item is not a regular file."""
    try:
        status = item.stat(follow_symlinks=False)
    except OSError:  # another process has removed it
        return ()
    if not stat.S_ISREG(status.st_mode):
        return ()
    return (Entry(kind, key, name, size_on_disk(status.st_size), status.st_mtime),)


def damage(entry: Entry) -> str | None:
    """Return what is wrong with a file: who could have written it, or its checksums. None if nothing is."""
    try:
        data = load_file(entry.name)
    except FileNotFoundError:
        return None
    except UntrustedCacheError as error:
        return error.why
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    match entry.kind:
        case Kind.HANDLERS:
            try:
                Image.unpack(data)
            except ImageDamaged as problem:
                return str(problem)
        case Kind.REGIONS | Kind.HOT_LIST if not are_whole(data):
            return "its checksum does not match"
    return None


def remove(entry: Entry) -> None:
    """Remove a file, and its folder with the last one. Raise OSError; a file that is gone is removed.

    The folder is opened first and not through a symbolic link, so that nothing outside the directory is removed.
    """
    folder, _, leaf = entry.name.rpartition("/")
    with contextlib.suppress(FileNotFoundError), _open_parent(folder) as (parent, directory):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leaf, dir_fd=directory)
        if folder:
            with contextlib.suppress(OSError):  # it is not empty, or somebody else was faster
                os.rmdir(folder, dir_fd=parent)


@contextlib.contextmanager
def _open_parent(folder: str) -> Iterator[tuple[int, int]]:
    """Open the cache directory and the folder in it, which are the same if the name is empty; no trust is needed."""
    parent = os.open(cache_directory(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not folder:
            yield parent, parent
            return
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            yield parent, directory
        finally:
            os.close(directory)
    finally:
        os.close(parent)
