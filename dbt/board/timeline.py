"""The timeline: virtual time, and what is to happen when.

``now`` gives the virtual time, which the machine computes from the instructions retired and from the ticks skipped
while the guest waited. The timeline never changes it. The run loop ends its slices at ``next_tick`` and then calls
``run_due``. So what happens, and in which order, depends on the program alone.

An event is the ringing of an alarm. A device makes its alarms when it is made itself, each under a name. Therefore
pending events are plain data: device, action, tick and order.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple

from dbt.board.clock import DEFAULT_INSN_NS, ticks_per_second
from dbt.devices.state import StateError, is_tick


class Event(NamedTuple):
    """A pending event: an alarm will ring at a tick. Events at the same tick happen by ``order``, the lowest first."""

    device: str
    action: str
    tick: int
    order: int


class Alarm:
    """An alarm, which calls ``ring`` at the tick that it is set for; see :class:`dbt.devices.wiring.Alarm`."""

    __slots__ = ("_entry", "_timeline", "name", "ring")

    def __init__(self, timeline: Timeline, name: tuple[str, str], ring: Callable[[], None]) -> None:
        self._timeline = timeline
        self._entry: tuple[int, int, Alarm] | None = None
        self.name = name
        self.ring = ring

    def set(self, tick: int) -> None:
        """Set the alarm for ``tick``, and no longer for another tick. If ``tick`` has passed, the next ``run_due``
        rings.
        """
        self.cancel()
        self._entry = self._timeline._expect(tick, self)

    def cancel(self) -> None:
        """Unset the alarm. Nothing changes if it is not set."""
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
        """Return a new alarm of the device. Raise ValueError if it has one for ``action`` already."""
        return self._timeline._add_alarm((self._device, action), ring)


class Timeline:
    """The events of a board. ``now`` returns the ticks since the machine's start; a tick takes ``insn_ns`` nanoseconds.

    Each timer of the board has at most one event, so the events are a sorted list. From a heap a cancelled event could
    not be removed, and a guest that starts a timer again and again would fill it.
    """

    def __init__(self, now: Callable[[], int], insn_ns: int = DEFAULT_INSN_NS) -> None:
        self._now = now
        self.insn_ns = insn_ns
        self.ticks_per_second = ticks_per_second(insn_ns)
        self._alarms: dict[tuple[str, str], Alarm] = {}
        self._pending: list[tuple[int, int, Alarm]] = []  # by tick and order, which no two have in common
        self._scheduled = 0

    @property
    def now(self) -> int:
        """Ticks since the machine's start."""
        return self._now()

    def named(self, device: str) -> DeviceTime:
        """Return this timeline as the device of that name sees it. No other device on it has the name."""
        return DeviceTime(self, device, self._now)

    @property
    def next_tick(self) -> int | None:
        """The tick of the next event, or None if none is pending."""
        return self._pending[0][0] if self._pending else None

    def run_due(self) -> None:
        """Ring the alarms that are due, and those that ringing sets for a tick that is not later than now."""
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
        """Replace the pending events. Raise StateError if one is no event, or is that of no alarm or of one that has
        an event already.

        Precondition: the devices that the events belong to have been made.
        """
        for _, _, alarm in tuple(self._pending):
            alarm.cancel()
        events = list(events)
        for event in events:
            if not isinstance(event, tuple) or list(map(type, event)) != [str, str, int, int] or not is_tick(event[2]):
                raise StateError(f"this is no event: {event!r:.200}")
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
