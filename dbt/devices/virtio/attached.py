"""What a board is told of virtio devices, which are imported if there are any, and the geometry of their slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from dbt.devices.virtio.console import Console
    from dbt.devices.virtio.device import VirtioDevice
    from dbt.memory.dma import Dma

#: The slots of a board, which are ranges of so many bytes in a row.
SLOTS: Final = 32
SLOT_SIZE: Final = 0x200
SLOTS_SIZE: Final = SLOTS * SLOT_SIZE


class Attached(NamedTuple):
    """The virtio devices of a board, at most :data:`SLOTS`, and the RAM in which their queues are.

    ``console`` is the one of them that gets the console's input, in place of the board's UART.
    """

    devices: Sequence[VirtioDevice]
    dma: Dma
    console: Console | None = None


def limits_name(number: int) -> str:
    """Return the name of what limits a device, which has this number among all of them."""
    return f"limits {number}"
