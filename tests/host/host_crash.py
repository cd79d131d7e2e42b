"""A failure of the host: of what was written to a file and not flushed, anything may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from dbt.host.disk import RawFile

_SECTOR = 512
#: An offset with what was written there, or None where the file was flushed.
Step = tuple[int, bytes] | None


class Recorded:
    """What is written to files and when they are flushed, in place of the host's disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Step] = []
        write = RawFile.write

        def record(file: RawFile, offset: int, data: bytes) -> None:
            self.steps.append((offset, bytes(data)))
            write(file, offset, data)

        monkeypatch.setattr(RawFile, "write", record)
        monkeypatch.setattr(RawFile, "flush", lambda file: self.steps.append(None))


def after_crash(initial: bytes, steps: Sequence[Step], random: Random) -> bytes:
    """Return the file with all that was flushed, and some sectors of the rest."""
    flushed = max((at for at, step in enumerate(steps) if step is None), default=-1)
    size = max([len(initial), *(step[0] + len(step[1]) for step in steps if step is not None)])
    data = bytearray(initial.ljust(size, b"\0"))
    for at, step in enumerate(steps):
        if step is None:
            continue
        offset, written = step
        for start in range(0, len(written), _SECTOR):
            if at < flushed or random.random() < 0.5:
                piece = written[start : start + _SECTOR]
                data[offset + start : offset + start + len(piece)] = piece
    return bytes(data)
