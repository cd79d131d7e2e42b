"""Mutated snapshot files: no traceback, bounded time and memory."""

from __future__ import annotations

import os
from pathlib import Path

from tests.snapshot.fuzz import MOST_MEMORY, Fuzzer, memory

LONG = bool(os.environ.get("DBT_LONG_TESTS"))


def test_mutated_files(tmp_path: Path) -> None:
    fuzzer = Fuzzer(tmp_path)
    fuzzer.run(range(200))
    before, descriptors = memory(), len(os.listdir("/proc/self/fd"))
    fuzzer.run(range(200, 100_000 if LONG else 3_000))
    assert memory() - before < MOST_MEMORY
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert fuzzer.accepted > 80, "mutations under digests that are right must get behind them"
