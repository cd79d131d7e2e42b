"""Nothing that somebody else could have written is executed, and a run goes on without it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbt.cli import doctor
from dbt.codecache import handlers, store
from dbt.codecache.contents import entries
from dbt.codecache.region_store import RegionStore
from tests.cli.command import dbt, paragraph
from tests.codecache.samples import HOT_GUEST, hot_output, load, region, save

STRANGER = 1234
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with an image, and a region of the same key; what would be compiled is the same image."""
    image = handlers.load_image(lambda _: None).pack()
    monkeypatch.setenv("DBT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("DBT_CACHE_SIZE", raising=False)
    monkeypatch.setattr(handlers, "compile_image", lambda: image)
    handlers.load_image(lambda _: None)
    save(RegionStore(handlers.image_key()), 0x8000)
    return tmp_path / "cache"


def give_away(path: Path) -> None:
    os.chown(path, STRANGER, -1, follow_symlinks=False)


def let_the_group_write(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWGRP)


def let_others_write(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWOTH)


def let_others_write_but_not_remove(path: Path) -> None:
    path.chmod(0o1777)


OPENINGS = [
    pytest.param(give_away, "belongs to user 1234", marks=as_root),
    (let_the_group_write, "others may write"),
    (let_others_write, "others may write"),
]


@pytest.mark.parametrize(("open_up", "why"), [*OPENINGS, (let_others_write_but_not_remove, "(mode 1777)")])
def test_a_directory_of_others_is_not_used(cache: Path, open_up: Callable[[Path], None], why: str) -> None:
    before = {entry.name: (cache / entry.name).read_bytes() for entry in entries()}
    open_up(cache)
    lines: list[str] = []
    assert handlers.load_image(lines.append).code
    (line,) = lines
    assert str(cache) in line and why in line and "DBT_CACHE_DIR" in line
    kept = RegionStore(handlers.image_key())
    assert load(kept, 0x8000) == []
    save(kept, 0x9000)
    assert (kept.counts.failed, kept.counts.reason) == (1, "Operation not permitted")
    assert {entry.name: (cache / entry.name).read_bytes() for entry in entries()} == before


@pytest.mark.parametrize(("open_up", "why"), OPENINGS)
def test_a_folder_of_others_is_not_used(cache: Path, open_up: Callable[[Path], None], why: str) -> None:
    folder = cache / f"regions-{handlers.image_key()}"
    open_up(folder)
    lines: list[str] = []
    handlers.load_image(lines.append)
    (line,) = lines
    assert str(folder) in line and why in line and "dbt cache clear" in line
    kept = RegionStore(handlers.image_key())
    assert load(kept, 0x8000) == []
    save(kept, 0x9000)
    assert kept.counts.failed == 1
    assert dbt("cache", "clear").stdout.startswith(b"removed 2 files")
    save(kept, 0x8000)
    assert load(kept, 0x8000) == [region(0x8000)]


@pytest.mark.parametrize(("open_up", "why"), OPENINGS)
def test_a_file_of_others_is_not_used_and_replaced(cache: Path, open_up: Callable[[Path], None], why: str) -> None:
    for entry in entries():
        open_up(cache / entry.name)
    kept = RegionStore(handlers.image_key())
    assert load(kept, 0x8000) == []
    done = dbt("cache", "verify")
    assert done.returncode == 1 and done.stdout.decode().count(why) == 2
    lines: list[str] = []
    handlers.load_image(lines.append)
    (line,) = lines
    assert handlers.cached_image_name() in line and why in line
    save(kept, 0x8000)
    assert load(kept, 0x8000) == [region(0x8000)]
    assert handlers.load_image(lines.append) and len(lines) == 1
    assert dbt("cache", "verify").returncode == 0


@as_root
def test_a_run_with_the_cache_of_another_user(cache: Path) -> None:
    """As root with the HOME of a user: what that user may write is not executed, and nothing is put there."""
    for path in (cache, *cache.rglob("*")):
        give_away(path)
    before = sorted(cache.rglob("*"))
    done = dbt("run", *HOT_GUEST)
    assert (done.returncode, done.stdout) == (0, hot_output())
    assert done.stderr.decode().count("\n") == 1 and b"belongs to user 1234" in done.stderr
    assert sorted(cache.rglob("*")) == before
    assert "belongs to user 1234" in paragraph(dbt("cache", "verify"), 1)
    assert "belongs to user 1234" in paragraph(dbt("cache", "info"), 0)
    assert "Nothing is removed" in paragraph(dbt("cache", "clear"), 125)
    assert sorted(cache.rglob("*")) == before


@as_root
def test_doctor_builds_the_translator_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = iter([handlers.compile_image()])
    monkeypatch.setattr(handlers, "compile_image", lambda: next(images))
    give_away(cache)
    with pytest.raises(doctor.Problem, match="belongs to user 1234"):
        doctor._check_cache()
    found = [check() for name, check in doctor._checks() if name.startswith("tier")]
    assert len(found) == 4 and "compiles regions" in found[-1]
    assert next(images, None) is None and os.environ["DBT_CACHE_DIR"] == str(cache)


@pytest.fixture
def public_place() -> Iterator[Path]:
    """A directory that every user can get to."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@as_root
def test_what_root_has_put_there_is_used_by_others(cache: Path, public_place: Path) -> None:
    shared = public_place / "cache"
    shutil.copytree(cache, shared)
    for path in (shared, *shared.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.environ["DBT_CACHE_DIR"] = str(shared)
            os.seteuid(STRANGER)
            kept = RegionStore(handlers.image_key())
            found = load(kept, 0x8000)
            save(kept, 0x9000)
            status = found == [region(0x8000)] and kept.counts.reason == "Permission denied"
        finally:
            os._exit(not status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_symbolic_link_leads_to_a_directory_of_ones_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = cache.with_name("link")
    link.symlink_to(cache)
    monkeypatch.setenv("DBT_CACHE_DIR", str(link))
    assert load(RegionStore(handlers.image_key()), 0x8000) == [region(0x8000)]
    if os.geteuid() == 0:
        give_away(link)
        assert load(RegionStore(handlers.image_key()), 0x8000) == []


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
def test_what_is_made_is_for_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    monkeypatch.setenv("DBT_CACHE_DIR", str(tmp_path / "above" / "cache"))
    before = os.umask(umask)
    try:
        save(RegionStore("key"), 0x8000)
        store.write_file("handlers-0.img", b"image")
    finally:
        os.umask(before)
    made = list((tmp_path / "above").rglob("*"))
    assert len(made) == 4
    for path in (tmp_path / "above", *made):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def place_fifo(path: Path) -> None:
    os.mkfifo(path)


def place_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def place_link_to_copy(path: Path) -> None:
    original = path.with_name("original")
    path.symlink_to(original)


def place_terminal(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make devices")
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(5, 0))  # a process's terminal
    except PermissionError:
        pytest.skip("this host lets nobody make devices")


@pytest.mark.parametrize("place", [place_fifo, place_link_to_device, place_link_to_copy, place_terminal])
def test_what_is_no_file_does_not_hang(cache: Path, place: Callable[[Path], None]) -> None:
    names = [entry.name for entry in entries()]
    for name in names:
        (cache / name).rename(cache / "original")
        place(cache / name)
    for command in (("info",), ("verify",), ("verify", "--repair"), ("clear",)):
        assert dbt("cache", *command).returncode == 0, command
    kept = RegionStore(handlers.image_key())
    assert load(kept, 0x8000) == [] and store.read_file(handlers.cached_image_name()) is None
    handlers.load_image(lambda _: None)
    save(kept, 0x8000)
    assert load(kept, 0x8000) == [region(0x8000)]
    assert dbt("cache", "verify").stdout == b"checked 2 files: good\n"
