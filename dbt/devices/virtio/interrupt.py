"""The interrupt of a transport (virtio 1.2, section 4.2.2): what it is for, and the line.

It is apart from the transport because native code works on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dbt.devices.shared import shared
from dbt.devices.state import Stateful, Wiring, Word
from dbt.devices.wiring import Line

USED_BUFFER: Final = 1
CONFIG_CHANGE: Final = 2


@shared
@dataclass(eq=False)
class InterruptStatus(Stateful):
    """The register InterruptStatus, whose bits hold ``line`` up."""

    line: Wiring[Line]
    bits: Word = 0

    def is_possible(self) -> bool:
        return not self.bits & ~(USED_BUFFER | CONFIG_CHANGE)

    def read(self) -> int:
        """Return the register."""
        return self.bits

    def add(self, bits: int) -> None:
        """Tell the driver something."""
        if bits & ~self.bits:  # else the line is up
            self.bits |= bits
            self.line(True)

    def acknowledge(self, bits: int) -> None:
        """Take a write of the driver's to InterruptACK."""
        self.bits &= ~bits
        self.line(self.bits != 0)
