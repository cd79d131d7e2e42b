"""A Linux that is saved or forked anywhere in its boot goes on as the one that nobody has interrupted."""

from __future__ import annotations

import random

from dbt import Machine
from dbt.host.console import CaptureConsole
from tests.linux.booting import MODES, NEEDS_LINUX, boot
from tests.long import LONG
from tests.vm.saved_runs import Mode, check_saves

pytestmark = NEEDS_LINUX
#: The icount at which the kernel has run its tests and resets the machine lies beyond this.
_BOOT = 327_000_000
_NAMES: dict[Mode, str] = {mode: name for name, mode in MODES.items()}


def start(mode: Mode) -> Machine:
    return boot(_NAMES[mode], CaptureConsole(), "versatile-pb.dtb", "autoreboot")


def test_the_boot() -> None:
    icounts = random.Random(15).sample(range(1, _BOOT), 1000 if LONG else 12)
    check_saves(start, ("auto", "async"), icounts, 20_000_000)


def test_the_boot_in_the_reference_tier() -> None:
    icounts = random.Random(16).sample(range(1, _BOOT), 30 if LONG else 3)
    check_saves(start, ("stitched", "off"), icounts, 200_000 if LONG else 20_000, [("reference", "off")])
