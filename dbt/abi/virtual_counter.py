"""Device registers that change with virtual time, in a form from which native code can answer reads."""

from __future__ import annotations

from typing import NamedTuple


class VirtualCounter(NamedTuple):
    """The value of a register is ``(start + rate * now) // divisor & mask`` at each tick ``now`` before ``until``.

    This holds as long as no device is written to. ``start`` and the sum are not negative and below 2^63, and
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
