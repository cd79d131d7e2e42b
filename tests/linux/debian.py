"""Debian's unmodified kernel for ARMv7, which tests boot on the board virt. It is not in the repository.

DBT_VIRT_IMAGES names the directory in which ``make virt`` has made ``vmlinuz`` and ``initramfs-virt.cpio.gz``, whose
/init-virt loads the virtio modules and powers off, and ``make debian`` a disk ``debian-armel.img`` (docs/virt.md).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.host.console import Console
from tests.linux.booting import MODES

_FOLDER = os.environ.get("DBT_VIRT_IMAGES", "")
KERNEL, DISK, ROOT = (Path(_FOLDER) / name for name in ("vmlinuz", "initramfs-virt.cpio.gz", "debian-armel.img"))
#: Skips a test where there is no such kernel.
NEEDS_DEBIAN = pytest.mark.skipif(
    not (_FOLDER and KERNEL.is_file() and DISK.is_file()),
    reason="no Debian kernel for virt: `make virt` fetches one, and DBT_VIRT_IMAGES names the directory that has it",
)
#: Skips a test where there is no such kernel, or no root file system for it.
NEEDS_ROOT = pytest.mark.skipif(
    not (_FOLDER and KERNEL.is_file() and DISK.is_file() and ROOT.is_file()),
    reason="no Debian for virt: `make debian` makes one, and DBT_VIRT_IMAGES names the directory that has it",
)
#: The arguments with which it tries each device and switches the machine off.
ARGUMENTS = "console=ttyAMA0 earlycon rdinit=/init-virt autooff nowait"
_MEMORY = 256 << 20
#: Seconds; far more than it takes.
TIMEOUT = 600.0


def boot(mode: str, console: Console, append: str = ARGUMENTS, **more: Any) -> Machine:
    """A machine that is about to boot it."""
    tier, jit = MODES[mode]
    machine = Machine(_MEMORY, tier=tier, jit=jit, console=console, cpu="cortex-a15", **more)
    machine.load_kernel(KERNEL, initrd=DISK, append=append)
    return machine
