"""Mutated snapshot files: no traceback, bounded time and memory."""

from __future__ import annotations

import gc
import os
import struct
import time
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3

from dbt.snapshot.chain import SnapshotChain
from dbt.snapshot.format import MAGIC
from tests.long import LONG
from tests.snapshot.fuzz import MOST_MEMORY, Fuzzer, memory, pack
from tests.snapshot.subjects import SUBJECTS


@pytest.mark.parametrize("subject", SUBJECTS)
def test_mutated_files(tmp_path: Path, subject: str) -> None:
    fuzzer = Fuzzer(tmp_path, SUBJECTS[subject])
    fuzzer.run(range(200))
    gc.collect()  # of tests before this one
    before, descriptors = memory(), len(os.listdir("/proc/self/fd"))
    fuzzer.run(range(200, 100_000 if LONG else 1_500))
    assert memory() - before < MOST_MEMORY
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert fuzzer.accepted > 20, "mutations under digests that are right must get behind them"


def test_as_many_runs_of_pages_as_possible_take_time_in_proportion(tmp_path: Path) -> None:
    """A file of 1.5 MB has every second page of a gigabyte. With a step for each pair of them it would take minutes."""
    count = 1 << 17
    chunk, values = zstandard.compress(bytes(65535) + b"1"), zstandard.compress(pack({}))
    table = struct.pack("<I32s", len(chunk), blake3(chunk).digest()) * (count // 16)
    header = pack(
        {
            "chunks": table,
            "cleared": b"",
            "dbt": "0",
            "layout": [[0, 1 << 30, False]],
            "pages": b"".join(struct.pack("<II", 2 * number, 1) for number in range(count)),
            "parent": None,
            "values": [len(pack({})), len(values), blake3(values).digest()],
        }
    )
    signed = struct.pack("<8sII", MAGIC, 1, len(header))
    data = signed + blake3(signed + header).digest() + header + values + chunk * (count // 16)
    (tmp_path / "many").write_bytes(data)
    started = time.process_time()
    with SnapshotChain(str(tmp_path / "many")) as chain:
        chain.check()
        assert len(chain.parts()) == count
    assert time.process_time() - started < 5
