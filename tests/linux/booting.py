"""The Linux that tests boot. It is not in the repository: ``make linux`` makes it (docs/linux.md), and
DBT_LINUX_IMAGES names its directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.engine.tier import JitMode
from dbt.host.console import Console
from dbt.vm.machine import TierName

_FOLDER = os.environ.get("DBT_LINUX_IMAGES", "")
IMAGES = Path(_FOLDER)
#: Skips a test where there is no Linux.
NEEDS_LINUX = pytest.mark.skipif(
    not (_FOLDER and (IMAGES / "zImage").is_file()),
    reason="no Linux: `make linux` builds one, and DBT_LINUX_IMAGES names the directory that has it",
)

#: What executes the guest: the tier, and how hot regions are compiled.
MODES: dict[str, tuple[TierName, JitMode]] = {
    "threaded": ("threaded", "off"),
    "stitched": ("stitched", "off"),
    "auto-sync": ("auto", "sync"),
    "auto-async": ("auto", "async"),
}
TREES = ("versatile-pb-minimal.dtb", "versatile-pb.dtb", None)
#: Seconds after which a boot is taken for one that hangs. With an empty cache and code that is hot as soon as in tests,
#: compiling takes 100 s of processor time in the mode auto-sync, and other tests may have the processors as well.
TIMEOUT = 1200.0


def boot(mode: str, console: Console, tree: str | None, append: str = "", **more: Any) -> Machine:
    """A machine that is about to boot it. ``tree`` names a device tree; the board's own without one."""
    tier, jit = MODES[mode]
    machine = Machine(tier=tier, jit=jit, console=console, realtime=more.pop("realtime", False))
    machine.load_kernel(
        str(IMAGES / "zImage"),
        initrd=str(IMAGES / "initramfs-armel.cpio.gz"),
        dtb=None if tree is None else str(IMAGES / tree),
        append=f"console=ttyAMA0 {append}".rstrip(),
        **more,
    )
    return machine
