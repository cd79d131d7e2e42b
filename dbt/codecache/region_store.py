"""Compiled regions on disk. They are found by their entry, and used only if the guest's memory holds the same code.

A file holds the regions of one entry address, the words there and one translation context, the latest first. There may
be several, because functions that begin with the same words may differ later.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gpa
from dbt.backend.digest import digest
from dbt.codecache.records import pack_records, unpack_records
from dbt.codecache.store import cache_limit, has_file, read_file, use_file, write_file
from dbt.frontend.context import TranslationContext

if TYPE_CHECKING:
    from dbt.backend.compiled import CompiledRegion
    from dbt.codecache.quota import CacheQuota

#: The number of guest words at the entry that are part of the file's name.
_NAMING_WORDS = 8
#: The largest number of regions in a file.
KEPT_PER_FILE = 4


class StoreCounts(NamedTuple):
    """What became of regions that were to be kept.

    ``saved``: the regions written. ``evicted``: the files removed to make room. ``failed``: the regions that could not
    be written. ``error``: the number of the last error of the host, 0 if there was none.
    """

    saved: int = 0
    evicted: int = 0
    failed: int = 0
    error: int = 0

    @property
    def reason(self) -> str:
        """The last error in words."""
        return os.strerror(self.error) if self.failed else ""


class RegionStore:
    """The regions of earlier runs, for the version ``key`` of the translator. Raises WrongCacheSize."""

    def __init__(self, key: str) -> None:
        self._folder = f"regions-{key}"
        self._key, self._limit = key, cache_limit()
        self._lock = threading.Lock()
        self._described: tuple[TranslationContext | None, bytes] = None, b""  # the last context that was described
        #: Counted since the store was made.
        self.counts = StoreCounts()

    @cached_property
    def _quota(self) -> CacheQuota:
        """The limit on what is written. Imported late, because the compiler's process does the writing."""
        from dbt.codecache.quota import CacheQuota

        return CacheQuota(self._key, self._limit)

    def _name(self, entry: Gpa, guest: bytes, context: TranslationContext) -> str:
        known, text = self._described
        if context is not known:
            text = context.describe().encode()
            self._described = context, text
        words = guest[: 4 * _NAMING_WORDS].ljust(4 * _NAMING_WORDS)
        named = entry.to_bytes(4, "little") + words + text
        return digest(named).hex()[:32]

    def load(self, entry: Gpa, guest: bytes, context: TranslationContext) -> Iterator[CompiledRegion]:
        """Yield the regions kept for ``entry`` under ``context``, where the guest's memory begins with ``guest``.

        The caller must compare the other words of each region with memory. A record that names another context is
        skipped.
        """
        data = use_file(f"{self._folder}/{self._name(entry, guest, context)}")
        if data is None:
            return
        from dbt.backend.compiled import CompiledRegion, WrongRegion  # which short runs do not need

        for record in unpack_records(data):
            try:
                region = CompiledRegion.unpack(record)
            except WrongRegion:
                continue
            if region.entry == entry and region.context == context:
                yield region

    def has(self, entry: Gpa, guest: bytes, context: TranslationContext) -> bool:
        """Return True if there is a file of regions for which :meth:`load` is worth while."""
        return has_file(f"{self._folder}/{self._name(entry, guest, context)}")

    def save(self, region: CompiledRegion, guest: bytes) -> None:
        """Keep a region. If that is not possible, the failure is counted, and the next run compiles the region
        again.
        """
        name = f"{self._folder}/{self._name(region.entry, guest, region.context)}"
        latest = region.pack()
        others = (record for record in unpack_records(read_file(name) or b"") if record != latest)
        data = pack_records([latest, *others][:KEPT_PER_FILE])
        try:
            evicted = self._quota.make(len(data))
            self._count(evicted=evicted)
            write_file(name, data)
            self._count(saved=1)
        except OSError as error:
            self._count(failed=1, error=error.errno or 0)

    def _count(self, saved: int = 0, evicted: int = 0, failed: int = 0, error: int = 0) -> None:
        with self._lock:
            now = self.counts
            self.counts = StoreCounts(now.saved + saved, now.evicted + evicted, now.failed + failed, error or now.error)
