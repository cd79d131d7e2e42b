"""Guests in the region tier: the state after every so many instructions is the threaded tier's."""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.machine.console import CaptureConsole
from dbt.machine.result import StopReason
from dbt.runtime.regions import RegionTier
from tests.test_guests import GUESTS, MANIFEST

STEP = 2_000_003
STEPS = 5
RAM = 8 << 20
NAMES = [
    (name, next((image for image in guest["images"] if "armv7-a-O2" in image), guest["images"][0]))
    for name, guest in MANIFEST.items()
    if not guest.get("files")
][::3]  # every third: each is run five times over


def history(name: str, image: str, tier: Any, jit: Any = "async") -> tuple[list[str], RegionTier | None]:
    """Hashes of state, RAM and console after every STEP instructions; and the region tier, if it was one."""
    guest = MANIFEST[name]
    console = CaptureConsole()
    machine = Machine(RAM, tier=tier, jit=jit, console=console)
    machine.load(str(GUESTS / image), base=guest.get("base"), args=guest["arguments"])
    hashes = []
    for _ in range(STEPS):
        result = machine.run(fuel=STEP, timeout=120)
        digest = hashlib.sha256(machine.cpu.snapshot() + bytes(console.output))
        digest.update(machine.memory.ram.bytes)
        hashes.append(f"{result.reason.name} {result.exit_code} {machine.icount} {digest.hexdigest()}")
        if result.reason is not StopReason.FUEL:
            break
    regions = machine.tier if isinstance(machine.tier, RegionTier) else None
    if regions is not None:
        regions.close()
    return hashes, regions


def first_difference(expected: list[str], got: list[str]) -> str | None:
    for step, (mine, theirs) in enumerate(zip_longest(expected, got)):
        if mine != theirs:
            return f"between instructions {step * STEP} and {(step + 1) * STEP}: {mine}, {theirs}"
    return None


@pytest.mark.parametrize(("name", "image"), NAMES, ids=[Path(image).stem for _, image in NAMES])
def test_every_mode_has_one_history(name: str, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = history(name, image, "threaded")
    keep_handlers(tmp_path, monkeypatch)
    for label, jit in (("off", "off"), ("cold", "sync"), ("warm", "sync"), ("warm, async", "async")):
        hashes, tier = history(name, image, "auto", jit)
        assert first_difference(expected, hashes) is None, f"{label}: {first_difference(expected, hashes)}"
        assert tier is not None
        if label == "cold":
            compiled = tier.counts.compiled
        if label.startswith("warm"):
            assert tier.counts.loaded >= compiled * 0.9, f"{label}: {tier.counts}, {compiled} were compiled"
    monkeypatch.setenv("DBT_CACHE_DIR", str(tmp_path / "empty"))
    keep_handlers(tmp_path / "empty", monkeypatch)
    hashes, _ = history(name, image, "auto", "async")
    assert first_difference(expected, hashes) is None, f"async: {first_difference(expected, hashes)}"


def keep_handlers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache directory but for the handlers' image, which takes long to build."""
    from dbt.codecache.handlers import cached_image_name, load_image

    image = load_image(lambda _: None).pack()
    monkeypatch.setenv("DBT_CACHE_DIR", str(directory))
    directory.mkdir(exist_ok=True)
    (directory / cached_image_name()).write_bytes(image)
