"""The other commands, and what starting costs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dbt import __version__
from dbt.cli.doctor_host import checks
from dbt.cli.vm.commands import VERBS
from dbt.codecache.handlers import image_key
from dbt.codecache.region_store import RegionStore
from tests.assembler import assemble
from tests.cli.command import COMMAND, ROOT, dbt, environment, paragraph
from tests.codecache.samples import kept, save
from tests.vm.programs import BASE, make_elf


def test_version_and_help() -> None:
    assert dbt("--version").stdout.startswith(b"dbt 0.")
    for arguments in ((), ("--help",), ("run", "--help"), ("asm", "-h"), ("disasm", "-h"), ("doctor", "-h")):
        done = dbt(*arguments)
        assert done.returncode == 0 and done.stdout.startswith(b"usage: dbt") and done.stderr == b""
    for status in ("119", "120", "121", "122", "123", "124", "125", "130"):
        assert status in dbt("run", "--help").stdout.decode()


# -- dbt asm -------------------------------------------------------------------------------------


def test_assembling_text() -> None:
    done = dbt("asm", "-c", "mov r0, #1; bx lr")
    assert (done.returncode, done.stdout) == (0, b"e3a00001\ne12fff1e\n")


def test_calls_under_a_condition() -> None:
    """Of labels behind and before, and of itself; and a word that looks like one."""
    text = "x: blne y; BLLO x; z: bleq z; .word 0x1bfffffe; blx r1; bleq 0x8000; y: blhs\ty"
    done = dbt("asm", "-c", text, "--base", "0x8000")
    assert done.stdout.split() == [
        b"1b000004", b"3bfffffd", b"0bfffffe", b"1bfffffe", b"e12fff31", b"0bfffff9", b"2bfffffe"
    ]  # fmt: skip


def test_assembling_a_file_to_a_file_that_runs(tmp_path: Path) -> None:
    source, binary = tmp_path / "exit.s", tmp_path / "exit.bin"
    source.write_text("mov r0, #0x18\nldr r1, =0x20026\nsvc 0x123456\n")
    assert dbt("asm", source, "-o", binary).returncode == 0
    assert dbt("run", "--base", "0x10000", binary).returncode == 0
    assert dbt("asm", "-", stdin=source.read_bytes()).stdout.startswith(b"e3a00018\n")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["-c", "mov r0, #1; frob r1"], 121, "line 2 (frob r1)"),
        (["-c", "b nowhere"], 121, "symbol"),
        (["-c", ""], 121, "nothing"),
        (["/nonexistent.s"], 121, "/nonexistent.s"),
        ([sys.executable], 121, "not text"),
        ([], 120, "either"),
        (["x.s", "-c", "nop"], 120, "either"),
        (["-c", "nop", "-o", "/nonexistent/x"], 120, "/nonexistent/x"),
        (["-c", "nop", "--base", "x"], 120, "--base x"),
    ],
)
def test_what_cannot_be_assembled(arguments: list[str], status: int, words: str) -> None:
    assert words in paragraph(dbt("asm", *arguments), status)


# -- dbt disasm ----------------------------------------------------------------------------------


def test_disassembling_words() -> None:
    done = dbt("disasm", "-c", "e3a00001 0xFFFFFFFF", "--base", "0x100")
    assert done.stdout == b"00000100:  e3a00001  mov r0, #1\n00000104:  ffffffff  .word 0xffffffff\n"


def test_disassembling_an_executable(tmp_path: Path) -> None:
    symbols = {"main": (BASE, 8), "$a": (BASE, 0), "$d": (BASE + 8, 0)}
    path = tmp_path / "guest.elf"
    path.write_bytes(make_elf(assemble("nop; b 0x8000") + b"\x01\0\xa0\xe3", symbols=symbols))
    done = dbt("disasm", path)
    assert done.stdout.decode().split("\n") == [
        "", "00008000 <main>:", "00008000:  e320f000  nop", "00008004:  eafffffd  b #0x8000",
        "00008008:  e3a00001  .word 0xe3a00001", "",
    ]  # fmt: skip
    assert dbt("disasm", path, "--start", "0x8004", "--stop", "0x8008").stdout == b"00008004:  eafffffd  b #0x8000\n"


def test_what_cannot_be_disassembled(tmp_path: Path) -> None:
    assert "missing" in paragraph(dbt("disasm", tmp_path / "missing"), 121)
    assert "hexadecimal" in paragraph(dbt("disasm", "-c", "xyz"), 120)
    assert "hexadecimal" in paragraph(dbt("disasm", "-c", "123456789"), 120)
    assert "either" in paragraph(dbt("disasm"), 120)


def test_a_reader_that_leaves_early(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(1 << 20))
    line = f"{' '.join(COMMAND)} disasm --base 0 {path} | head -1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, env=environment(), check=False)
    assert done.stdout.startswith(b"00000000:") and done.stderr == b""


# -- dbt doctor ----------------------------------------------------------------------------------


def test_doctor() -> None:
    done = dbt("doctor")
    text = done.stdout.decode()
    assert done.returncode == 0, text
    for words in ("Python", "llvmlite", "capstone", "cache", "tier reference", "tier threaded", "204 instructions"):
        assert words in text
    pattern = r"204 instructions, (\d+) of them in (\d+) bytes of code stitched for (\d+) "
    found = re.search(pattern, " ".join(text.split()))
    assert found is not None and int(found[1]) > 100 and int(found[2]) > 4 * int(found[3]) > 0, text
    assert "tier auto" in text and "compiles regions: " in text
    assert "BAD" not in text
    for words in ("seccomp filter", "open files", "MiB available", "/dev/net/tun", "passt"):
        assert words in text


def test_doctor_says_what_follows_from_what_the_host_has_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refused = {
        "namespaces": "Operation not permitted",
        "own root": "Operation not permitted",
        "Landlock": "the host has no Landlock",
    }
    monkeypatch.setattr("dbt.hypervisor.jail.measures.try_measures", lambda: refused)
    monkeypatch.setattr("resource.getrlimit", lambda which: (256, 4096))
    monkeypatch.setattr("dbt.cli.doctor_host._TUN", str(tmp_path / "tun"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {name: check() for name, check in checks()}
    jail, files, network = found["jail"], found["open files"], found["network"]
    assert jail.there == "resource limits, no privileges, seccomp filter"
    assert [text.split(" ")[0] for text in jail.missing] == ["namespaces", "own", "Landlock", "--jail"]
    assert "read the files that this user can read" in jail.missing[2]
    assert files == ("256 of at most 4096", ["some 64 machines at once; ulimit -n 4096 allows more"])
    assert [text.split(":")[0] for text in network.missing] == ["passt", str(tmp_path / "tun")]
    assert int(found["memory"].there.split()[0]) > 0


def test_doctor_leaves_compiled_regions_alone(only_handlers: Path) -> None:
    store = RegionStore(image_key())
    for entry in range(3):
        save(store, entry)
    before = kept()
    assert b"compiles regions: " in dbt("doctor").stdout
    assert len(before) == 3 and kept() == before


def test_a_library_that_is_missing_is_named() -> None:
    """Also if the modules of the errors need it, among which the error is looked for."""
    script = "import sys; sys.modules['blake3'] = None; sys.argv[1:] = ['doctor']; from dbt.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 125 and "the Python package 'blake3' is missing" in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_says_why_the_default_tier_does_not_work(tmp_path: Path) -> None:
    (tmp_path / "llvmlite").mkdir()
    (tmp_path / "llvmlite" / "__init__.py").write_text("import os; os.abort()")
    found = find_spec("llvmlite")
    assert found is not None and found.origin is not None
    shutil.copy(Path(found.origin).with_name("_version.py"), tmp_path / "llvmlite")  # the handlers are in the cache
    (tmp_path / "sitecustomize.py").write_text("import dbt.cli.doctor as it; it._TIME_LIMIT = 8")
    done = dbt("doctor", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    line = next(line for line in done.stdout.decode().splitlines() if "tier auto" in line)
    assert done.returncode == 1 and "BAD" in line and "no region was compiled" in line and "--tier threaded" in line
    assert done.stdout.count(b"BAD") == 1, done.stdout


def test_doctor_finds_another_package_of_the_same_name(tmp_path: Path) -> None:
    """dbt-core installs one: the files of whichever was installed last are there."""
    info = tmp_path / "dbt_core-1.9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dbt-core\nVersion: 1.9.0\n")
    (info / "RECORD").write_text("dbt/version.py,,\n")
    done = dbt("doctor", PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    assert done.returncode == 1 and b"dbt-core has a package dbt too" in done.stdout


def test_doctor_finds_an_installation_by_an_import_hook(tmp_path: Path) -> None:
    """As setuptools makes for an editable install whose layout is not named in pyproject.toml."""
    (tmp_path / "__editable___dbt_arm_0_1_0_finder.py").touch()
    (tmp_path / "sitecustomize.py").write_text("import __editable___dbt_arm_0_1_0_finder")
    done = dbt("doctor", PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    assert done.returncode == 1 and b"pip install -e ." in b" ".join(done.stdout.split())
    assert done.stdout.count(b"BAD") == 1, done.stdout


def test_dbt_is_found_beside_a_directory_of_its_name(tmp_path: Path) -> None:
    """As in the directory that holds the checkout. Here it is the environment's installation that is imported."""
    (tmp_path / "dbt" / "dbt").mkdir(parents=True)
    (tmp_path / "script.py").write_text("import dbt; print(dbt.__version__)")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in (["-c", "import dbt; print(dbt.__version__)"], ["script.py"], ["-m", "dbt", "--version"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and __version__ in done.stdout, done.stderr


EVERY_HELP = (
    *((), ("run",), ("asm",), ("disasm",), ("isa",), ("doctor",), ("trace",), ("cache",)),
    *(("trace", name) for name in ("html", "diff", "view", "export", "stats", "top", "block", "why")),
    *(("cache", name) for name in ("info", "clear", "verify")),
    *((name,) for name in ("replay", "translate", "snapshot", "cluster", "xenstore", "guest", "container", "vm")),
    *(("snapshot", name) for name in ("info", "verify", "diff")),
    *(("cluster", name) for name in ("run", "replay", "diff")),
    *(("vm", name) for name in VERBS),
    *(("container", name) for name in ("serve", "run", "exec", "ps", "logs", "stop", "rm", "replay", "migrate")),
    *(("container", name) for name in ("resume", "images", "pull")),
)


def test_every_help_fits_80_columns() -> None:
    for command in EVERY_HELP:
        text = dbt(*command, "--help", COLUMNS="80").stdout.decode()
        assert text.startswith("usage: dbt") and max(map(len, text.splitlines())) <= 80, command


# -- start-up ------------------------------------------------------------------------------------


def test_running_a_guest_imports_nothing_slow(hello: Path) -> None:
    """Each of these costs between 30 and 100 ms."""
    assert dbt("run", hello).returncode == 3  # builds the translator if need be
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND[1:], "run", str(hello)],
        capture_output=True, env=environment(), check=False,
    )  # fmt: skip
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.decode().splitlines() if "|" in line}
    assert not imported & {"llvmlite", "rich", "capstone", "keystone", "elftools", "pydantic", "asyncio", "json"}
