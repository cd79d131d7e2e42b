"""What the board hands to a device, so that the device need not know the board: lines and virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

#: An interrupt line: it is told its level, True for asserted, as often as its driver likes.
Line = Callable[[bool], None]


def unconnected(level: bool) -> None:
    """A line that leads nowhere."""


class VirtualCounter(NamedTuple):
    """How a register goes on by itself: as ``(start + rate * now) // divisor & mask`` at each tick before ``until``, if
    nobody writes to the device meanwhile. ``start`` and the whole sum are not negative and below 2^63, as ``until`` is.
    """

    start: int
    rate: int = 0
    divisor: int = 1
    mask: int = 0xFFFFFFFF
    until: int = (1 << 63) - 1


class Event(Protocol):
    """Something that will happen at a tick of virtual time."""

    def cancel(self) -> None: ...


class Time(Protocol):
    """Virtual time in ticks (:class:`dbt.board.timeline.Timeline`)."""

    @property
    def now(self) -> int: ...
    @property
    def ticks_per_second(self) -> int: ...
    def at(self, tick: int, action: Callable[[], None]) -> Event: ...
