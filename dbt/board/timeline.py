"""The timeline: virtual time, and what is to happen when.

``now`` gives the virtual time, which the machine computes from the instructions retired and from the ticks skipped
while the guest waited. The timeline never changes it. Slices end at ``next_tick``, and then ``run_due`` is called, or
native code does the same (:mod:`dbt.backend.device_access`). So what happens, and in which order, depends on the
program alone.

An event is the ringing of an alarm. A device makes its alarms when it is made itself, each under a name. Therefore
pending events are plain data: device, action, tick and order. They are in memory that native code shares
(:mod:`dbt.abi.timeline`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple

from dbt.abi.timeline import (
    ALARM_WORDS,
    COUNT,
    DEVICE,
    DEVICE_CLASS,
    FIRST_ALARM,
    MAX_ALARMS,
    ORDER,
    SCHEDULED,
    TICK,
    TIMELINE_WORDS,
    UNSET,
)
from dbt.board.clock import DEFAULT_INSN_NS, nanoseconds, ticks_per_second
from dbt.devices.state import PutBack, StateError, is_tick


class Event(NamedTuple):
    """A pending event: an alarm will ring at a tick. Events at the same tick happen by ``order``, the lowest first."""

    device: str
    action: str
    tick: int
    order: int


class Alarm:
    """An alarm, which calls ``ring`` at the tick that it is set for; see :class:`dbt.devices.wiring.Alarm`.

    ``number`` is that of its record in the ``words`` of the timeline.
    """

    __slots__ = ("_at", "_words", "name", "number", "ring")

    def __init__(self, words: array[int], number: int, name: tuple[str, str], ring: Callable[[], None]) -> None:
        self._words = words
        self._at = FIRST_ALARM + number * ALARM_WORDS
        self.number = number
        self.name = name
        self.ring = ring
        words[self._at + TICK] = UNSET

    def set(self, tick: int) -> None:
        """Set the alarm for ``tick``, and no longer for another tick. If ``tick`` has passed, the next ``run_due``
        rings.
        """
        words = self._words
        words[self._at + TICK] = tick
        words[self._at + ORDER] = words[SCHEDULED]
        words[SCHEDULED] += 1

    def cancel(self) -> None:
        """Unset the alarm. Nothing changes if it is not set."""
        self._words[self._at + TICK] = UNSET

    @property
    def is_set(self) -> bool:
        return self._words[self._at + TICK] != UNSET

    @property
    def due(self) -> tuple[int, int]:
        """The tick for which the alarm is set, and its order among those of the same tick."""
        return self._words[self._at + TICK], self._words[self._at + ORDER]

    def rings_natively(self, class_number: int, address: int) -> None:
        """See :class:`dbt.devices.shared.NativeAlarm`."""
        self._words[self._at + DEVICE_CLASS] = class_number
        self._words[self._at + DEVICE] = address


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

    @property
    def due(self) -> int:
        """The tick for which the alarm was set that rings just now."""
        return self._timeline.due

    def alarm(self, action: str, ring: Callable[[], None]) -> Alarm:
        """Return a new alarm of the device. Raise ValueError if it has one for ``action`` already."""
        return self._timeline._add_alarm((self._device, action), ring)


def _end(words: array[int]) -> int:
    """Return the index behind the last alarm."""
    return FIRST_ALARM + words[COUNT] * ALARM_WORDS


class Timeline:
    """The events of a board. ``now`` returns the ticks since the machine's start; a tick takes ``insn_ns`` nanoseconds.

    Each timer of the board has at most one event. So the events are the alarms that are set, which are few, and the
    next one is searched for.
    """

    def __init__(self, now: Callable[[], int], insn_ns: float = DEFAULT_INSN_NS) -> None:
        self._now = now
        self.insn_ns = insn_ns
        self.ticks_per_second = ticks_per_second(insn_ns)
        self.due = 0  # of the alarm that rings, or rang last
        self.clear()

    @property
    def now(self) -> int:
        """Ticks since the machine's start."""
        return self._now()

    @property
    def nanoseconds(self) -> int:
        """The virtual time since the machine's start, in whole nanoseconds."""
        return nanoseconds(self._now(), self.ticks_per_second)

    def named(self, device: str) -> DeviceTime:
        """Return this timeline as the device of that name sees it. No other device on it has the name."""
        return DeviceTime(self, device, self._now)

    @property
    def address(self) -> int:
        """The host address of the words that native code shares. It changes with :meth:`clear`."""
        return self._words.buffer_info()[0]

    @property
    def next_tick(self) -> int | None:
        """The tick of the next event, or None if none is pending."""
        words = self._words
        tick = min(words[FIRST_ALARM + TICK : _end(words) : ALARM_WORDS], default=UNSET)
        return None if tick == UNSET else tick

    @property
    def scheduled(self) -> int:
        """How many times alarms have been set."""
        return self._words[SCHEDULED]

    def _pending(self) -> list[Alarm]:
        """Return the alarms that are set, the next one first."""
        return sorted((alarm for alarm in self._alarms.values() if alarm.is_set), key=lambda alarm: alarm.due)

    def run_due(self) -> None:
        """Ring the alarms that are due, and those that ringing sets for a tick that is not later than now."""
        while (tick := self.next_tick) is not None and tick <= self._now():
            alarm = self._pending()[0]
            self.due = tick
            alarm.cancel()
            alarm.ring()

    def clear(self) -> None:
        """Forget all alarms, because the devices that made them are gone."""
        self._words = array("q", bytes(8 * TIMELINE_WORDS))
        self._alarms: dict[tuple[str, str], Alarm] = {}

    def save(self) -> list[Event]:
        """Return the pending events, the next one first. Their orders are counted from 0."""
        return [Event(*alarm.name, alarm.due[0], order) for order, alarm in enumerate(self._pending())]

    def keep(self) -> PutBack:
        """Return a function that makes the present events pending again. Alarms that are made later are not set then.

        It must not be called after :meth:`clear`.
        """
        words = self._words
        scheduled = words[SCHEDULED]
        kept = [words[FIRST_ALARM + field : _end(words) : ALARM_WORDS] for field in (TICK, ORDER)]

        def put_back() -> None:
            end = _end(words)
            for field, values, unset in zip((TICK, ORDER), kept, (UNSET, 0), strict=True):
                values.extend([unset] * (words[COUNT] - len(values)))
                words[FIRST_ALARM + field : end : ALARM_WORDS] = values
            words[SCHEDULED] = scheduled

        return put_back

    def restore(self, events: Iterable[Event]) -> None:
        """Replace the pending events. Raise StateError if one is no event, or is that of no alarm or of one that has
        an event already.

        Precondition: the devices that the events belong to have been made.
        """
        for alarm in self._alarms.values():
            alarm.cancel()
        events = list(events)
        for event in events:
            if not isinstance(event, tuple) or list(map(type, event)) != [str, str, int, int] or not is_tick(event[2]):
                raise StateError(f"this is no event: {event!r:.200}")
        for event in sorted(events, key=itemgetter(3)):
            device, action, tick, _ = event
            found = self._alarms.get((device, action))
            if found is None or found.is_set:
                raise StateError(f"{device} has no alarm for {action!r}, or it is set twice")
            found.set(tick)

    def _add_alarm(self, name: tuple[str, str], ring: Callable[[], None]) -> Alarm:
        if name in self._alarms:
            raise ValueError(f"there are two alarms for {name[1]!r} of a device called {name[0]!r}")
        number = len(self._alarms)
        if number == MAX_ALARMS:
            raise ValueError(f"a board has at most {MAX_ALARMS} alarms")
        alarm = self._alarms[name] = Alarm(self._words, number, name, ring)
        self._words[COUNT] = number + 1
        return alarm
