"""The lines and the virtual time that the board hands to a device, which need not know the board.

Lines that native code can drive are objects of this module. Any other callable will do as well; a device that has one
is served in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dbt.devices.shared import CPU, NOT_NATIVE, class_number, native_address
from dbt.devices.state import Stateful

#: An interrupt line: it is told its level, True for asserted, as often as its driver likes.
Line = Callable[[bool], None]


#: What a UART sends a byte to.
Transmit = Callable[[int], None]


class HasInputs(Protocol):
    """A device with numbered inputs."""

    def drive(self, number: int, level: bool) -> None:
        """Take a new level of an input, which may be the same as before."""


class DeviceInput:
    """An input of a device, as a line."""

    __slots__ = ("device", "number")

    def __init__(self, device: HasInputs, number: int) -> None:
        self.device = device
        self.number = number

    def __call__(self, level: bool) -> None:
        self.device.drive(self.number, level)

    def native_words(self, connected: dict[int, int]) -> tuple[int, int, int] | None:
        """See :class:`dbt.devices.shared.NativeLine`."""
        device = self.device
        address = native_address(device, connected) if isinstance(device, Stateful) else None
        return None if address is None else (class_number(type(device)), address, self.number)


class CpuInput:
    """An interrupt input of the CPU, as a line: ``bit`` is PSR_I or PSR_F. ``set_line`` is told bit and level."""

    __slots__ = ("bit", "set_line")

    def __init__(self, set_line: Callable[[int, bool], None], bit: int) -> None:
        self.set_line = set_line
        self.bit = bit

    def __call__(self, level: bool) -> None:
        self.set_line(self.bit, level)

    def native_words(self, connected: dict[int, int]) -> tuple[int, int, int]:
        """See :class:`dbt.devices.shared.NativeLine`."""
        return CPU, 0, self.bit


#: Returns the level of a line, where its source cannot say that it has changed.
Sample = Callable[[], bool]


class HasLevel(Protocol):
    """A device that has a level."""

    def sampled_level(self) -> bool:
        """Return the level."""


class DeviceSample:
    """The level of a device, which may be made later: then it is ``device``."""

    def __init__(self) -> None:
        self.device: HasLevel | None = None

    def __call__(self) -> bool:
        assert self.device is not None
        return self.device.sampled_level()

    def native_words(self, connected: dict[int, int]) -> tuple[int, int] | None:
        """See :class:`dbt.devices.shared.NativeSample`."""
        device = self.device
        address = native_address(device, connected) if isinstance(device, Stateful) else None
        return None if address is None else (class_number(type(device)), address)


class Unsampled:
    """The level of a line that nobody has to look at."""

    def __call__(self) -> bool:
        """Return False."""
        return False

    def native_words(self, connected: dict[int, int]) -> tuple[int, int]:
        """See :class:`dbt.devices.shared.NativeSample`."""
        return NOT_NATIVE, 0


unsampled = Unsampled()


class Unconnected:
    """A line that leads nowhere."""

    def __call__(self, level: bool) -> None:
        """Do nothing."""

    def native_words(self, connected: dict[int, int]) -> tuple[int, int, int]:
        """See :class:`dbt.devices.shared.NativeLine`."""
        return NOT_NATIVE, 0, 0


unconnected = Unconnected()


def no_input() -> None:
    """Do nothing: there is no input."""


class Alarm(Protocol):
    """An action that a device has the timeline do at a tick of virtual time. It is set for one tick at most."""

    def set(self, tick: int) -> None:
        """Ring at ``tick``, and not when it was set for before. A tick that has passed is rung at as soon as can be."""

    def cancel(self) -> None:
        """Do not ring. Nothing changes if the alarm is not set."""


class Time(Protocol):
    """Virtual time in ticks, as one device sees it (:meth:`dbt.board.timeline.Timeline.named`)."""

    @property
    def now(self) -> int: ...
    @property
    def ticks_per_second(self) -> int: ...
    @property
    def due(self) -> int:
        """The tick for which the alarm was set that rings just now. It is before :attr:`now` if time has jumped."""

    def alarm(self, action: str, ring: Callable[[], None]) -> Alarm:
        """Return an alarm that calls ``ring``. ``action`` names it among the device's alarms, in saved states too."""
