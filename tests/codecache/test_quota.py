"""The limit on what is kept: what was used least recently goes first, and nothing that is not dbt's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dbt.abi.addresses import Gpa
from dbt.codecache.contents import Kind
from dbt.codecache.quota import KEPT_VERSIONS
from dbt.codecache.region_store import RegionStore
from dbt.codecache.store import DEFAULT_LIMIT, WrongCacheSize, cache_limit, write_file
from tests.codecache.samples import CONTEXT, guest_bytes, kept, load, save

#: The blocks that a region of 3000 bytes takes.
BLOCK = 4096


def limit(monkeypatch: pytest.MonkeyPatch, files: float) -> None:
    monkeypatch.setenv("DBT_CACHE_SIZE", str(int(files * BLOCK)))


def path_of(empty_cache: Path, entry: int) -> Path:
    return empty_cache / "regions-key" / RegionStore("key")._name(Gpa(entry), guest_bytes(entry), CONTEXT)


def test_the_least_recently_used_go_first(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RegionStore("key")
    for entry in range(8):
        save(store, entry)
    for entry, hours in {0: 10, 1: 50, 2: 20, 3: 40, 4: 30, 5: 5, 6: 3, 7: 60}.items():
        os.utime(path_of(empty_cache, entry), (time.time() - 3600 * hours,) * 2)
    assert load(store, 7), "which is used now"
    limit(monkeypatch, 8)
    store = RegionStore("key")
    for new, gone in ((100, {1}), (101, {1, 3}), (102, {1, 3, 4})):
        save(store, new)
        assert {entry for entry in range(8) if not path_of(empty_cache, entry).exists()} == gone
        assert path_of(empty_cache, new).exists()
    assert store.counts.evicted == 3


def test_below_the_limit_nothing_goes(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 16)
    for entry in range(16):
        save(RegionStore("key"), entry)
        assert len(kept()) == entry + 1
    save(RegionStore("key"), 16)
    assert len(kept()) == 15


@pytest.mark.parametrize("files", [1, 3, 8, 20, 100])
def test_the_limit_is_kept_all_the_time(empty_cache: Path, monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    limit(monkeypatch, files)
    store = RegionStore("key")
    for number in range(150):
        save(store, number % 130, size=3000 if number % 3 else 100)
        assert sum(entry.size for entry in kept()) <= files * BLOCK
        assert load(store, number % 130), "what has just been kept is there"
    assert store.counts.saved == 150
    assert len(kept()) >= files * 7 // 8


def test_two_stores_exceed_the_limit_by_their_shares_at_most(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 64)
    stores = [RegionStore("key"), RegionStore("key")]
    most = 0
    for number in range(400):
        save(stores[number % 2], number)
        most = max(most, len(kept()))
    assert 56 <= most <= 64 + 2 * 8


def test_a_lower_limit_takes_effect_at_the_next_write(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RegionStore("key")
    for entry in range(20):
        save(store, entry)
    limit(monkeypatch, 5)
    save(RegionStore("key"), 100)
    assert len(kept()) == 5


def test_a_region_larger_than_the_limit_displaces_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 5)
    store = RegionStore("key")
    for entry in range(5):
        save(store, entry)
    save(store, 100, size=6 * BLOCK)
    assert (store.counts.failed, store.counts.evicted, store.counts.reason) == (1, 0, "File too large")
    assert len(kept()) == 5


def test_a_limit_of_nothing_writes_nothing_and_removes_nothing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(RegionStore("key"), 4)
    before = kept()
    limit(monkeypatch, 0)
    store = RegionStore("key")
    save(store, 8)
    assert kept() == before
    assert (store.counts.failed, store.counts.evicted) == (1, 0)


def test_files_of_old_versions_are_removed(empty_cache: Path) -> None:
    """All of those that were not used lately, whatever their number; even below the limit."""
    for version in range(9):
        store = RegionStore(f"old{version}")
        for number in range(3):
            save(store, number)
        for entry in kept():
            if entry.key == f"old{version}":
                os.utime(empty_cache / entry.name, (1000 + version, 1000 + version))
    store = RegionStore("key")
    save(store, 4)
    newest = {f"old{version}" for version in range(9 - KEPT_VERSIONS + 1, 9)}
    assert {entry.key for entry in kept()} == {"key"} | newest
    assert {path.name for path in empty_cache.iterdir()} == {f"regions-{key}" for key in newest | {"key"}}


def test_what_killed_processes_left_is_removed_when_it_is_old(empty_cache: Path) -> None:
    save(RegionStore("key"), 4)
    old = ["regions-key/." + "a" * 32 + ".abcd1234", ".handlers-key.img.abcd1234", "region-" + "b" * 32]
    new = ["regions-key/." + "c" * 32 + ".abcd1234"]
    foreign = ["notes.txt", "regions-key/notes.txt", "regions-key/" + "A" * 32, "handlers-key.img.bak", ".hidden"]
    for name in (*old, *new, *foreign):
        write_file(name, b"text")
        if name not in new:
            os.utime(empty_cache / name, (1000, 1000))
    save(RegionStore("key"), 8)
    assert [entry.name for entry in kept(Kind.LEFTOVER)] == new
    assert all((empty_cache / name).exists() for name in foreign)
    assert len(kept()) == 2


def test_links_are_not_followed(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "regions-outside"
    outside.mkdir()
    (outside / ("a" * 32)).write_text("precious")
    save(RegionStore("key"), 4)
    (empty_cache / "regions-link").symlink_to(outside)
    (empty_cache / "regions-key" / ("b" * 32)).symlink_to(outside / ("a" * 32))
    limit(monkeypatch, 1)
    save(RegionStore("key"), 8)
    assert (outside / ("a" * 32)).read_text() == "precious"
    assert (empty_cache / "regions-key" / ("b" * 32)).is_symlink(), "which dbt did not make"
    assert [entry.name for entry in kept()] == [str(path_of(empty_cache, 8).relative_to(empty_cache))]


@pytest.mark.parametrize(
    ("text", "size"),
    [("", DEFAULT_LIMIT), ("0", 0), ("4096", 4096), ("64k", 64 << 10), ("256M", 256 << 20), ("2G", 2 << 30)],
)
def test_sizes(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("DBT_CACHE_SIZE", text)
    assert cache_limit() == size


@pytest.mark.parametrize("text", ["lots", "-1", "1.5G", "10 M", "M", "0x100", "1T", "256MB", "٣", " "])
def test_what_is_no_size(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DBT_CACHE_SIZE", text)
    with pytest.raises(WrongCacheSize, match=r"write for example 256M"):
        RegionStore("key")
