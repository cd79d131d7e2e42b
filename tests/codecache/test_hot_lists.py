"""Hot lists on disk: trusted and limited as regions are, and replaced in one step."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbt.codecache import hot_list_store
from dbt.codecache.contents import Kind, damage
from dbt.codecache.hot_list_store import MOST_PARTS, HotListStore
from tests.codecache.hosts import ROOT, on_small_disk
from tests.codecache.samples import kept

PROGRAM = bytes(range(32))


def file_of(cache: Path) -> Path:
    return cache / "regions-key" / f"{PROGRAM[:16].hex()}.hot"


def test_a_list_is_there_for_its_program_and_version_only(empty_cache: Path) -> None:
    store = HotListStore("key")
    assert store.load(PROGRAM) == []
    assert store.save(PROGRAM, [b"one", b"two"])
    assert store.load(PROGRAM) == HotListStore("key").load(PROGRAM) == [b"one", b"two"]
    assert store.load(PROGRAM[::-1]) == HotListStore("other").load(PROGRAM) == []
    assert file_of(empty_cache).stat().st_mode & 0o777 == 0o600
    assert [entry.kind for entry in kept(Kind.HOT_LIST)] == [Kind.HOT_LIST]


def test_a_list_of_nothing_removes_the_file(empty_cache: Path) -> None:
    store = HotListStore("key")
    assert not store.save(PROGRAM, [])
    assert store.save(PROGRAM, [b"one"])
    assert not store.save(PROGRAM, [])
    assert not file_of(empty_cache).exists()


def test_of_many_parts_the_first_are_kept(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HotListStore("key")
    parts = [bytes([number]) for number in range(MOST_PARTS + 2)]
    store.save(PROGRAM, parts)
    assert store.load(PROGRAM) == parts[:MOST_PARTS]
    monkeypatch.setattr(hot_list_store, "MOST_BYTES", 10)
    store.save(PROGRAM, [b"1234", b"1234567", b"12"])
    assert store.load(PROGRAM) == [b"1234"]


def test_a_damaged_part_is_not_there(empty_cache: Path) -> None:
    HotListStore("key").save(PROGRAM, [b"one", b"two", b"three"])
    file = file_of(empty_cache)
    data = file.read_bytes()
    file.write_bytes(data.replace(b"two", b"twO"))
    assert HotListStore("key").load(PROGRAM) == [b"one", b"three"]
    assert damage(kept(Kind.HOT_LIST)[0]) == "its checksum does not match"
    for cut in range(len(data)):
        file.write_bytes(data[:cut])
        assert HotListStore("key").load(PROGRAM) in ([], [b"one"], [b"one", b"two"])


def test_a_file_that_others_may_write_is_not_used(empty_cache: Path) -> None:
    store = HotListStore("key")
    for path in (file_of(empty_cache), empty_cache / "regions-key", empty_cache):
        store.save(PROGRAM, [b"one"])
        mode = path.stat().st_mode
        path.chmod(mode | 0o020)
        assert store.load(PROGRAM) == []
        path.chmod(mode & 0o777)
        assert store.load(PROGRAM) == [b"one"]
    file_of(empty_cache).unlink()
    os.mkfifo(file_of(empty_cache))
    assert store.load(PROGRAM) == []


def test_lists_count_towards_the_limit(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_CACHE_SIZE", "16K")
    store = HotListStore("key")
    for number in range(20):
        assert store.save(number.to_bytes(16, "little"), [bytes(4000)])
    assert 2 <= len(kept(Kind.HOT_LIST)) <= 4
    assert not store.save(PROGRAM, [bytes(16384)]), "it is larger than the limit"
    monkeypatch.setenv("DBT_CACHE_SIZE", "0")
    assert not HotListStore("key").save(PROGRAM, [b"one"])


def test_a_list_that_cannot_be_written_leaves_the_old_one(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = HotListStore("key")
    store.save(PROGRAM, [b"old"])

    def fail(name: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hot_list_store, "write_file", fail)
    assert not store.save(PROGRAM, [b"new"])
    assert store.load(PROGRAM) == [b"old"]


def test_a_full_disk_keeps_the_old_list_and_no_leftover(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "from dbt.codecache.hot_list_store import HotListStore\n"
        "from dbt.codecache.contents import entries\n"
        "store = HotListStore('key')\n"
        "print(store.save(bytes(16), [b'old']), store.save(bytes(16), [bytes(1 << 20)]), store.load(bytes(16)))\n"
        "print(len(list(entries())))\n"
    )
    place = tmp_path / "disk"
    place.mkdir()
    command = [*on_small_disk(place, "64k"), "env", f"DBT_CACHE_DIR={place}", f"PYTHONPATH={ROOT}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == "True False [b'old']\n1\n"
