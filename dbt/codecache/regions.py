"""Compiled regions on disk: found by where they begin, checked against the guest's memory when loaded."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from dbt.codecache.store import read_file, write_file

MAGIC = b"DBTRGN01"
_HEADER = struct.Struct("<8s32s")
_BODY = struct.Struct("<IIII")
#: How many guest words at the entry name the file.
_NAMING_WORDS = 8


@dataclass(frozen=True, slots=True)
class CompiledRegion:
    """Native code, position-independent, whose function begins at ``start``.

    ``runs`` are the guest words that it was made from: addresses and bytes, in order, without overlap.
    ``insns``: how many instructions were compiled, those of a block on several call paths each time.
    """

    entry: int
    start: int
    insns: int
    runs: tuple[tuple[int, bytes], ...]
    code: bytes

    def pack(self) -> bytes:
        body = _BODY.pack(self.entry, self.start, self.insns, len(self.runs))
        body += b"".join(struct.pack("<II", gva, len(data)) + data for gva, data in self.runs) + self.code
        return _HEADER.pack(MAGIC, hashlib.sha256(body).digest()) + body

    @classmethod
    def unpack(cls, data: bytes) -> CompiledRegion | None:
        """What :meth:`pack` wrote, or None if it is damaged."""
        if len(data) < _HEADER.size + _BODY.size:
            return None
        magic, digest = _HEADER.unpack_from(data)
        body = data[_HEADER.size :]
        if magic != MAGIC or hashlib.sha256(body).digest() != digest:
            return None
        entry, start, insns, count = _BODY.unpack_from(body)
        at, runs = _BODY.size, []
        for _ in range(count):
            gva, size = struct.unpack_from("<II", body, at)
            runs.append((gva, body[at + 8 : at + 8 + size]))
            at += 8 + size
        return cls(entry, start, insns, tuple(runs), body[at:])


def as_runs(words: dict[int, int]) -> tuple[tuple[int, bytes], ...]:
    """Guest words by address, as runs of consecutive ones."""
    runs: list[tuple[int, bytearray]] = []
    for gva in sorted(words):
        data = words[gva].to_bytes(4, "little")
        if runs and runs[-1][0] + len(runs[-1][1]) == gva:
            runs[-1][1].extend(data)
        else:
            runs.append((gva, bytearray(data)))
    return tuple((gva, bytes(data)) for gva, data in runs)


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
