"""One device of each kind, as a board has them, in RAM of their own."""

from __future__ import annotations

from functools import cache

from dbt.abi.addresses import Gpa
from dbt.devices.output import unplugged
from dbt.devices.virtio.attached import Attached
from dbt.devices.virtio.balloon import Balloon
from dbt.devices.virtio.console import Console
from dbt.devices.virtio.net import Net
from dbt.devices.virtio.rng import Rng
from dbt.devices.virtio.vsock import Vsock
from dbt.memory.dma import Dma
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamRegion
from tests.devices.virtio.disks import a_file, direct, overlaid
from tests.devices.virtio.shared import shared_directory


@cache
def _memory() -> Dma:
    return Dma(GuestMemory(Ram([RamRegion(Gpa(0x40000000), 1 << 20)])))


def network_card(sent: list[bytes]) -> Net:
    return Net(sent.extend, b"\x52\x54\0\x12\x34\x56")


def ignore(said: object) -> None:
    """Take what a device says to the host, and do nothing."""


def attached_devices() -> Attached:
    """Return new devices. All boards of a test share the RAM of their queues."""
    return Attached(
        [
            *(direct(a_file()), overlaid(a_file()), network_card([]), Rng(0), Balloon(_memory())),
            *(shared_directory(), Vsock(3, ignore), Console(unplugged)),
        ],
        _memory(),
    )
