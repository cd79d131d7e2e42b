"""At a thousand icounts of an operating system and of other guests, restored = uninterrupted. ``make long`` runs it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from tests.guests import GUESTS, MANIFEST
from tests.long import LONG, long_only
from tests.vm.saved_runs import NATIVE, Mode, check_saves

MINIOS = GUESTS / "images" / "minios-armv5te-O2.elf"
_END_OF_MINIOS = 1_550_000
#: Guests that open no files, which machines beside each other would share.
IMAGES = [
    image
    for guest in MANIFEST.values()
    if not guest.get("files")
    for image in guest["images"]
    if "armv7-a-O2" in image or ".bin" in image
]


def minios(mode: Mode) -> Machine:
    machine = Machine(16 << 20, tier=mode[0], jit=mode[1], console=CaptureConsole(b"help\nps\nmem\n"))
    machine.load(str(MINIOS))
    return machine


@pytest.mark.parametrize("saver", NATIVE if LONG else NATIVE[-1:], ids=" ".join)
def test_an_operating_system_with_processes(saver: Mode) -> None:
    icounts = random.Random(saver[0]).sample(range(1, _END_OF_MINIOS), 250 if LONG else 12)
    check_saves(minios, saver, icounts, 20_000_000)


def test_an_operating_system_in_the_reference_tier() -> None:
    icounts = random.Random(16).sample(range(1, _END_OF_MINIOS), 30 if LONG else 4)
    check_saves(minios, NATIVE[0], icounts, 200_000 if LONG else 5_000, [("reference", "off")])


@long_only
@pytest.mark.parametrize("image", IMAGES, ids=lambda image: Path(image).stem)
def test_other_guests(image: str) -> None:
    guest = next(guest for guest in MANIFEST.values() if image in guest["images"])

    def start(mode: Mode) -> Machine:
        machine = Machine(tier=mode[0], jit=mode[1], console=CaptureConsole())
        machine.load(str(GUESTS / image), base=guest.get("base"), args=guest["arguments"])
        return machine

    with start(NATIVE[0]) as whole:
        end = whole.run(timeout=600).icount
    check_saves(start, NATIVE[0], random.Random(image).sample(range(1, end), min(1000, end - 1)), 20_000_000)
