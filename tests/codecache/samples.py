"""Regions to keep, which nobody runs."""

from __future__ import annotations

import random

from dbt.backend.compiled import CompiledRegion
from dbt.codecache.contents import Entry, Kind, entries
from dbt.codecache.regions import RegionStore


def guest_bytes(entry: int) -> bytes:
    """What memory holds at ``entry``."""
    return entry.to_bytes(4, "little") * 8


def region(entry: int, size: int = 3000, version: int = 0) -> CompiledRegion:
    code = random.Random(entry * 100 + version).randbytes(size)
    return CompiledRegion(entry, 0, 1, ((entry, b"abcd"), (entry + 64, b"efgh")), code)


def save(store: RegionStore, entry: int, size: int = 3000, version: int = 0) -> None:
    store.save(region(entry, size, version), guest_bytes(entry))


def load(store: RegionStore, entry: int) -> list[CompiledRegion]:
    return list(store.load(entry, guest_bytes(entry)))


def kept(kind: Kind = Kind.REGIONS) -> list[Entry]:
    return sorted(entry for entry in entries() if entry.kind is kind)
