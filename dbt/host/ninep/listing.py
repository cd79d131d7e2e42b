"""The entries of a directory in an order that lasts: each has a number that follows from its name.

So a client that removes what it has read, or a machine that was restored, goes on where it was. The numbers have 31
bits, because a 32-bit guest cannot take more.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from zlib import crc32

from dbt.host.ninep.messages import failure

#: Entries of the largest directory that is read.
_MOST_ENTRIES: Final = 1 << 18
_SELF, _PARENT, _FIRST = 1, 2, 3
_BITS: Final = 0x7FFFFFFF
#: The kinds of entries (d_type): directory, file, symbolic link, and the bits of st_mode that they come from.
DT_DIRECTORY: Final = 4
_DT_SHIFT: Final = 12


class Entry(NamedTuple):
    """An entry: the number behind which the next ones are, the name, the inode's number, and its kind (d_type)."""

    number: int
    name: bytes
    inode: int
    kind: int


def list_directory(handle: int, this: os.stat_result, parent: os.stat_result) -> list[Entry]:
    """Return the entries of an open directory in the order of their numbers. ``this`` and ``parent`` are what ``.`` and
    ``..`` lead to.
    """
    found = [Entry(_SELF, b".", this.st_ino, DT_DIRECTORY), Entry(_PARENT, b"..", parent.st_ino, DT_DIRECTORY)]
    with os.scandir(handle) as entries:
        for entry in entries:
            if len(found) >= _MOST_ENTRIES:
                raise failure(errno.EOVERFLOW)
            name = os.fsencode(entry.name)
            found.append(Entry(max(crc32(name) & _BITS, _FIRST), name, entry.inode(), _kind(entry)))
    found.sort()
    return found


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return 10
    if entry.is_dir(follow_symlinks=False):
        return DT_DIRECTORY
    if entry.is_file(follow_symlinks=False):
        return 8
    try:
        return entry.stat(follow_symlinks=False).st_mode >> _DT_SHIFT
    except OSError:
        return 0


def behind(entries: Sequence[Entry], number: int) -> Iterator[list[Entry]]:
    """Yield the entries behind a number, those with the same number together."""
    at = bisect_right(entries, number, key=lambda entry: entry.number)
    while at < len(entries):
        end = bisect_right(entries, entries[at].number, lo=at, key=lambda entry: entry.number)
        yield list(entries[at:end])
        at = end
