"""Whole programs: every guest's console and exit code, in every tier, and under QEMU where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.result import StopReason
from tests.guests import GUESTS, MANIFEST
from tests.long import LONG, long_only


def _usual(images: list[str]) -> str:
    """The image that the reference tier executes, which takes a hundred times as long as the others."""
    return next((image for image in images if "armv7-a-O2" in image), images[0])


IMAGES = [
    (name, image, tier)
    for name, guest in MANIFEST.items()
    for image in guest["images"]
    for tier in ("reference", "threaded", "stitched")
    if tier != "reference" or LONG or image == _usual(guest["images"])
]
# One round is of millions of instructions: for the native tiers only.
KERNELS = sorted((GUESTS / "bench" / "images").glob("*.elf"))


@pytest.mark.parametrize(("name", "image", "tier"), IMAGES, ids=[f"{Path(i).stem}-{t}" for _, i, t in IMAGES])
def test_guest(name: str, image: str, tier: Any, tmp_path: Path) -> None:
    guest = MANIFEST[name]
    console = CaptureConsole()
    files = str(tmp_path) if guest.get("files") else None
    machine = Machine(tier=tier, files=files, console=console)
    machine.load(str(GUESTS / image), base=guest.get("base"), args=guest["arguments"])
    result = machine.run(timeout=120)
    assert result.reason is StopReason.EXITED, result.message
    assert result.exit_code == guest["exit_code"]
    assert bytes(console.output) == (GUESTS / guest["expected"]).read_bytes()


@pytest.mark.parametrize("tier", ["threaded", "stitched", "auto"])
@pytest.mark.parametrize("image", KERNELS, ids=lambda image: image.stem)
def test_kernel(image: Path, tier: Any) -> None:
    console = CaptureConsole()
    machine = Machine(tier=tier, console=console)
    machine.load(str(image), args=["1"])
    result = machine.run(timeout=120)
    assert result.reason is StopReason.EXITED, result.message
    assert (result.exit_code, bytes(console.output)) == (0, f"{image.stem}: ok\n".encode())


def test_every_kernel_has_its_image() -> None:
    assert [image.stem for image in KERNELS] == sorted(source.stem for source in (GUESTS / "bench").glob("*.c"))


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")
def test_guests_under_qemu() -> None:
    done = subprocess.run(
        [sys.executable, str(GUESTS / "check_qemu.py")], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@long_only
def test_the_images_are_what_the_sources_give(tmp_path: Path) -> None:
    """Byte for byte, with the compilers of Debian 12 that the images were made with."""
    for compiler in ("arm-none-eabi-gcc", "arm-linux-gnueabi-gcc"):
        if shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not installed")
        version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout
        if not version.startswith("12.2."):
            pytest.skip(f"{compiler} has version {version.strip()}, and the images were made with 12.2")
    sources = shutil.ignore_patterns("images", "build", "*.elf")
    copy = shutil.copytree(GUESTS, tmp_path / "guests", ignore=sources)
    for folder in (".", "bench", "slow", "io"):
        (copy / folder / "images").mkdir()
    subprocess.run(["make", "-C", copy, f"PYTHON={sys.executable}"], check=True, capture_output=True, timeout=600)
    images = [*copy.rglob("images/*"), copy / "callouts" / "callouts.elf"]
    made = sorted(path.relative_to(copy) for path in images if path.is_file())
    assert len(made) > 100
    assert [str(path) for path in made if (copy / path).read_bytes() != (GUESTS / path).read_bytes()] == []
