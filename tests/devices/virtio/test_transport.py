"""The transport and its queues, with the entropy device and a disk behind it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from dbt.abi.addresses import Gpa
from dbt.devices.state import StateError
from dbt.devices.virtio.queue import MAX_SIZE
from dbt.devices.virtio.rng import Rng
from dbt.devices.virtio.slots import VirtioSlots
from tests.devices.virtio.driver import (
    BASE,
    COMMON_FEATURES,
    EVENT_IDX,
    F_VERSION_1,
    INDIRECT,
    NEXT,
    SECOND,
    SIZE,
    WRITE,
    Rig,
)

RING_RESET = 1 << 40
INDIRECT_DESC = 1 << 28


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig(Rng(0))
    yield one
    one.close()


def test_a_request_is_answered_at_a_tick_that_follows_from_it(rig: Rig) -> None:
    rig.start()
    [place] = rig.chain(0, [], [100])
    rig.make_available(0, 0)
    rig.notify(0)
    due = rig.time.timeline.next_tick
    assert due == (1000 + 100) // 10
    rig.time.advance(due - 1)
    assert not rig.line.level and not rig.used(0)
    rig.time.advance(1)
    assert rig.line.level and rig.used(0) == [(0, 100)]
    assert len(set(rig.read(place, 100))) > 50
    assert rig.r(0x60) == 1
    rig.w(0x64, 1)
    assert not rig.line.level and rig.r(0x60) == 0


def test_the_numbers_follow_from_the_seed() -> None:
    answers = []
    for seed in (0, 0, 1):
        rig = Rig(Rng(seed))
        rig.start()
        answers.append(rig.ask(0, [], [16, 33])[1] + rig.ask(0, [], [64])[1])
        rig.close()
    assert answers[0] == answers[1] != answers[2]
    assert answers[0][:49] != answers[0][49:98]


def test_features_that_were_not_offered_are_refused(rig: Rig) -> None:
    assert rig.offered() == COMMON_FEATURES
    for features in (F_VERSION_1 | 1, 0, 1 << 63 | F_VERSION_1):
        rig.negotiate(features)
        assert rig.r(0x70) == 3
    rig.negotiate(COMMON_FEATURES)
    assert rig.r(0x70) == 11


def test_nothing_is_served_before_the_driver_is_ready(rig: Rig) -> None:
    rig.negotiate(F_VERSION_1)
    rig.make_queue(0)
    rig.chain(0, [], [8])
    rig.make_available(0, 0)
    rig.notify(0)
    assert rig.time.timeline.next_tick is None
    rig.w(0x70, 15)
    rig.time.advance(SECOND)
    assert rig.used(0) == [(0, 8)]


def test_a_driver_that_is_ready_without_features_is_not_served(rig: Rig) -> None:
    rig.start()
    rig.w(0x70, 0)
    rig.w(0x70, 7)
    rig.make_queue(0)
    rig.chain(0, [], [8])
    rig.make_available(0, 0)
    rig.notify(0)
    assert rig.time.timeline.next_tick is None


def test_rings_wrap(rig: Rig) -> None:
    rig.start()
    for number in range(70_000 // 8 + 20):
        heads = [(number + at) % 8 for at in range(8)]
        for head in heads:
            rig.chain(0, [], [4], head)
        rig.make_available(0, *heads)
        if number % 97 == 0 or number > 8190:
            rig.notify(0)
            rig.time.advance(SECOND)
            assert rig.half(rig.place(0)[2] + 2) == rig.available[0]
        else:
            rig.transport.queues[0].next_avail = rig.available[0]
            rig.transport.queues[0].next_used = rig.available[0]
    assert not rig.r(0x70) & 64


def test_a_reset_gives_up_the_request_in_flight(rig: Rig) -> None:
    rig.start()
    rig.chain(0, [], [8])
    rig.make_available(0, 0)
    rig.notify(0)
    rig.w(0x70, 0)
    rig.time.advance(SECOND)
    assert not rig.used(0) and not rig.line.level and rig.r(0x70) == 0
    rig.w(0x24, 0)  # which a reset does not change
    fresh = Rig(Rng(0))
    assert rig.transport.save() == fresh.transport.save()
    fresh.close()
    rig.start()
    assert rig.ask(0, [], [8])[0] == 8


def test_one_queue_can_be_reset(rig: Rig) -> None:
    rig.start(F_VERSION_1 | RING_RESET)
    rig.chain(0, [], [8])
    rig.make_available(0, 0)
    rig.notify(0)
    rig.w(0xC0, 1)
    assert rig.r(0xC0) == 0 and rig.r(0x44) == 0
    rig.time.advance(SECOND)
    assert not rig.used(0) and rig.r(0x70) == 15
    rig.make_queue(0)
    assert rig.ask(0, [], [8])[0] == 8


def test_a_queue_in_use_cannot_be_moved(rig: Rig) -> None:
    rig.start()
    rig.w(0x80, 0)
    rig.w(0x38, 4)
    assert rig.ask(0, [], [8])[0] == 8 and rig.transport.queues[0].size == 8


def test_indirect_tables(rig: Rig) -> None:
    rig.start(F_VERSION_1 | INDIRECT_DESC)
    table, first, second = rig.buffer(32), rig.buffer(5), rig.buffer(7)
    rig.describe(table, 0, first, 5, WRITE | NEXT, 1)
    rig.describe(table, 1, second, 7, WRITE)
    rig.describe(rig.place(0)[0], 3, table, 32, INDIRECT)
    rig.make_available(0, 3)
    rig.notify(0)
    rig.time.advance(SECOND)
    assert rig.used(0) == [(3, 12)]


def test_an_indirect_table_counts_as_it_is_when_the_request_is_served(rig: Rig) -> None:
    """A driver that changes it meanwhile, or a restored machine, finds the same as if nobody had looked before."""
    rig.start(F_VERSION_1 | INDIRECT_DESC)
    table, first, second = rig.buffer(16), rig.buffer(64), rig.buffer(64)
    rig.describe(rig.place(0)[0], 0, table, 16, INDIRECT)
    rig.describe(table, 0, first, 64, WRITE)
    rig.make_available(0, 0)
    rig.notify(0)
    rig.describe(table, 0, second, 32, WRITE)
    rig.time.advance(SECOND)
    assert rig.used(0) == [(0, 32)]
    assert not any(rig.read(first, 64)) and any(rig.read(second, 32))


@pytest.mark.parametrize(
    ("event", "rises"), [(0, True), (1, False), (5, False), (0xFFFF, False)], ids=["now", "next", "later", "past"]
)
def test_interrupts_come_at_the_event(rig: Rig, event: int, rises: bool) -> None:
    rig.start(F_VERSION_1 | EVENT_IDX)
    assert rig.ask(0, [], [8])[0] == 8  # the first answer is always signalled
    assert rig.r(0x60) == 1
    rig.w(0x64, 3)
    rig.write(rig.place(0)[1] + 4 + 2 * rig.size, struct.pack("<H", event + 1 & 0xFFFF))
    assert rig.ask(0, [], [8])[0] == 8
    assert rig.line.level == rises
    assert rig.half(rig.place(0)[2] + 4 + 8 * rig.size) == 2  # when it wants to be notified


def test_interrupts_can_be_suppressed(rig: Rig) -> None:
    rig.start()
    rig.write(rig.place(0)[1], b"\1\0")
    assert rig.ask(0, [], [8])[0] == 8
    assert not rig.line.level and rig.r(0x60) == 0


def loop(rig: Rig) -> None:
    for at in range(rig.size):
        rig.describe(rig.place(0)[0], at, rig.buffer(1), 1, WRITE | NEXT, (at + 1) % rig.size)
    rig.make_available(0, 0)


def loop_of_tables(rig: Rig) -> None:
    table = rig.buffer(16)
    rig.describe(table, 0, table, 16, INDIRECT)
    rig.describe(rig.place(0)[0], 0, table, 16, INDIRECT)
    rig.make_available(0, 0)


def huge_table(rig: Rig) -> None:
    rig.describe(rig.place(0)[0], 0, BASE, 0xFFFFFFF0, INDIRECT)
    rig.make_available(0, 0)


def ragged_table(rig: Rig) -> None:
    rig.describe(rig.place(0)[0], 0, rig.buffer(32), 24, INDIRECT)
    rig.make_available(0, 0)


def outside(rig: Rig) -> None:
    rig.describe(rig.place(0)[0], 0, BASE + SIZE - 4, 8, WRITE)
    rig.make_available(0, 0)


def far_outside(rig: Rig) -> None:
    rig.describe(rig.place(0)[0], 0, (1 << 64) - 4, 8, WRITE)
    rig.make_available(0, 0)


def empty(rig: Rig) -> None:
    rig.describe(rig.place(0)[0], 0, BASE, 0, WRITE)
    rig.make_available(0, 0)


def wrong_order(rig: Rig) -> None:
    rig.describe(rig.place(0)[0], 0, rig.buffer(8), 8, WRITE | NEXT, 1)
    rig.describe(rig.place(0)[0], 1, rig.buffer(8), 8, 0)
    rig.make_available(0, 0)


def no_such_head(rig: Rig) -> None:
    rig.make_available(0, rig.size)


def too_many(rig: Rig) -> None:
    rig.write(rig.place(0)[1] + 2, struct.pack("<H", rig.size + 1))


def too_long(rig: Rig) -> None:
    rig.w(0x70, 0)
    rig.negotiate(COMMON_FEATURES)
    rig.make_queue(0)
    rig.w(0x70, 15)
    table = rig.buffer(16 * 80)
    for at in range(80):
        rig.describe(table, at, BASE, SIZE, WRITE | (NEXT if at < 79 else 0), at + 1)
    rig.describe(rig.place(0)[0], 0, table, 16 * 80, INDIRECT)
    rig.make_available(0, 0)


def outside_rings(rig: Rig) -> None:
    rig.w(0x44, 0)
    rig.w(0x94, 1)
    rig.w(0x44, 1)


def unreachable_answers(rig: Rig) -> None:
    rig.w(0x44, 0)
    rig.w(0xA0, 0)
    rig.w(0x44, 1)
    rig.chain(0, [], [8])
    rig.make_available(0, 0)


@pytest.mark.parametrize(
    "harm",
    [
        *(loop, loop_of_tables, huge_table, ragged_table, outside, far_outside, empty, wrong_order, no_such_head),
        *(too_many, too_long, outside_rings, unreachable_answers),
    ],
)
def test_what_no_driver_writes_stops_the_device_until_a_reset(rig: Rig, harm: Callable[[Rig], None]) -> None:
    rig.start(COMMON_FEATURES & ~EVENT_IDX)
    harm(rig)
    rig.notify(0)
    rig.time.advance(SECOND)
    assert rig.r(0x70) == 15 | 64
    assert rig.r(0x60) & 2 and rig.line.level
    rig.notify(0)
    assert rig.time.timeline.next_tick is None
    rig.start()
    assert rig.r(0x70) == 15 and rig.ask(0, [], [8])[0] == 8


def test_what_does_not_exist_is_ignored(rig: Rig) -> None:
    rig.start()
    before = rig.transport.save()
    rig.w(0x30, 1)
    assert rig.r(0x34) == 0 and rig.r(0x44) == 0
    for offset in (0x38, 0x44, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4, 0xC0):
        rig.w(offset, 1)
    rig.w(0x30, MAX_SIZE)
    rig.notify(1)
    rig.notify(0xFFFFFFFF)
    rig.w(0x30, 0)
    assert rig.transport.save() == before
    assert rig.r(0x100) == 0xFFFFFFFF and rig.r(0x100, 1) == 0xFF
    assert rig.r(0x70, 1) == 0 and rig.r(0x70, 2) == 0


def test_a_transport_goes_on_from_its_state(rig: Rig) -> None:
    rig.start(COMMON_FEATURES)
    rig.chain(0, [], [100])
    rig.make_available(0, 0)
    rig.notify(0)
    again = Rig(Rng(0))
    again.memory.write_ram(Gpa(BASE), rig.read(BASE, SIZE))
    again.transport.restore(rig.transport.save())
    again.time.timeline.restore(rig.time.timeline.save())
    for one in (rig, again):
        one.time.advance(SECOND)
    assert again.transport.save() == rig.transport.save()
    assert again.read(BASE, SIZE) == rig.read(BASE, SIZE) and again.used(0) == [(0, 100)]
    again.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("device_id", 2), ("status", 256), ("isr", 4), ("features", 1), ("serving", 1), ("head", 3), ("driver_select", 2)],
)
def test_what_is_no_state_of_a_transport_is_refused(rig: Rig, name: str, value: int) -> None:
    state = {**rig.transport.save(), name: value}
    with pytest.raises(StateError):
        rig.transport.restore(state)


def test_empty_slots_say_that_they_are_empty(rig: Rig) -> None:
    slots = VirtioSlots((31,), [rig.transport])
    assert [slots.read(offset, 4) for offset in (0, 4, 8, 0xC, 0x10, 0x34, 0x70, 0x100)] == [
        *(0x74726976, 2, 0, 0x554D4551, 0, 0, 0, 0)
    ]
    assert slots.read(31 * 0x200 + 8, 4) == 4
    slots.write(0x70, 4, 1)
    slots.write(31 * 0x200 + 0x70, 4, 1)
    assert slots.read(0x70, 4) == 0 and slots.read(31 * 0x200 + 0x70, 4) == 1
