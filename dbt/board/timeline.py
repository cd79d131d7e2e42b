"""The timeline: virtual time, and what is to happen when.

Virtual time is whatever ``now`` says: the machine makes it from retired instructions and from what it skipped
while the guest waited. The timeline never moves it. The run loop ends its slices at ``next_tick`` and then calls
``run_due``; so what happens, and in which order, is a function of the program alone.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from dbt.board.clock import TICKS_PER_SECOND


class Event:
    """An action at a tick. Events at one tick happen in the order in which they were asked for."""

    __slots__ = ("_events", "action", "order", "tick")

    def __init__(self, events: list[Event], tick: int, order: int, action: Callable[[], None]) -> None:
        self._events = events
        self.tick = tick
        self.order = order
        self.action = action

    def cancel(self) -> None:
        """It will not happen. If it has happened, or was cancelled before, that changes nothing."""
        if self in self._events:
            self._events.remove(self)

    def __lt__(self, other: Event) -> bool:
        return (self.tick, self.order) < (other.tick, other.order)


class Timeline:
    """``now`` gives ticks since the machine's start, ``ticks_per_second`` of them in a second.

    There is an event for each timer of the board at most, so a sorted list serves better than a heap, from
    which a cancelled event could not be removed: a guest that starts a timer over and over must not fill it.
    """

    ticks_per_second = TICKS_PER_SECOND

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._events: list[Event] = []
        self._scheduled = 0

    @property
    def now(self) -> int:
        return self._now()

    def at(self, tick: int, action: Callable[[], None]) -> Event:
        """Call ``action`` at ``tick``; if that has passed, at the next :meth:`run_due`."""
        event = Event(self._events, tick, self._scheduled, action)
        self._scheduled += 1
        insort(self._events, event)
        return event

    @property
    def next_tick(self) -> int | None:
        """When the next event is due; None if there is none."""
        return self._events[0].tick if self._events else None

    def run_due(self) -> None:
        """Do what is due now, and what these actions ask for until now."""
        events = self._events
        while events and events[0].tick <= self._now():
            events.pop(0).action()

    def clear(self) -> None:
        """Forget all events, because the devices that asked for them are gone."""
        self._events.clear()
