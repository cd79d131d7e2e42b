"""Compiled regions on disk: found by where they begin, checked against the guest's memory when loaded."""

from __future__ import annotations

import hashlib

from dbt.backend.compiled import CompiledRegion
from dbt.codecache.store import read_file, write_file

#: How many guest words at the entry name the file.
_NAMING_WORDS = 8


class RegionStore:
    """The regions of guests run before, for one version of the translator (``key``)."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def _name(self, entry: int, guest: bytes) -> str:
        naming = guest[: 4 * _NAMING_WORDS]
        return f"region-{hashlib.sha256(self._key + entry.to_bytes(4, 'little') + naming).hexdigest()[:32]}"

    def load(self, entry: int, guest: bytes) -> CompiledRegion | None:
        """The region kept for ``entry``, where memory holds ``guest``."""
        data = read_file(self._name(entry, guest))
        region = None if data is None else CompiledRegion.unpack(data)
        return region if region is not None and region.entry == entry else None

    def save(self, region: CompiledRegion, guest: bytes) -> None:
        """Keep a region; a directory that cannot be written is done without."""
        try:
            write_file(self._name(region.entry, guest), region.pack())
        except OSError:
            return
