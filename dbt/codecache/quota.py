"""The limit on the size of the regions and hot lists on disk. The least recently used ones make room for new ones."""

from __future__ import annotations

import contextlib
import errno
import os
import time

from dbt.codecache.contents import Entry, Kind, entries, remove, size_on_disk
from dbt.codecache.store import check_folder

#: How many versions of the translator may have files in the cache directory. The files of older ones are removed.
KEPT_VERSIONS = 4
#: After this many seconds, an unfinished file is taken to belong to a process that was killed.
_UNFINISHED = 600.0
#: The directory is read again after this fraction of the limit has been written, because other processes write too.
_SHARE = 8


class CacheQuota:
    """The limit on the cache directory, for a writer of the version ``key``.

    ``limit`` is the number of bytes that the regions and hot lists of all versions may take together. Each process that
    writes may exceed it by an eighth, because other processes write at the same time.
    """

    def __init__(self, key: str, limit: int) -> None:
        self._key = key
        self._limit = limit
        self._left = 0

    def make(self, size: int) -> int:
        """Make room for a file of ``size`` bytes. Return the number of files removed. Raise OSError if there is no
        room. A file that is larger than the whole limit removes nothing: a limit of 0 keeps what is there.
        """
        size = size_on_disk(size)
        if size > self._limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        removed = 0
        if size > self._left:
            removed, total = self._sweep(size)
            self._left = min(self._limit - total, max(size, self._limit // _SHARE))
            if size > self._left:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self._left -= size
        return removed

    def _sweep(self, wanted: int) -> tuple[int, int]:
        """Remove stale files, and an eighth of the limit if ``wanted`` bytes do not fit.

        Return the number of files removed and the number of bytes that remain.
        """
        check_folder()
        found = list(entries())
        self._remove_leftovers(found)
        limited = (Kind.REGIONS, Kind.HOT_LIST)
        regions = sorted((entry for entry in found if entry.kind in limited), key=lambda entry: entry.used)
        newest = list(dict.fromkeys([self._key, *(entry.key for entry in reversed(regions))]))[:KEPT_VERSIONS]
        total = sum(entry.size for entry in regions)
        removed = 0
        aim = self._limit
        if total + wanted > self._limit:
            aim -= max(wanted, self._limit // _SHARE)
        for entry in regions:
            if entry.key not in newest or total > aim:
                remove(entry)
                removed += 1
                total -= entry.size
        return removed, total

    @staticmethod
    def _remove_leftovers(found: list[Entry]) -> None:
        for entry in found:
            if entry.kind is Kind.LEFTOVER and time.time() - entry.used > _UNFINISHED:
                with contextlib.suppress(OSError):
                    remove(entry)
