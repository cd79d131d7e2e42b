"""The map for perf has a name that can be guessed, in a directory where everybody may write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dbt.trace.perfmap import PerfMap


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"perf-{os.getpid()}.map"


def test_the_map_is_a_new_file(path: Path) -> None:
    assert PerfMap(str(path.parent)).path == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_stale_map_of_ones_own_is_replaced_and_not_written_to(path: Path) -> None:
    path.write_text("stale")
    other_name = path.with_name("other")
    os.link(path, other_name)
    PerfMap(str(path.parent))
    assert path.read_text() == "" and other_name.read_text() == "stale"


@pytest.mark.parametrize("what", ["link", "dangling", "fifo", "folder", "stranger"])
def test_what_else_is_there_is_left_alone(path: Path, what: str) -> None:
    victim = path.with_name("victim")
    if what == "link":
        victim.write_text("precious")
        path.symlink_to(victim)
    elif what == "dangling":
        path.symlink_to(victim)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif os.geteuid() == 0:
        path.write_text("precious")
        os.chown(path, 1234, -1)
    else:
        pytest.skip("only root can give files away")
    before = path.lstat()
    with pytest.raises(FileExistsError, match="not a file of yours") as error:
        PerfMap(str(path.parent))
    assert error.value.filename == str(path)
    assert path.lstat() == before
    assert what != "link" or victim.read_text() == "precious"
    assert what != "dangling" or not victim.exists()
