"""Debian's unmodified kernel as a domain of Xen."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from dbt import Machine
from dbt.host.console import Console
from tests.linux.booting import MODES
from tests.linux.debian import DISK, KERNEL


def _has_front_ends() -> bool:
    """Whether kernel and disk are there, and the disk has /init-xen. One that an older dbt made has not."""
    return KERNEL.is_file() and DISK.is_file() and b"init-xen\0" in gzip.decompress(DISK.read_bytes())


#: Skips a test where there is no kernel, or no disk for a domain of Xen.
NEEDS_DOMU = pytest.mark.skipif(
    not _has_front_ends(),
    reason="no Debian kernel and disk with /init-xen: `make virt` makes them, and DBT_VIRT_IMAGES says where",
)
#: A kernel that panics resets the machine, so that a test fails at once.
ARGUMENTS = "console=hvc0 earlyprintk=xen panic=-1 rdinit=/init-xen nowait"


def boot(mode: str, console: Console, append: str = ARGUMENTS, **more: Any) -> Machine:
    tier, jit = MODES[mode]
    machine = Machine(128 << 20, tier=tier, jit=jit, console=console, board="xen", **more)
    machine.load_kernel(KERNEL, initrd=DISK, append=append)
    return machine
