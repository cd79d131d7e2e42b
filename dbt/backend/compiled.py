"""A compiled region: native code and the guest words that it was made from, as it is kept and sent."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_BODY = struct.Struct("<IIIIIIIII")


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no region, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class CompiledRegion:
    """Native code, position-independent, whose function begins at ``start``.

    All addresses are physical. It is entered at ``entry``, from which it was formed, and at the ``others``.
    ``runs`` are the guest words that it was made from: addresses and bytes, in order, without overlap.
    ``insns``: how many instructions were compiled, those of a block on several call paths each time.
    ``strict``: for a guest that has alignment checked; ``mmu``: for one whose MMU is on, and where ``pages``, pairs of
    a virtual and a physical page, are mapped so. ``compile_record``: how it was made, where that is to be known
    (:mod:`dbt.backend.compile_record`).
    """

    entry: int
    start: int
    insns: int
    runs: tuple[tuple[int, bytes], ...]
    code: bytes
    strict: bool = False
    others: tuple[int, ...] = ()
    mmu: bool = False
    pages: tuple[tuple[int, int], ...] = ()
    compile_record: bytes = b""

    def pack(self) -> bytes:
        counts = len(self.runs), len(self.others), len(self.pages), len(self.compile_record)
        body = _BODY.pack(self.entry, self.start, self.insns, self.strict, self.mmu, *counts)
        numbers = [*self.others, *(page for pair in self.pages for page in pair)]
        body += struct.pack(f"<{len(numbers)}I", *numbers)
        runs = b"".join(struct.pack("<II", gpa, len(data)) + data for gpa, data in self.runs)
        return body + runs + self.compile_record + self.code

    @classmethod
    def unpack(cls, body: bytes) -> CompiledRegion:
        """What :meth:`pack` made. Who keeps it sees to it that it is not damaged."""
        entry, start, insns, strict, mmu, run_count, other_count, page_count, told = _BODY.unpack_from(body)
        numbers = struct.unpack_from(f"<{other_count + 2 * page_count}I", body, _BODY.size)
        others, pages = numbers[:other_count], numbers[other_count:]
        at, runs = _BODY.size + 4 * len(numbers), []
        for _ in range(run_count):
            gpa, size = struct.unpack_from("<II", body, at)
            runs.append((gpa, body[at + 8 : at + 8 + size]))
            at += 8 + size
        pairs = tuple(zip(pages[::2], pages[1::2], strict=True))
        compile_record, code = body[at : at + told], body[at + told :]
        return cls(entry, start, insns, tuple(runs), code, bool(strict), others, bool(mmu), pairs, compile_record)


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
