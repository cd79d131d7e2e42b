"""Debian's unmodified kernel as a domain of Xen."""

from __future__ import annotations

from typing import Any

from dbt import Machine
from dbt.host.console import Console
from tests.linux.booting import MODES
from tests.linux.debian import DISK, KERNEL

ARGUMENTS = "console=hvc0 earlyprintk=xen rdinit=/init-xen nowait"


def boot(mode: str, console: Console, append: str = ARGUMENTS, **more: Any) -> Machine:
    tier, jit = MODES[mode]
    machine = Machine(128 << 20, tier=tier, jit=jit, console=console, board="xen", **more)
    machine.load_kernel(KERNEL, initrd=DISK, append=append)
    return machine
