"""One device of each kind, as a board has them, in RAM of their own."""

from __future__ import annotations

from functools import cache

from dbt.abi.addresses import Gpa
from dbt.devices.output import unplugged
from dbt.devices.virtio.attached import Attached
from dbt.devices.virtio.balloon import Balloon
from dbt.devices.virtio.console import Console
from dbt.devices.virtio.rng import Rng
from dbt.memory.dma import Dma
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamRegion
from tests.devices.virtio.disks import a_file, direct, overlaid


@cache
def _memory() -> Dma:
    return Dma(GuestMemory(Ram([RamRegion(Gpa(0x40000000), 1 << 20)])))


def attached_devices() -> Attached:
    """Return new devices. All boards of a test share the RAM of their queues."""
    return Attached([direct(a_file()), overlaid(a_file()), Rng(0), Balloon(_memory()), Console(unplugged)], _memory())
