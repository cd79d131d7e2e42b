"""Hot lists on disk: for a program, what was hot when its runs ended and had not been compiled.

A file has the parts of the runs that left something, the latest first. Each part is a record with a digest, and means
something to :mod:`dbt.engine.hot_list`. The files lie beside the regions, are trusted as these are, and count towards
the same limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from dbt.codecache.records import pack_records, unpack_records
from dbt.codecache.store import cache_limit, remove_file, use_file, write_file

if TYPE_CHECKING:
    from dbt.codecache.quota import CacheQuota

#: The largest number of parts in a file, and of bytes in all of them.
MOST_PARTS, MOST_BYTES = 4, 32 << 20


class HotListStore:
    """The hot lists for the version ``key`` of the translator. A program is named by its identity, 16 bytes or more.

    Raises WrongCacheSize.
    """

    def __init__(self, key: str) -> None:
        self._folder = f"regions-{key}"
        self._key, self._limit = key, cache_limit()

    @cached_property
    def _quota(self) -> CacheQuota:
        from dbt.codecache.quota import CacheQuota  # which only a run needs that leaves something

        return CacheQuota(self._key, self._limit)

    def _name(self, program: bytes) -> str:
        return f"{self._folder}/{program[:16].hex()}.hot"

    def load(self, program: bytes) -> list[bytes]:
        """Return the undamaged parts of a program's list, the latest first. There are none if nothing was left."""
        data = use_file(self._name(program))
        return [] if data is None else list(unpack_records(data))[:MOST_PARTS]

    def save(self, program: bytes, parts: Sequence[bytes]) -> bool:
        """Replace a program's list, or remove it if there are no parts. What is too much is left out, from the end.

        Return False if nothing is on disk, because there was nothing to keep or it could not be written.
        """
        kept: list[bytes] = []
        for part in parts[:MOST_PARTS]:
            if sum(map(len, kept)) + len(part) > MOST_BYTES:
                break
            kept.append(part)
        name = self._name(program)
        if not kept:
            remove_file(name)
            return False
        data = pack_records(kept)
        try:
            self._quota.make(len(data))
            write_file(name, data)
        except OSError:  # the next run finds out by itself what is hot
            return False
        return True
