"""The timeline: virtual time, and what is to happen when.

Virtual time is whatever ``now`` says: the machine makes it from retired instructions and from what it skipped
while the guest waited. The timeline never moves it. The run loop ends its slices at ``next_tick`` and then calls
``run_due``; so what happens, and in which order, is a function of the program alone.

What happens is the ringing of alarms. A device makes its alarms when it is made itself, each under a name. What is
pending is therefore plain data: device, action, tick and order.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple

from dbt.board.clock import TICKS_PER_SECOND
from dbt.devices.state import StateError


class Event(NamedTuple):
    """That an alarm is to ring at a tick. Events at one tick happen by ``order``, the lowest first."""

    device: str
    action: str
    tick: int
    order: int


class Alarm:
    """Calls ``ring`` at the tick that it is set to; see :class:`dbt.devices.wiring.Alarm`."""

    __slots__ = ("_entry", "_timeline", "name", "ring")

    def __init__(self, timeline: Timeline, name: tuple[str, str], ring: Callable[[], None]) -> None:
        self._timeline = timeline
        self._entry: tuple[int, int, Alarm] | None = None
        self.name = name
        self.ring = ring

    def set(self, tick: int) -> None:
        """Ring at ``tick``, and not when it was set for before. If ``tick`` has passed, the next ``run_due`` rings."""
        self.cancel()
        self._entry = self._timeline._expect(tick, self)

    def cancel(self) -> None:
        """Do not ring. Nothing changes if the alarm is not set."""
        if self._entry is not None:
            self._timeline._pending.remove(self._entry)
            self._entry = None

    def _rings(self) -> None:
        self._entry = None
        self.ring()


class DeviceTime:
    """The timeline as the device called ``device`` sees it; see :class:`dbt.devices.wiring.Time`."""

    __slots__ = ("_device", "_now", "_timeline", "ticks_per_second")

    def __init__(self, timeline: Timeline, device: str, now: Callable[[], int]) -> None:
        self._timeline = timeline
        self._device = device
        self._now = now
        self.ticks_per_second = timeline.ticks_per_second

    @property
    def now(self) -> int:
        """Ticks since the machine's start."""
        return self._now()

    def alarm(self, action: str, ring: Callable[[], None]) -> Alarm:
        """Return an alarm for the device. ValueError if it has one for ``action`` already."""
        return self._timeline._add_alarm((self._device, action), ring)


class Timeline:
    """``now`` gives ticks since the machine's start, ``ticks_per_second`` of them in a second.

    There is an event for each timer of the board at most, so a sorted list serves better than a heap, from
    which a cancelled event could not be removed: a guest that starts a timer over and over must not fill it.
    """

    ticks_per_second = TICKS_PER_SECOND

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._alarms: dict[tuple[str, str], Alarm] = {}
        self._pending: list[tuple[int, int, Alarm]] = []  # by tick and order, which no two have in common
        self._scheduled = 0

    @property
    def now(self) -> int:
        """Ticks since the machine's start."""
        return self._now()

    def named(self, device: str) -> DeviceTime:
        """Return this timeline for a device, whose name no other device on it has."""
        return DeviceTime(self, device, self._now)

    @property
    def next_tick(self) -> int | None:
        """When the next event is due; None if there is none."""
        return self._pending[0][0] if self._pending else None

    def run_due(self) -> None:
        """Do what is due now, and what these actions ask for until now."""
        pending = self._pending
        while pending and pending[0][0] <= self._now():
            pending.pop(0)[2]._rings()

    def clear(self) -> None:
        """Forget all alarms, because the devices that made them are gone."""
        self._pending.clear()
        self._alarms.clear()

    def save(self) -> list[Event]:
        """Return the pending events, the next one first. Their orders are counted from 0."""
        return [Event(*alarm.name, tick, order) for order, (tick, _, alarm) in enumerate(self._pending)]

    def restore(self, events: Iterable[Event]) -> None:
        """Have these events pending and no others. StateError if there is no alarm for one, or two for one alarm.

        Precondition: the devices that the events belong to have been made.
        """
        for _, _, alarm in tuple(self._pending):
            alarm.cancel()
        for event in sorted(events, key=itemgetter(3)):
            device, action, tick, _ = event
            found = self._alarms.get((device, action))
            if found is None or found._entry is not None:
                raise StateError(f"{device} has no alarm for {action!r}, or it is set twice")
            found.set(tick)

    def _add_alarm(self, name: tuple[str, str], ring: Callable[[], None]) -> Alarm:
        if name in self._alarms:
            raise ValueError(f"there are two alarms for {name[1]!r} of a device called {name[0]!r}")
        alarm = self._alarms[name] = Alarm(self, name, ring)
        return alarm

    def _expect(self, tick: int, alarm: Alarm) -> tuple[int, int, Alarm]:
        entry = tick, self._scheduled, alarm
        self._scheduled += 1
        insort(self._pending, entry)
        return entry
