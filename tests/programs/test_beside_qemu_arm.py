"""Programs in C, static and dynamic, beside ``qemu-arm``: the same output and status."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.programs.running import DBT, TIMEOUT, run_command

_COMPILER = "arm-linux-gnueabi-gcc"
_SOURCES = sorted((Path(__file__).parent / "c").glob("*.c"))
#: Where Debian's package libc6-armel-cross has the libraries.
_LIBRARIES = "/usr/arm-linux-gnueabi"

pytestmark = [
    pytest.mark.skipif(shutil.which(_COMPILER) is None, reason=f"there is no {_COMPILER} (gcc-arm-linux-gnueabi)"),
    pytest.mark.skipif(shutil.which("qemu-arm") is None, reason="there is no qemu-arm (qemu-user)"),
]


def _run(command: Sequence[str], cwd: Path) -> tuple[bytes, bytes, int]:
    done = run_command(command, cwd, b"typed\n")
    return done.stdout, done.stderr, done.returncode


def _build(source: Path, is_static: bool, folder: Path) -> str:
    if not is_static and not os.path.isdir(_LIBRARIES):
        pytest.skip(f"there is no {_LIBRARIES} (libc6-armel-cross)")
    program = str(folder / source.stem)
    flags = ("-march=armv5te", "-marm", "-O1", "-pthread", *(["-static"] if is_static else []))
    subprocess.run((_COMPILER, *flags, str(source), "-o", program, "-lm"), check=True, timeout=TIMEOUT)
    return program


@pytest.mark.parametrize("source", _SOURCES, ids=lambda path: path.stem)
@pytest.mark.parametrize("is_static", [True, False], ids=["static", "dynamic"])
def test_output_and_status_are_those_of_qemu_arm(source: Path, is_static: bool, tmp_path: Path) -> None:
    program = _build(source, is_static, tmp_path)
    words = () if source.stem == "processes" else ("one", "two words", "")
    ours = _run((*DBT, *(() if is_static else ("--root", _LIBRARIES)), program, *words), tmp_path)
    theirs = _run(("qemu-arm", *(() if is_static else ("-L", _LIBRARIES)), program, *words), tmp_path)
    assert (ours[0], ours[2]) == (theirs[0], theirs[2]), ours[1]


def test_a_program_executes_another(tmp_path: Path) -> None:
    """``qemu-arm`` cannot do that: the host's kernel would have to know ARM programs."""
    program = _build(Path(__file__).parent / "c" / "processes.c", True, tmp_path)
    assert _run((*DBT, program, "execute"), tmp_path) == (b"executed with a word\nstatus 3\n", b"", 0)
