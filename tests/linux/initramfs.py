"""Files that tests add to the RAM disk that a Linux boots with, and programs in C for the guest."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from dbt.linux.initramfs import PROGRAM, archive

_COMPILER = "arm-linux-gnueabi-gcc"


def extended(disk: Path, folder: Path, files: dict[str, str | Path]) -> Path:
    """Return a RAM disk in ``folder`` that has these executable files too, each as its text or as a source in C.

    The kernel unpacks one archive after the other.
    """
    entries = []
    for name, content in files.items():
        data = _compiled(content, folder / "program") if isinstance(content, Path) else content.encode()
        entries.append((name, PROGRAM, data, (0, 0)))
    whole = folder / "initramfs"
    whole.write_bytes(disk.read_bytes() + gzip.compress(archive(entries)))
    return whole


def _compiled(source: Path, program: Path) -> bytes:
    if shutil.which(_COMPILER) is None:
        pytest.skip(f"{_COMPILER} is needed for the guest's program: Debian has gcc-arm-linux-gnueabi")
    command = [_COMPILER, "-O1", "-static", "-march=armv5te", "-marm", "-o", str(program), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return program.read_bytes()
