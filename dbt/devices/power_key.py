"""The power key of the board ``virt``: a key at an input of a PL061, as QEMU's (hw/gpio/gpio_key.c)."""

from __future__ import annotations

from dataclasses import dataclass, field

from dbt.devices.pl061 import Pl061
from dbt.devices.state import Wiring
from dbt.devices.wiring import Alarm, Time

#: The key is released after this part of a second.
_RELEASED_AFTER = 10


@dataclass(eq=False)
class Pl061WithKey(Pl061):
    """A PL061 with a key at the input ``pin``, which is high while the key is down."""

    time: Wiring[Time] = field(kw_only=True)
    pin: Wiring[int] = field(kw_only=True)
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.alarm = self.time.alarm("release of the key", self._release)

    def press(self) -> None:
        """Press the key. It is released 100 ms later."""
        self.drive(self.pin, True)
        self.alarm.set(self.time.now + self.time.ticks_per_second // _RELEASED_AFTER)

    def _release(self) -> None:
        self.drive(self.pin, False)
