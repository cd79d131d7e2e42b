"""Writing a snapshot over another: whatever happens, there is the old file or the new one, and nothing piles up."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import signal
import time
from itertools import count
from pathlib import Path

import pytest

from dbt.host.disk import RawFile
from dbt.snapshot.errors import SnapshotError
from dbt.snapshot.replacement import replacing
from tests.long import LONG
from tests.snapshot.images import load, save, some_pages

OLD, NEW = some_pages(40, seed=1), some_pages(50, seed=2)


def refused(path: Path) -> str:
    """Return the error for a file that cannot be written, which is one paragraph that names it."""
    with pytest.raises(SnapshotError) as caught:
        save(path, NEW)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Kill a process that saves again and again, at random moments."""
    path, made = tmp_path / "state", random.Random(5)
    save(path, OLD)
    for _ in range(200 if LONG else 50):
        child = os.fork()
        if not child:
            try:
                while True:
                    save(path, NEW)
                    save(path, OLD)
            finally:
                os._exit(1)
        time.sleep(made.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert load(path)[1].content in (OLD.content, NEW.content)
        assert set(os.listdir(tmp_path)) <= {"state", ".state.part"}
    save(path, NEW)
    assert load(path)[1].content == NEW.content
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.parametrize(
    ("step", "number"),
    [("ftruncate", 1), ("pwrite", 1), ("pwrite", 2), ("pwrite", 3), ("fsync", 1), ("rename", 1)],
)
def test_killed_at_each_step(tmp_path: Path, step: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the process before the call of a function with this number."""
    path = tmp_path / "state"
    save(path, OLD)
    child = os.fork()
    if not child:
        try:
            calls, whole = count(1), getattr(os, step)

            def die(*arguments: object) -> object:
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return whole(*arguments)

            monkeypatch.setattr(os, step, die)
            with replacing(str(path)) as handle:
                for _ in range(3):
                    os.pwrite(handle, b"new", 0)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert load(path)[1].content == OLD.content
    assert set(os.listdir(tmp_path)) == {"state", ".state.part"}
    save(path, NEW)
    assert load(path)[1].content == NEW.content
    assert os.listdir(tmp_path) == ["state"]


def test_what_the_host_refuses_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    save(path, OLD)
    for call, number in (("pwrite", errno.ENOSPC), ("fsync", errno.EIO), ("rename", errno.EACCES)):

        def fail(*arguments: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(number)):
            patch.setattr(os, call, fail)
            with replacing(str(path)) as handle:
                os.pwrite(handle, b"new", 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            if call != "fsync":  # which these saves do without
                assert os.strerror(number) in refused(path)
        assert load(path)[1].content == OLD.content
        assert os.listdir(tmp_path) == ["state"]


def test_a_disk_without_room(tmp_path: Path) -> None:
    """The limit of the process on the size of files stands for a full disk."""
    path = tmp_path / "state"
    save(path, OLD)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        assert "File too large" in refused(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load(path)[1].content == OLD.content
    assert os.listdir(tmp_path) == ["state"]


def test_places_where_there_can_be_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    assert "Is a directory" in refused(tmp_path / "folder")
    assert "regular file" in refused(tmp_path / "fifo")
    assert "No such file or directory" in refused(tmp_path / "missing" / "state")
    assert "File name too long" in refused(tmp_path / ("x" * 255))
    with pytest.raises(SnapshotError, match="cannot be written"):
        save(Path("a\0b"), NEW)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "folder"]


def test_what_stands_in_the_way_of_the_part(tmp_path: Path) -> None:
    part = tmp_path / ".state.part"
    victim = tmp_path / "victim"
    victim.write_bytes(b"another file")
    os.link(victim, part)
    assert "in the way" in refused(tmp_path / "state")
    part.unlink()
    part.symlink_to("victim")
    assert "in the way" in refused(tmp_path / "state")
    part.unlink()
    os.mkfifo(part)
    assert "in the way" in refused(tmp_path / "state")
    assert victim.read_bytes() == b"another file"


def test_another_process_that_writes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    save(path, OLD)
    with replacing(str(path)) as handle:
        assert "another process" in refused(path)
        os.pwrite(handle, b"theirs", 0)
    assert path.read_bytes() == b"theirs"
    (tmp_path / ".state.part").write_bytes(b"left behind " * 100_000)
    save(path, NEW)
    assert load(path)[1].content == NEW.content
    assert os.listdir(tmp_path) == ["state"]


def test_a_part_that_is_renamed_between_its_opening_and_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, part, lock = tmp_path / "state", tmp_path / ".state.part", fcntl.flock

    def rename_first(handle: int, flags: int) -> None:
        if not path.exists():
            part.rename(path)
        lock(handle, flags)

    monkeypatch.setattr(fcntl, "flock", rename_first)
    save(path, NEW)
    assert load(path)[1].content == NEW.content


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    save(tmp_path / "folder/state", OLD)
    (tmp_path / "link").symlink_to("folder/state")
    save(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "folder/state")[1].content == NEW.content


def test_the_umask_counts(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        save(tmp_path / "state", NEW)
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "state").st_mode & 0o777 == 0o600


@pytest.mark.parametrize("writable", [False, True])
def test_a_disk_in_use_is_not_replaced(tmp_path: Path, writable: bool) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"content" * 1000)
    with RawFile(str(path), writable):
        assert "a machine has it as a disk" in refused(path)
    assert path.read_bytes() == b"content" * 1000
    save(path, NEW)
    assert load(path)[1].content == NEW.content
