"""What happens when in virtual time."""

from __future__ import annotations

from tests.devices.virtual_time import VirtualTime


def test_events_happen_in_order_of_tick_and_then_of_asking() -> None:
    time, happened = VirtualTime(), []
    for tick, name in ((30, "d"), (10, "a"), (20, "b"), (20, "c")):
        time.timeline.at(tick, lambda name=name: happened.append((time.tick, name)))
    assert time.timeline.next_tick == 10
    time.advance(25)
    assert happened == [(10, "a"), (20, "b"), (20, "c")] and time.timeline.next_tick == 30
    time.advance(5)
    assert happened[-1] == (30, "d") and time.timeline.next_tick is None


def test_run_due_leaves_what_is_not_due() -> None:
    time, happened = VirtualTime(), []
    time.timeline.at(10, lambda: happened.append(10))
    time.tick = 9
    time.timeline.run_due()
    assert not happened
    time.tick = 11
    time.timeline.run_due()
    assert happened == [10]


def test_a_cancelled_event_does_not_happen() -> None:
    time, happened = VirtualTime(), []
    first = time.timeline.at(10, lambda: happened.append("first"))
    second = time.timeline.at(10, lambda: happened.append("second"))
    first.cancel()
    first.cancel()
    time.advance(20)
    second.cancel()
    assert happened == ["second"]


def test_an_event_may_ask_for_others_and_cancel_others() -> None:
    time, happened = VirtualTime(), []
    time.timeline.at(10, lambda: (time.timeline.at(10, lambda: happened.append("now")), later.cancel()))
    later = time.timeline.at(10, lambda: happened.append("later"))
    time.advance(10)
    assert happened == ["now"]


def test_clear_forgets_everything() -> None:
    time = VirtualTime()
    time.timeline.at(10, lambda: None)
    time.timeline.clear()
    assert time.timeline.next_tick is None
