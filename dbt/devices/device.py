"""The interface of every device to the bus that it is attached to."""

from __future__ import annotations

from dbt.devices.state import Stateful


class Device(Stateful):
    """Registers by their offset from wherever the board has put the device, and a state of plain values."""

    def read(self, offset: int, size: int) -> int:
        """Return the ``size`` bytes (1, 2 or 4) at ``offset`` as a little-endian number, with the read's effects."""
        raise NotImplementedError

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the ``size`` bytes (1, 2 or 4) of ``value`` at ``offset``."""
        raise NotImplementedError
