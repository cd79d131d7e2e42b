"""What happens when in virtual time."""

from __future__ import annotations

import pytest

from dbt.board.timeline import Event, Timeline
from dbt.devices.state import StateError
from tests.devices.virtual_time import VirtualTime


def test_events_happen_in_order_of_tick_and_then_of_asking() -> None:
    time = VirtualTime()
    happened: list[tuple[int, str]] = []
    for tick, name in ((30, "d"), (10, "a"), (20, "b"), (20, "c")):
        time.named().alarm(name, lambda name=name: happened.append((time.tick, name))).set(tick)  # type: ignore[misc]
    assert time.timeline.next_tick == 10
    time.advance(25)
    assert happened == [(10, "a"), (20, "b"), (20, "c")] and time.timeline.next_tick == 30
    time.advance(5)
    assert happened[-1] == (30, "d") and time.timeline.next_tick is None


def test_run_due_leaves_what_is_not_due() -> None:
    time = VirtualTime()
    happened: list[int] = []
    time.named().alarm("", lambda: happened.append(10)).set(10)
    time.tick = 9
    time.timeline.run_due()
    assert not happened
    time.tick = 11
    time.timeline.run_due()
    assert happened == [10]


def test_a_cancelled_alarm_does_not_ring() -> None:
    time = VirtualTime()
    happened: list[str] = []
    first = time.named().alarm("first", lambda: happened.append("first"))
    second = time.named().alarm("second", lambda: happened.append("second"))
    first.set(10)
    second.set(10)
    first.cancel()
    first.cancel()
    time.advance(20)
    second.cancel()
    assert happened == ["second"]


def test_an_alarm_is_set_for_one_tick() -> None:
    """And to set it again puts it behind the others of that tick."""
    time = VirtualTime()
    happened: list[tuple[int, str]] = []
    first = time.named().alarm("first", lambda: happened.append((time.tick, "first")))
    second = time.named().alarm("second", lambda: happened.append((time.tick, "second")))
    first.set(10)
    second.set(20)
    first.set(20)
    time.advance(100)
    assert happened == [(20, "second"), (20, "first")]


def test_an_alarm_may_set_others_and_cancel_others() -> None:
    time = VirtualTime()
    happened: list[str] = []
    now = time.named().alarm("now", lambda: happened.append("now"))
    later = time.named().alarm("later", lambda: happened.append("later"))

    def first() -> None:
        now.set(10)
        later.cancel()

    time.named().alarm("first", first).set(10)
    later.set(10)
    time.advance(10)
    assert happened == ["now"]


def test_a_device_has_one_alarm_of_a_name() -> None:
    time = VirtualTime()
    time.named("one").alarm("zero", lambda: None)
    time.named("other").alarm("zero", lambda: None)
    with pytest.raises(ValueError, match="two alarms"):
        time.named("one").alarm("zero", lambda: None)


def a_timeline() -> tuple[Timeline, list[str]]:
    """One on which the device ``x`` has the alarms a, b, c, and what has rung."""
    timeline = Timeline(lambda: 100)
    happened: list[str] = []
    for name in "abc":
        timeline.named("x").alarm(name, lambda name=name: happened.append(name))  # type: ignore[misc]
    return timeline, happened


def test_what_is_pending_is_saved_with_its_order() -> None:
    first, happened = a_timeline()
    for name, tick in (("c", 50), ("a", 30), ("b", 50), ("a", 50)):
        first._alarms["x", name].set(tick)
    saved = first.save()
    assert saved == [Event("x", "c", 50, 0), Event("x", "b", 50, 1), Event("x", "a", 50, 2)]
    second, again = a_timeline()
    second._alarms["x", "b"].set(1)
    second.restore(reversed(saved))
    assert second.save() == saved
    first.run_due()
    second.run_due()
    assert happened == again == ["c", "b", "a"]


@pytest.mark.parametrize("events", [[Event("x", "d", 1, 0)], [Event("y", "a", 1, 0)], [Event("x", "a", 1, 0)] * 2])
def test_events_that_no_device_expects_are_refused(events: list[Event]) -> None:
    timeline, _ = a_timeline()
    with pytest.raises(StateError):
        timeline.restore(events)


def test_clear_forgets_the_alarms_of_devices_that_are_gone() -> None:
    timeline, happened = a_timeline()
    timeline._alarms["x", "a"].set(10)
    timeline.clear()
    timeline.run_due()
    assert timeline.next_tick is None and not happened
    timeline.named("x").alarm("a", lambda: happened.append("new")).set(10)
    timeline.run_due()
    assert happened == ["new"]
