"""The lines and the virtual time that the board hands to a device, which need not know the board."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: An interrupt line: it is told its level, True for asserted, as often as its driver likes.
Line = Callable[[bool], None]


def unconnected(level: bool) -> None:
    """Drive a line that leads nowhere."""


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
    def alarm(self, action: str, ring: Callable[[], None]) -> Alarm:
        """Return an alarm that calls ``ring``. ``action`` names it among the device's alarms, in saved states too."""
