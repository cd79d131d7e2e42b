"""Files that tests add to the RAM disk that a Linux boots with, and programs in C for the guest."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

_COMPILER = "arm-linux-gnueabi-gcc"


def extended(disk: Path, folder: Path, files: dict[str, str | Path]) -> Path:
    """Return a RAM disk in ``folder`` that has these executable files too, each as its text or as a source in C.

    The kernel unpacks one archive after the other.
    """
    if shutil.which("cpio") is None:
        pytest.skip("cpio is needed for the guest's files: Debian has a package of this name")
    added = folder / "added"
    added.mkdir()
    for name, content in files.items():
        if isinstance(content, Path):
            _compile(content, added / name)
        else:
            (added / name).write_text(content)
        (added / name).chmod(0o755)
    names = "".join(f"{name}\n" for name in files).encode()
    command = ["cpio", "-o", "-H", "newc", "--quiet"]
    packed = subprocess.run(command, input=names, cwd=added, capture_output=True, check=True, timeout=60)
    whole = folder / "initramfs"
    whole.write_bytes(disk.read_bytes() + gzip.compress(packed.stdout))
    return whole


def _compile(source: Path, program: Path) -> None:
    if shutil.which(_COMPILER) is None:
        pytest.skip(f"{_COMPILER} is needed for the guest's program: Debian has gcc-arm-linux-gnueabi")
    command = [_COMPILER, "-O1", "-static", "-march=armv5te", "-marm", "-o", str(program), str(source)]
    subprocess.run(command, check=True, timeout=60)
