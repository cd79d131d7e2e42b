"""The store of regions: what is kept is found, what is damaged is not, and a directory that refuses costs nothing."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dbt.abi.addresses import Gpa, Gva
from dbt.codecache.contents import Kind, damage
from dbt.codecache.handlers import _SOURCES
from dbt.codecache.region_store import KEPT_PER_FILE, RegionStore
from dbt.codecache.store import USE_RESOLUTION
from dbt.engine.region_tier import RegionTier
from tests.assembler import assemble
from tests.codecache.hosts import ROOT, as_one_who_obeys, on_small_disk, run_in_background
from tests.codecache.samples import CONTEXT, guest_bytes, kept, load, region, save
from tests.oracle.programs import ENTRY, SmallMachine


def test_what_is_kept_is_found_again_under_its_own_name_only(empty_cache: Path) -> None:
    save(RegionStore("key"), 0x8000)
    assert load(RegionStore("key"), 0x8000) == [region(0x8000)]
    assert load(RegionStore("other"), 0x8000) == []
    assert list(RegionStore("key").load(Gpa(0x8004), guest_bytes(0x8000), CONTEXT)) == []
    assert list(RegionStore("key").load(Gpa(0x8000), bytes(32), CONTEXT)) == []


def test_functions_that_are_alike_are_told_apart(empty_cache: Path) -> None:
    """The same words, at more addresses than a file holds regions."""
    store = RegionStore("key")
    entries = range(0, 16 * KEPT_PER_FILE, 4)
    for entry in entries:
        store.save(region(entry), bytes(32))
    assert [list(store.load(Gpa(entry), bytes(32), CONTEXT)) for entry in entries] == [
        [region(entry)] for entry in entries
    ]


def test_programs_that_begin_alike_do_not_displace_each_other(empty_cache: Path) -> None:
    store = RegionStore("key")
    for version in range(KEPT_PER_FILE + 2):
        save(store, 0x8000, version=version)
        save(store, 0x8000, version=version)
    newest_first = range(KEPT_PER_FILE + 1, 1, -1)
    assert load(store, 0x8000) == [region(0x8000, version=version) for version in newest_first]
    save(store, 0x8000, version=3)
    assert load(store, 0x8000)[0] == region(0x8000, version=3)
    assert len(load(store, 0x8000)) == KEPT_PER_FILE
    assert len(kept()) == 1


def test_every_flipped_byte_and_truncation_is_noticed_and_replaced(empty_cache: Path) -> None:
    store = RegionStore("key")
    save(store, 0x8000, size=50)
    (entry,) = kept()
    path = empty_cache / entry.name
    good = path.read_bytes()
    for place in range(len(good)):
        for bad in (good[:place] + bytes([good[place] ^ 0x20]) + good[place + 1 :], good[:place]):
            path.write_bytes(bad)
            assert damage(entry), place
            # A record whose bytes all are as they were may be used although something beside it is not.
            assert load(store, 0x8000) in ([], [region(0x8000, 50)]), place
            save(store, 0x8000, size=50)
            assert path.read_bytes() == good, place
    assert damage(entry) is None


def test_a_damaged_region_leaves_those_beside_it(empty_cache: Path) -> None:
    store = RegionStore("key")
    for version in range(3):
        save(store, 0x8000, version=version)
    path = empty_cache / kept()[0].name
    data = bytearray(path.read_bytes())
    data[data.index(region(0x8000, version=1).code)] ^= 1
    path.write_bytes(data)
    assert load(store, 0x8000) == [region(0x8000, version=2), region(0x8000)]
    save(store, 0x8000, version=1)
    assert load(store, 0x8000) == [region(0x8000, version=version) for version in (1, 2, 0)]


def test_writers_at_once_leave_whole_files(empty_cache: Path) -> None:
    """Threads, and processes that know nothing of each other."""
    script = (
        "from dbt.codecache.region_store import RegionStore\n"
        "from tests.codecache.samples import save\n"
        "store = RegionStore('key')\n"
        "for turn in range(150): save(store, turn % 10, 20_000, turn % 3)\n"
        "print(store.counts.saved, store.counts.failed)\n"
    )
    processes = [run_in_background(script) for _ in range(2)]
    store = RegionStore("key")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda turn: save(store, turn % 10, 20_000, turn % 3), range(200)))
    for process in processes:
        assert process.communicate()[0] == "150 0\n"
    assert (store.counts.saved, store.counts.failed) == (200, 0)
    for entry in range(10):
        found = load(store, entry)
        assert found, entry
        assert all(some in [region(entry, 20_000, version) for version in range(3)] for some in found)
    assert [damage(entry) for entry in kept()] == [None] * 10
    assert kept(Kind.LEFTOVER) == []


def test_a_region_that_is_used_says_when(empty_cache: Path) -> None:
    store = RegionStore("key")
    save(store, 0x8000)
    path = empty_cache / kept()[0].name
    for age in (USE_RESOLUTION * 2, -USE_RESOLUTION * 2):  # the host's clock may have been put back
        os.utime(path, (time.time() - age, time.time() - age))
        assert load(store, 0x8000)
        assert abs(path.stat().st_mtime - time.time()) < 60
    recent = time.time() - USE_RESOLUTION / 2
    os.utime(path, (recent, recent))
    assert load(store, 0x8000)
    assert abs(path.stat().st_mtime - recent) < 1, "to write the time each time takes longer than to load"


# -- directories that refuse -----------------------------------------------------------------------


def test_a_directory_that_cannot_be_made_is_done_without(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_cache.write_text("this is a file")
    store = RegionStore("key")
    save(store, 0x8000)
    assert load(store, 0x8000) == []
    assert (store.counts.saved, store.counts.failed) == (0, 1)
    assert store.counts.reason in ("Not a directory", "File exists")


def test_a_folder_in_the_place_of_a_file_is_done_without(empty_cache: Path) -> None:
    store = RegionStore("key")
    save(store, 0x8000)
    path = empty_cache / kept()[0].name
    path.unlink()
    path.mkdir()
    assert load(store, 0x8000) == []
    save(store, 0x8000)
    assert (store.counts.saved, store.counts.failed) == (1, 1)
    assert kept(Kind.LEFTOVER) == []


def test_a_directory_that_may_only_be_read_is_used(empty_cache: Path) -> None:
    save(RegionStore("key"), 0x8000)
    path = empty_cache / kept()[0].name
    os.utime(path, (1000, 1000))
    for directory in (path.parent, empty_cache):
        directory.chmod(0o555)
    script = (
        "from dbt.codecache.region_store import RegionStore\n"
        "from tests.codecache.samples import load, region, save\n"
        "store = RegionStore('key')\n"
        "assert load(store, 0x8000) == [region(0x8000)]\n"
        "save(store, 0x8000, version=1)\n"
        "save(store, 0x9000)\n"
        "print(store.counts.saved, store.counts.failed, store.counts.reason)\n"
    )
    try:
        assert run_in_background(script, *as_one_who_obeys()).communicate()[0] == "0 2 Permission denied\n"
    finally:
        for directory in (path.parent, empty_cache):
            directory.chmod(0o755)
    assert load(RegionStore("key"), 0x8000) == [region(0x8000)]
    assert len(kept()) == 1


def test_a_file_that_grows_too_large_is_removed_and_counted(empty_cache: Path) -> None:
    """RLIMIT_FSIZE: the write fails when a part of the file is there, as on a full disk."""
    script = (
        "import resource\n"
        "from dbt.codecache.region_store import RegionStore\n"
        "from tests.codecache.samples import load, save\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "store = RegionStore('key')\n"
        "for entry, size in ((4, 20_000), (8, 5_000), (12, 200_000)): save(store, entry, size)\n"
        "assert load(store, 4) == load(store, 12) == []\n"
        "assert load(store, 8)\n"
        "print(store.counts.saved, store.counts.failed, store.counts.reason)\n"
    )
    assert run_in_background(script).communicate()[0] == "1 2 File too large\n"
    assert len(kept()) == 1 and kept(Kind.LEFTOVER) == []


def test_a_full_disk_is_done_without(empty_cache: Path) -> None:
    """A file system of 256 KiB, mounted where only the child sees it."""
    script = (
        "import os\n"
        "from dbt.codecache.contents import Kind, damage\n"
        "from dbt.codecache.region_store import RegionStore\n"
        "from tests.codecache.samples import kept, load, region, save\n"
        "store = RegionStore('key')\n"
        "for entry in range(20): save(store, entry, 30_000)\n"
        "found = [load(store, entry) for entry in range(20)]\n"
        "assert all(some in ([], [region(entry, 30_000)]) for entry, some in enumerate(found))\n"
        "assert store.counts.saved == sum(map(len, found)) == 20 - store.counts.failed\n"
        "assert 4 <= store.counts.saved <= 8\n"
        "assert not kept(Kind.LEFTOVER) and not any(map(damage, kept()))\n"
        "os.unlink(os.environ['DBT_CACHE_DIR'] + '/' + kept()[0].name)\n"
        "save(store, 100, 10_000)\n"
        "assert load(store, 100)\n"
        "print(store.counts.reason)\n"
    )
    empty_cache.mkdir()
    assert (
        run_in_background(script, *on_small_disk(empty_cache, "256k")).communicate()[0] == "No space left on device\n"
    )


# -- the key -----------------------------------------------------------------------------------------


def test_the_key_covers_everything_that_code_is_made_by() -> None:
    """Whatever the backend and the frontend import of ours is a source that the key is a hash of."""
    script = (
        "import sys\n"
        "import dbt.backend.build, dbt.backend.compile_region\n"
        "for module in list(sys.modules.values()):\n"
        "    if module.__name__.partition('.')[0] in ('dbt', 'isa'): print(module.__file__)\n"
    )
    files = [Path(line).relative_to(ROOT) for line in run_in_background(script).communicate()[0].split()]
    assert len(files) > 25
    sources = [Path(source) for source in _SOURCES]
    for file in files:
        if (ROOT / file).stat().st_size and file != Path("dbt/__init__.py"):
            assert any(file.is_relative_to(source) for source in sources), f"{file} is not in the key"


def run_loop(passes: int) -> tuple[RegionTier, SmallMachine]:
    machine = SmallMachine("threaded", assemble(f"mov r5, #{passes}; loop: subs r5, r5, #1; bne loop; svc #0", ENTRY))
    machine.tier = tier = RegionTier(machine.cpu, machine.memory, jit="sync")
    machine.advance(20)
    return tier, machine


def test_what_was_kept_is_installed_before_it_is_hot(only_handlers: Path) -> None:
    tier, _ = run_loop(1000)
    assert tier.compile_now(Gva(ENTRY + 4))
    tier.close()
    tier, machine = run_loop(1000)
    machine.advance(10_000)
    assert machine.ended and (tier.regions.counts.loaded, tier.regions.counts.compiled) == (1, 0)
    assert tier.retired["region"] > 1500
