"""Reading a snapshot in another process, and what becomes of files that cannot be read."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from dbt.snapshot.errors import SnapshotError
from dbt.snapshot.images import begin_reading, finish_reading
from dbt.snapshot.snapshots import read_snapshot
from tests.snapshot.machines import save_pair


def descriptors() -> int:
    gc.collect()  # what earlier tests have left open
    return len(os.listdir("/proc/self/fd"))


def no_child() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def test_another_process_gives_the_same_image(tmp_path: Path) -> None:
    before = descriptors()
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
    assert no_child()


def test_what_cannot_be_read_is_reported_by_whoever_needs_it(tmp_path: Path) -> None:
    path, _ = save_pair(tmp_path)
    before = descriptors()
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    for wrong in (path, tmp_path / "missing", tmp_path):
        begin_reading(str(wrong))
        with pytest.raises(SnapshotError, match=str(wrong)):
            read_snapshot(wrong)
    assert finish_reading() is None
    assert descriptors() == before
    assert no_child()
