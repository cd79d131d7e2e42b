"""Limits of devices: token buckets in virtual time, which count exactly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbt.devices.virtio.throttle import TokenBucket
from dbt.vm.device_limits import DiskLimits, NetLimits, Rate, packed
from tests.devices.virtio.disks import a_file, direct
from tests.devices.virtio.driver import SECOND, Rig
from tests.devices.virtio.every_device import network_card

TICKS = 10**8
RECEIVE, TRANSMIT = range(2)
BROADCAST = b"\xff" * 6


def frame() -> bytes:
    """A frame of 10,000 bits."""
    return BROADCAST.ljust(1250, b"d")


def bucket(rate: int, burst: int = 0, now: int = 0) -> TokenBucket:
    made = TokenBucket()
    made.set(rate, burst, now, TICKS)
    return made


@pytest.mark.parametrize(("rate", "units"), [(1_000_000, 12_000), (3, 1), (7, 1000), (999_999_937, 17)])
def test_units_are_through_exactly_when_their_share_of_a_second_has_passed(rate: int, units: int) -> None:
    """No fraction of a tick is lost: the tick is the first at which as many seconds as units / rate are over."""
    one = bucket(rate)
    for count in range(1, 2000):
        assert one.take(units, 0, TICKS) == -(-count * units * TICKS // rate)


def test_what_is_not_used_is_kept_up_to_the_burst() -> None:
    one = bucket(1000, burst=500)
    assert [one.take(100, 0, TICKS) for _ in range(7)] == [0, 0, 0, 0, 0, TICKS // 10, TICKS // 5]
    late = TICKS * 100
    assert [one.take(100, late, TICKS) - late for _ in range(6)] == [0, 0, 0, 0, 0, TICKS // 10]


def test_without_a_rate_everything_is_through() -> None:
    one = bucket(10)
    assert one.take(10, 5, TICKS) == TICKS + 5
    one.set(0, 0, 5, TICKS)
    assert one.take(1 << 40, 5, TICKS) == 5


def test_the_same_limit_again_changes_nothing() -> None:
    one = bucket(10)
    one.take(100, 0, TICKS)
    before = one.save()
    one.set(10, 0, 5, TICKS)
    assert one.save() == before
    one.set(11, 0, 5, TICKS)
    assert one.take(11, 5, TICKS) == TICKS + 5


@pytest.fixture
def sent() -> list[bytes]:
    return []


@pytest.fixture
def card(sent: list[bytes]) -> Iterator[Rig]:
    one = Rig(network_card(sent), size=64)
    one.start()
    yield one
    one.close()


def limit(rig: Rig, limits: DiskLimits | NetLimits) -> None:
    rig.transport.set_limits(packed(limits))


def send(rig: Rig, count: int) -> None:
    for number in range(count):
        rig.chain(TRANSMIT, [bytes(12) + frame()], [], first=number)
        rig.make_available(TRANSMIT, number)
    rig.notify(TRANSMIT)


def test_frames_are_sent_at_the_rate(card: Rig, sent: list[bytes]) -> None:
    limit(card, NetLimits(sent=Rate(1_000_000)))  # a frame takes 10 ms
    send(card, 20)
    assert not sent
    for count in range(1, 21):
        card.time.advance(SECOND // 100 - 1)
        assert len(sent) == count - 1
        card.time.advance(1)
        assert len(sent) == count == len(card.used(TRANSMIT))


def test_a_limit_can_be_changed_and_taken_away_while_frames_wait(card: Rig, sent: list[bytes]) -> None:
    limit(card, NetLimits(sent=Rate(1_000_000)))
    send(card, 20)
    card.time.advance(SECOND // 100)
    assert len(sent) == 1
    limit(card, NetLimits(sent=Rate(10_000_000)))  # what has begun goes on as it has
    card.time.advance(SECOND // 100)
    assert len(sent) == 2
    card.time.advance(SECOND // 1000)
    assert len(sent) == 3
    limit(card, NetLimits())
    card.time.advance(SECOND // 1000)
    assert len(sent) == 20
    send(card, 3)
    assert len(sent) == 23


def test_frames_are_received_at_the_rate(card: Rig) -> None:
    limit(card, NetLimits(received=Rate(1_000_000)))
    for number in range(20):
        card.chain(RECEIVE, [], [1600], first=number)
        card.make_available(RECEIVE, number)
    card.notify(RECEIVE)
    for _ in range(10):
        card.transport.receive([frame()])
    for count in range(1, 11):
        card.time.advance(SECOND // 100 - 1)
        assert len(card.used(RECEIVE)) == count - 1
        card.time.advance(1)
        assert len(card.used(RECEIVE)) == count
    limit(card, NetLimits())
    card.transport.receive([frame()])
    assert len(card.used(RECEIVE)) == 11


def test_a_jump_of_time_loses_nothing_of_what_waits(card: Rig, sent: list[bytes]) -> None:
    """A host that does not let a guest execute for a while lets its time jump afterwards."""
    limit(card, NetLimits(sent=Rate(1_000_000), received=Rate(1_000_000)))  # a frame takes 10 ms
    for number in range(20):
        card.chain(RECEIVE, [], [1600], first=number)
        card.make_available(RECEIVE, number)
    card.notify(RECEIVE)
    card.transport.receive([frame() for _ in range(12)])
    send(card, 12)
    card.time.jump(SECOND // 100 * 7 + 5)
    assert (len(sent), len(card.used(RECEIVE))) == (7, 7)
    card.time.advance(SECOND // 100 - 6)
    assert (len(sent), len(card.used(RECEIVE))) == (7, 7)
    card.time.advance(1)
    assert (len(sent), len(card.used(RECEIVE))) == (8, 8)
    card.time.jump(SECOND)  # after which nothing has waited any more
    assert (len(sent), len(card.used(RECEIVE))) == (12, 12)
    send(card, 2)
    assert len(sent) == 12
    card.time.advance(SECOND // 100)
    assert len(sent) == 13


def test_a_reset_forgets_frames_but_not_the_limit(card: Rig, sent: list[bytes]) -> None:
    limit(card, NetLimits(sent=Rate(1_000_000), received=Rate(1_000_000)))
    send(card, 3)
    card.transport.receive([frame()])
    card.start()
    card.time.advance(SECOND)
    assert not sent
    send(card, 2)
    card.time.advance(SECOND // 100)
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("limits", "ticks"),
    [
        (DiskLimits(), SECOND * 24 // 1_000_000),  # 20 us and a nanosecond for each byte
        (DiskLimits(operations=Rate(100)), SECOND // 100),
        (DiskLimits(bytes=Rate(1 << 20)), SECOND // 256),
        (DiskLimits(bytes=Rate(1 << 20), operations=Rate(100)), SECOND // 100),
    ],
)
def test_a_disk_takes_longer(limits: DiskLimits, ticks: int) -> None:
    rig = Rig(direct(a_file()))
    rig.start()
    limit(rig, limits)
    rig.chain(0, [bytes(16)], [4096, 1])
    for count in range(1, 5):
        rig.make_available(0, 0)
        rig.notify(0)
        rig.time.advance(ticks - 1)
        assert len(rig.used(0)) == count - 1
        rig.time.advance(20)
        assert len(rig.used(0)) == count
    rig.close()


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(48), b"\xff" * 32])
def test_what_are_no_limits_is_refused(card: Rig, data: bytes) -> None:
    with pytest.raises(ValueError, match="are no limits of a device that has 2"):
        card.transport.set_limits(data)


@pytest.mark.parametrize("rate", [Rate(0), Rate(-1), Rate(1 << 48), Rate(1, -1), 5, (1,), (1.5, 0), (True, 0)])
def test_rates_that_make_no_sense_are_refused(rate: Rate) -> None:
    with pytest.raises(ValueError, match="the limit of received is"):
        packed(NetLimits(received=rate))
