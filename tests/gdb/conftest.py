"""The guest that sessions of gdb debug."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="package")
def guest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The guest ``guest.c``, compiled with debug information."""
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    path = tmp_path_factory.mktemp("gdb") / "guest.elf"
    options = ["-marm", "-mcpu=arm926ej-s", "-Og", "-g", "-fno-inline", "-ffreestanding", "-nostdlib"]
    source = Path(__file__).with_name("guest.c")
    subprocess.run([compiler, *options, "-Ttext=0x10000", "-e", "_start", source, "-o", path], check=True)
    return str(path)
