"""A register that goes on by itself, in a form that native code can answer reads from."""

from __future__ import annotations

from typing import NamedTuple


class VirtualCounter(NamedTuple):
    """How a register goes on: as ``(start + rate * now) // divisor & mask`` at each tick ``now`` before ``until``.

    This holds if nobody writes to a device meanwhile. ``start`` and the sum are not negative and below 2^63, and
    ``until`` is below 2^63. The fields stand in CpuState in this order, after the register's GPA and ``until``.
    """

    start: int
    rate: int = 0
    divisor: int = 1
    mask: int = 0xFFFFFFFF
    until: int = (1 << 63) - 1

    def at(self, now: int) -> int:
        """Return the register's value at the tick ``now``."""
        return (self.start + self.rate * now) // self.divisor & self.mask
