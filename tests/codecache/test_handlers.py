"""The handlers' image on disk: built once, checked, replaced atomically, done without if need be."""

from __future__ import annotations

import os
import pwd
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import llvmlite
import pytest

from dbt.backend.image import Image, ImageDamaged
from dbt.codecache import handlers, store
from tests.codecache.hosts import ROOT
from tests.codecache.samples import HOT_GUEST, hot_output


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, and a compiler that gives back the image built before."""
    image = handlers.load_image(lambda _: None).pack()
    monkeypatch.setenv("DBT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(handlers, "compile_image", lambda: image)
    return tmp_path / "cache"


def test_a_missing_image_is_built_and_kept(cache: Path, lines: list[str]) -> None:
    first = handlers.load_image(lines.append)
    assert len(lines) == 1
    assert "building" in lines[0]
    assert handlers.load_image(lines.append) == first
    assert len(lines) == 1
    assert [path.name for path in cache.iterdir()] == [handlers.cached_image_name()]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign"])
def test_a_damaged_image_is_noticed_and_replaced(cache: Path, lines: list[str], damage: str) -> None:
    handlers.load_image(lines.append)
    path = cache / handlers.cached_image_name()
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(
        {
            "flip": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
            "truncate": good[:middle],
            "empty": b"",
            "foreign": b"\x7fELF" * 1000,
        }[damage]
    )
    handlers.load_image(lines.append)
    assert "damaged" in lines[-1]
    assert path.read_bytes() == good


def test_every_flipped_byte_is_detected(cache: Path) -> None:
    data = handlers.load_image(lambda _: None).pack()
    for place in range(0, len(data), len(data) // 200):
        with pytest.raises(ImageDamaged):
            Image.unpack(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])


def test_a_directory_that_cannot_be_made_is_done_without(
    cache: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DBT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert handlers.load_image(lines.append).code
    said = f"cannot write to {tmp_path}/file/cache (Not a directory). Let DBT_CACHE_DIR name a directory that you may"
    assert lines[-1] == f"the translator is built at every start: {said} write"


def test_a_full_disk_is_done_without(cache: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert handlers.load_image(lines.append).code
    assert "No space left" in lines[-1]
    assert not list(cache.iterdir()), "the temporary file was left behind"


def test_two_writers_at_once_leave_a_whole_file(cache: Path) -> None:
    payloads = [bytes([n]) * 300_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: store.write_file("shared", data), payloads * 5))
    assert store.read_file("shared") in payloads
    assert len(list(cache.iterdir())) == 1


def test_images_of_old_versions_are_removed(cache: Path) -> None:
    for age in range(9):
        store.write_file(f"handlers-{age}.img", b"old")
        os.utime(cache / f"handlers-{age}.img", (1000 - age, 1000 - age))
    handlers.load_image(lambda _: None)
    left = {path.name for path in cache.iterdir()}
    assert left == {handlers.cached_image_name(), "handlers-0.img", "handlers-1.img", "handlers-2.img"}


def test_the_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DBT_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_directory() == f"{tmp_path}/dbt"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert store.cache_directory() == "/home/someone/.cache/dbt"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError("there is no such user")

    for name in ("DBT_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert store.cache_directory() == "/.cache/dbt"
    monkeypatch.setenv("HOME", "")
    assert store.cache_directory() == "/.cache/dbt"


def test_a_compiler_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBT_CACHE_DIR", str(tmp_path))
    (tmp_path / "llvmlite.py").write_text("raise ImportError('no LLVM here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(handlers.HandlersUnavailable, match="--tier reference"):
        handlers.load_image(lambda _: None)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ("u.reg[f.rd] = u.reg[f.rm].bit(0)", "SemanticsError: .* is 1 bits wide where 32 are wanted"),
        ("u.reg[f.rd] = f.absent", "AttributeError: .* has no attribute 'absent'"),
    ],
)
def test_a_wrong_instruction_is_named(monkeypatch: pytest.MonkeyPatch, wrong: str, cause: str) -> None:
    """The compiler is not to blame, so nobody is sent to look at it."""
    planted = f"""
from isa.arm.a32.registry import insn
@insn("1110 0111 1111 1111 1111 rd:4 1101 rm:4", syntax="WRONG <Rd>, <Rm>", section="none")
def wrong(u, f):
    {wrong}
"""
    monkeypatch.setattr(handlers, "_BUILDER", planted + handlers._BUILDER)
    with pytest.raises(handlers.HandlersUnavailable, match=rf"{cause}, in WRONG \(.*, wrong at line \d+\)\n") as caught:
        handlers.compile_image()
    assert "llvmlite" not in str(caught.value) and any("Traceback" in note for note in caught.value.__notes__)


def test_patterns_that_overlap_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = """
from isa.ir.registry import Registry
build = Registry.build_decoder
def build_decoder(registry):
    registry.insn("cond:4 0110 1111 (1111) rd:4 (1111) 0011 rm:4", syntax="AGAIN <Rd>, <Rm>", section="none")(print)
    return build(registry)
Registry.build_decoder = build_decoder
"""
    monkeypatch.setattr(handlers, "_BUILDER", planted + handlers._BUILDER)
    with pytest.raises(handlers.HandlersUnavailable, match=r"from the sources .*: .*RBIT .* and AGAIN .* overlap"):
        handlers.compile_image()


@pytest.mark.parametrize("python_path", [None, "", f"{ROOT}", f"{os.pathsep}{ROOT}{os.pathsep}"])
def test_nothing_comes_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_path: str | None
) -> None:
    """Modules of the standard library, of LLVM and of our own that lie there are not executed by the builder."""
    planted = "import os; os.write(2, b'planted'); os._exit(77)\n"
    for name in ("struct", "array", "hashlib", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(planted)
    for name in ("dbt", "isa", "llvmlite"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(planted)
    monkeypatch.chdir(tmp_path)
    if python_path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", python_path)
    monkeypatch.setattr(handlers, "_BUILDER", handlers._BUILDER.replace("write_image(die_with)", "print(write_image)"))
    assert handlers.compile_image().startswith(b"<function write_image")


def test_the_command_does_not_take_modules_from_the_current_directory(only_handlers: Path, tmp_path: Path) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit(77)")
    (tmp_path / "llvmlite.py").write_text("raise SystemExit(77)")
    run = [sys.executable, "-m", "dbt", "run", *HOT_GUEST]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, check=False, capture_output=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (0, hot_output()), done.stderr


def test_the_builder_does_not_take_modules_from_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit(77)")
    (tmp_path / "llvmlite.py").write_text("raise SystemExit(77)")
    script = (
        "from dbt.codecache import handlers\n"
        "names = 'import llvmlite, struct; print(llvmlite.__file__, struct.__file__)'\n"
        "handlers._BUILDER = handlers._BUILDER.replace('write_image(die_with)', names)\n"
        "print(handlers.compile_image().decode())"
    )
    command, environment = [sys.executable, "-P", "-c", script], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.stdout.split() == [llvmlite.__file__, struct.__file__], done.stderr


def test_a_package_in_an_archive_builds_its_handlers(tmp_path: Path) -> None:
    """Imported from a zip file, the same sources have the same key, and the builder finds them there."""
    archive = tmp_path / "dbt.zip"
    with ZipFile(archive, "w") as file:
        for package in ("dbt", "isa"):
            for path in (ROOT / package).rglob("*.py"):
                file.write(path, path.relative_to(ROOT).as_posix())
    script = (
        f"import sys; sys.path.insert(0, {str(archive)!r})\n"
        "from dbt.codecache import handlers\n"
        "assert 'dbt.zip' in handlers.__file__\n"
        "name = 'print(write_image.__code__.co_filename)'\n"
        "handlers._BUILDER = handlers._BUILDER.replace('write_image(die_with)', name)\n"
        "print(handlers.image_key(), handlers.compile_image().decode())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.split() == [handlers.image_key(), f"{archive}/dbt/backend/build_process.py"], done.stderr


def test_the_process_that_runs_the_guest_does_not_import_llvmlite() -> None:
    script = (
        "import sys\n"
        "from dbt.codecache.handlers import load_image\n"
        "load_image(print)\n"
        "sys.exit('llvmlite' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, env=os.environ).returncode == 0
