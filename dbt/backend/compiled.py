"""A compiled region: native code and the guest words that it was made from, as it is kept and sent."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_BODY = struct.Struct("<IIIIII")


@dataclass(frozen=True, slots=True)
class CompiledRegion:
    """Native code, position-independent, whose function begins at ``start``.

    It is entered at ``entry``, from which it was formed, and at the ``others``.
    ``runs`` are the guest words that it was made from: addresses and bytes, in order, without overlap.
    ``insns``: how many instructions were compiled, those of a block on several call paths each time.
    ``strict``: for a guest that has alignment checked.
    """

    entry: int
    start: int
    insns: int
    runs: tuple[tuple[int, bytes], ...]
    code: bytes
    strict: bool = False
    others: tuple[int, ...] = ()

    def pack(self) -> bytes:
        body = _BODY.pack(self.entry, self.start, self.insns, self.strict, len(self.runs), len(self.others))
        body += struct.pack(f"<{len(self.others)}I", *self.others)
        return body + b"".join(struct.pack("<II", gva, len(data)) + data for gva, data in self.runs) + self.code

    @classmethod
    def unpack(cls, body: bytes) -> CompiledRegion:
        """What :meth:`pack` made. Who keeps it sees to it that it is not damaged."""
        entry, start, insns, strict, count, others_count = _BODY.unpack_from(body)
        others = struct.unpack_from(f"<{others_count}I", body, _BODY.size)
        at, runs = _BODY.size + 4 * others_count, []
        for _ in range(count):
            gva, size = struct.unpack_from("<II", body, at)
            runs.append((gva, body[at + 8 : at + 8 + size]))
            at += 8 + size
        return cls(entry, start, insns, tuple(runs), body[at:], bool(strict), others)


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
