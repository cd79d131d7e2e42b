"""Sessions of gdb-multiarch itself with a guest that ``dbt run --gdb`` serves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

GDB = shutil.which("gdb-multiarch")
needs_gdb = pytest.mark.skipif(GDB is None, reason="gdb-multiarch is not installed: apt install gdb-multiarch")
TIMEOUT_S = 60
_SETTINGS = ("set pagination off", "set confirm off", "set width 0", "set style enabled off")


@contextmanager
def debugged(*arguments: str, wait: bool = True) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``dbt run --gdb``. Return the process and where it can be reached. It is killed if the block leaves it."""
    waiting = ["--wait"] if wait else []
    command = [sys.executable, "-m", "dbt", "run", "--gdb", "0", *waiting, *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    with process:
        try:
            assert process.stderr is not None
            found = re.search(r"target remote (\S+)", process.stderr.readline())
            assert found is not None
            yield process, found[1]
        finally:
            process.kill()


def start_gdb(place: str, commands: Sequence[str], elf: Path | str | None = None) -> subprocess.Popen[str]:
    """Start gdb, which connects and does the commands."""
    assert GDB is not None
    lines = [*_SETTINGS, f"target remote {place}", *commands]
    given = [word for line in lines for word in ("-ex", line)]
    return subprocess.Popen(
        [GDB, "-nx", "-batch", *given, *([str(elf)] if elf else [])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def gdb_says(place: str, commands: Sequence[str], elf: Path | str | None = None) -> str:
    """Return what gdb prints in a session with these commands."""
    gdb = start_gdb(place, commands, elf)
    try:
        return gdb.communicate(timeout=TIMEOUT_S)[0]
    finally:
        gdb.kill()
        gdb.wait()


def values(text: str) -> list[int]:
    """Return the numbers that ``print`` has shown."""
    return [int(found, 0) for found in re.findall(r"^\$\d+ = (?:\(.*\) )?(-?(?:0x)?[0-9a-f]+)", text, re.M)]
