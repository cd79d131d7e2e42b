"""``dbt cache``: what it prints, what it removes, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dbt.codecache.handlers import cached_image_name, image_key
from dbt.codecache.region_store import RegionStore
from dbt.codecache.store import write_file
from tests.cli.command import COMMAND, dbt, environment, paragraph
from tests.codecache.hosts import as_one_who_obeys, on_small_disk, run_in_background
from tests.codecache.samples import HOT_GUEST, hot_output, kept, save

#: A run that compiles in line. What it asks for does not depend on the regions that are there: stitched code would
#: count where regions leave it, so that runs beside each other ask for different ones.
COMPILING = ("run", "--tier", "auto", "--jit", "sync", "--without", "stitching", "--stats")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five regions of this version and one of another, no handlers, and files that are not dbt's."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("DBT_CACHE_DIR", str(directory))
    monkeypatch.delenv("DBT_CACHE_SIZE", raising=False)
    store = RegionStore(image_key())
    for entry in range(5):
        save(store, entry)
    save(RegionStore("old"), 0)
    write_file("notes.txt", b"not dbt's")
    write_file("regions-old/notes.txt", b"not dbt's")
    return directory


def test_info(cache: Path) -> None:
    text = dbt("cache", "info").stdout.decode()
    for words in (f"cache {cache}", "none: the next run builds them", "5 files, 20 KiB", "1 file, 4 KiB", "256.0 MiB"):
        assert words in text
    assert "leftovers" not in text
    assert (
        "64.0 MiB for regions, of which 24 KiB are used" in dbt("cache", "info", DBT_CACHE_SIZE="64M").stdout.decode()
    )


def test_info_fits_80_columns(cache: Path) -> None:
    for arguments in (
        ("cache",),
        ("cache", "info"),
        *(("cache", name, "--help") for name in ("info", "clear", "verify")),
    ):
        lines = dbt(*arguments, COLUMNS="80").stdout.decode().replace(str(cache), "").splitlines()
        assert lines and max(len(line.rstrip()) for line in lines) <= 80


def test_info_as_json(cache: Path) -> None:
    write_file(".handlers-key.img.abcd1234", bytes(5000))
    answer = json.loads(dbt("cache", "info", "--json").stdout)
    assert (answer["schema"], answer["directory"], answer["limit"]) == (1, str(cache), 256 << 20)
    amounts = {name: (group["files"], group["bytes"]) for name, group in answer.items() if isinstance(group, dict)}
    assert amounts == {
        "handlers": (0, 0), "regions": (5, 5 * 4096), "hot_lists": (0, 0), "linux_guests": (0, 0),
        "other_versions": (1, 4096), "leftovers": (1, 8192),
    }  # fmt: skip
    assert answer["regions"]["oldest"] <= answer["regions"]["newest"]
    assert answer["handlers"]["oldest"] is None


def test_clear_removes_what_is_dbts_and_nothing_else(cache: Path) -> None:
    write_file(cached_image_name(), b"handlers")
    write_file(".handlers-key.img.abcd1234", b"unfinished")
    assert dbt("cache", "clear", "--regions").stdout == b"removed 6 files, 24 KiB\n"
    left = {"notes.txt", "regions-old", cached_image_name(), ".handlers-key.img.abcd1234"}
    assert {path.name for path in cache.iterdir()} == left
    assert dbt("cache", "clear").stdout == b"removed 2 files, 8 KiB\n"
    assert {path.name for path in cache.iterdir()} == {"notes.txt", "regions-old"}
    assert [path.name for path in (cache / "regions-old").iterdir()] == ["notes.txt"]
    assert dbt("cache", "clear").stdout == b"there is nothing to remove\n"


def test_verify_names_what_is_damaged_and_removes_it_if_asked(cache: Path) -> None:
    assert dbt("cache", "verify").stdout == b"checked 6 files: good\n"
    write_file(cached_image_name(), b"this is no image")
    first, second, *others = kept()
    (cache / first.name).write_bytes((cache / first.name).read_bytes()[:-1])
    (cache / second.name).write_bytes(b"")
    done = dbt("cache", "verify")
    assert done.stdout.decode().splitlines() == [
        f"{cached_image_name()}: it is too short",
        f"{first.name}: its checksum does not match",
        f"{second.name}: its checksum does not match",
        "checked 7 files: 3 damaged",
    ]
    assert "--repair" in paragraph(done, 1)
    done = dbt("cache", "verify", "--repair")
    assert done.returncode == 0 and done.stdout.endswith(b"removed 3 files\n")
    assert kept() == others
    assert dbt("cache", "verify").stdout == b"checked 4 files: good\n"


def test_what_cannot_be_read_is_damaged(cache: Path) -> None:
    (cache / kept()[0].name).chmod(0)
    script = "from dbt.cli.app import run_app; print(int(run_app(['cache', 'verify'])))"
    lines = run_in_background(script, *as_one_who_obeys()).communicate()[0].splitlines()
    assert lines == [f"{kept()[0].name}: it cannot be read: Permission denied", "checked 6 files: 1 damaged", "1"]


def test_what_cannot_be_removed(cache: Path) -> None:
    folder = (cache / kept()[0].name).parent
    folder.chmod(0o555)
    script = (
        "import sys; sys.stderr = sys.stdout\nfrom dbt.cli.app import run_app; print(int(run_app(['cache', 'clear'])))"
    )
    try:
        lines = run_in_background(script, *as_one_who_obeys()).communicate()[0].splitlines()
    finally:
        folder.chmod(0o755)
    assert lines == [f"dbt: {cache}: 5 files cannot be removed: Permission denied.", "125"]


def test_a_directory_that_is_not_there() -> None:
    for command, words in (("info", b"none"), ("clear", b"nothing to remove"), ("verify", b"checked 0 files: good")):
        done = dbt("cache", command, DBT_CACHE_DIR="/nonexistent/cache")
        assert done.returncode == 0 and words in done.stdout


def test_a_wrong_command_line(hello: Path) -> None:
    assert "frob" in paragraph(dbt("cache", "frob"), 120)
    assert "--frob" in paragraph(dbt("cache", "clear", "--frob"), 120)
    for arguments in (("cache", "info"), ("run", "--tier", "auto", hello)):
        assert "DBT_CACHE_SIZE=lots" in paragraph(dbt(*arguments, DBT_CACHE_SIZE="lots"), 120)
    assert b"DBT_CACHE_SIZE=lots" in dbt("doctor", DBT_CACHE_SIZE="lots").stdout


def test_a_run_says_what_it_kept(only_handlers: Path) -> None:
    """And with what cannot be kept it goes on."""
    expected = hot_output()
    arguments = (*COMPILING, *HOT_GUEST)
    first = dbt(*arguments, DBT_CACHE_SIZE="0")
    assert first.stdout == expected and b"(File too large)" in first.stderr
    second = dbt(*arguments)
    assert second.stdout == expected and b"not kept" not in second.stderr
    third = dbt(*arguments)
    rows = {line[:20].strip(): line[20:].strip() for line in third.stderr.decode().splitlines()}
    assert third.stdout == expected and int(rows["regions from disk"]) > 1
    assert rows["regions compiled"] == rows["regions kept"] == "0"


def test_runs_at_once_and_runs_after_damage(only_handlers: Path) -> None:
    """Four processes fill one directory; then a byte of each of its files is flipped."""
    expected = hot_output()
    arguments = (*COMPILING, *HOT_GUEST)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: dbt(*arguments), range(4)))
    assert all((done.returncode, done.stdout) == (0, expected) for done in runs)
    assert dbt("cache", "verify").returncode == 0
    for entry in kept():
        path = only_handlers / entry.name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert dbt("cache", "verify").returncode == 1
    done = dbt(*arguments)
    assert (done.returncode, done.stdout) == (0, expected)
    assert dbt("cache", "verify").returncode == 0


def test_a_run_goes_on_when_the_disk_is_full(only_handlers: Path, tmp_path: Path) -> None:
    """There is room for the handlers and two or three blocks."""
    size = (only_handlers / cached_image_name()).stat().st_size + 12_000
    expected = hot_output()
    disk = tmp_path / "disk"
    disk.mkdir()
    prepare = ["sh", "-c", f'cp {only_handlers}/handlers-*.img "{disk}" && exec "$@"', "sh"]
    run = [*COMMAND, "run", "--tier", "auto", "--jit", "sync", "--stats", *HOT_GUEST]
    done = subprocess.run(
        [*on_small_disk(disk, str(size)), *prepare, *run],
        capture_output=True, env=environment(DBT_CACHE_DIR=str(disk)), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, expected)
    assert b"(No space left on device)" in done.stderr


def test_a_run_uses_a_directory_that_may_only_be_read(only_handlers: Path) -> None:
    run = [*COMMAND, "run", "--tier", "auto", "--jit", "sync", "--stats", *HOT_GUEST]
    only_handlers.chmod(0o555)
    try:
        done = subprocess.run([*as_one_who_obeys(), *run], capture_output=True, env=environment(), check=False)
    finally:
        only_handlers.chmod(0o755)
    assert done.returncode == 0 and b"(Permission denied)" in done.stderr and b"building" not in done.stderr
