"""Keeping the regions on disk below a size: what was used least recently makes room for what is new."""

from __future__ import annotations

import contextlib
import errno
import os
import time

from dbt.codecache.contents import Entry, Kind, entries, remove, size_on_disk
from dbt.codecache.store import check_folder

#: Versions of the translator whose files may stay in the cache directory, the newest ones.
KEPT_VERSIONS = 4
#: Seconds after which a file that is still being written belongs to a process that was killed.
_UNFINISHED = 600.0
#: The directory is looked at again when so much of the limit was written: other processes write too.
_SHARE = 8


class CacheQuota:
    """The limit on what the cache directory holds, for a writer of the version ``key``.

    ``limit``: bytes that the regions of all versions may take together.

    Two processes that write at once may exceed it by an eighth each.
    """

    def __init__(self, key: str, limit: int) -> None:
        self._key = key
        self._limit = limit
        self._left = 0

    def make(self, size: int) -> int:
        """See to it that a file of ``size`` bytes may be written; how many were removed for it. Raises OSError."""
        size = size_on_disk(size)
        removed = 0
        if size > self._left:
            removed, total = self._sweep(size if size <= self._limit else 0)
            self._left = min(self._limit - total, max(size, self._limit // _SHARE))
            if size > self._left:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self._left -= size
        return removed

    def _sweep(self, wanted: int) -> tuple[int, int]:
        """Remove what is stale, and if ``wanted`` bytes do not fit, an eighth; files removed, bytes that stay."""
        check_folder()
        found = list(entries())
        self._remove_leftovers(found)
        regions = sorted((entry for entry in found if entry.kind is Kind.REGIONS), key=lambda entry: entry.used)
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
