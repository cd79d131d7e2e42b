"""Reading a snapshot in another process, and what becomes of files that cannot be read."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path

import pytest

from dbt.snapshot.errors import SnapshotError
from dbt.snapshot.images import begin_reading, finish_reading
from dbt.snapshot.snapshots import read_snapshot
from tests.snapshot.machines import save_pair


def descriptors() -> int:
    gc.collect()  # what earlier tests have left open
    return len(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    """The processes that this one has started, which others than the reader may be."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # of a process that is gone by now
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(path.parent.name))
    return found


def test_another_process_gives_the_same_image(tmp_path: Path) -> None:
    before, processes = descriptors(), children()
    for path in save_pair(tmp_path):
        with read_snapshot(path) as state:
            expected = (state.hash(), state.ram._open_file.parts)
        begin_reading(str(path))
        data = path.read_bytes()
        with read_snapshot(path) as state:
            assert (state.hash(), state.ram._open_file.parts) == expected
        begin_reading(str(path))
        image = finish_reading()
        assert image is not None
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with read_snapshot(path) as state:  # from what has been read before
            assert state.hash() == expected[0]
        image.close()
        path.write_bytes(data)
    assert descriptors() == before
    assert children() == processes


def test_what_cannot_be_read_is_reported_by_whoever_needs_it(tmp_path: Path) -> None:
    path, _ = save_pair(tmp_path)
    before, processes = descriptors(), children()
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    for wrong in (path, tmp_path / "missing", tmp_path):
        begin_reading(str(wrong))
        with pytest.raises(SnapshotError, match=str(wrong)):
            read_snapshot(wrong)
    assert finish_reading() is None
    assert descriptors() == before
    assert children() == processes
