"""The network back end: frames in both directions, checksums, parts, grants that end, and rings that make no sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import pytest

from dbt.devices.ethernet import LONGEST_FRAME, segments, with_checksum
from dbt.hypervisor.xen.back_ends.back_end import Phase
from dbt.hypervisor.xen.back_ends.net import MOST_BYTES, MOST_FRAMES, NetBackEnd
from tests.devices.packets import packet, segment
from tests.xen.front_ends import DATA, FIRST_GRANT, PERMIT, READ_ONLY, READING, RING, Ring
from tests.xen.net_front_end import ADDRESS, BLANK, ERROR, EXTRA, LONG, MORE, NOTHING, OK, Card, divided, part


@pytest.fixture
def card() -> Iterator[Card]:
    one = Card()
    yield one
    one.bench.close()


def test_it_says_what_it_is(card: Card) -> None:
    assert card.front.phase == Phase.CONNECTED
    said = {name: card.front.said(name) for name in ("feature-sg", "feature-rx-copy", "feature-gso-tcpv4", "mac")}
    assert said == {
        "feature-sg": b"1",
        "feature-rx-copy": b"1",
        "feature-gso-tcpv4": b"1",
        "mac": b"52:54:00:12:34:56",
    }


def test_frames_are_sent(card: Card) -> None:
    """One, several at once, and one in parts, whose first request has the size of all."""
    random = Random(1)
    data = random.randbytes(8 << 12)
    card.bench.write(DATA, data)
    assert card.send(part(60, number=5)) == [(5, OK)]
    assert card.send(part(14, number=1, offset=100), part(1500, number=2, reference=17)) == [(1, OK), (2, OK)]
    assert card.sent == [data[:60], data[100:114], data[4096:5596]]
    card.sent.clear()
    parts = [part(9000, MORE, 1, 96), part(4000, MORE, 2, 0, 17), part(1000, 0, 3, 3096, 18)]
    assert card.send(*parts) == [(1, OK), (2, OK), (3, OK)]
    assert card.sent == [data[96:4096] + data[4096:8096] + data[8192 + 3096 : 8192 + 4096]]


@pytest.mark.parametrize(("protocol", "version"), [(6, 4), (17, 4), (6, 6), (17, 6)])
def test_checksums_are_filled_in_as_negotiated(card: Card, protocol: int, version: int) -> None:
    frame, _, _ = packet(protocol, Random(1).randbytes(700), version, vlan=False)
    card.bench.write(DATA, frame)
    assert card.send(part(len(frame), BLANK), part(len(frame))) == [(0, OK), (0, OK)]
    assert card.sent == [with_checksum(frame), frame]
    assert card.send(part(40, BLANK)) == [(0, ERROR)] and len(card.sent) == 2  # which has none


@pytest.mark.parametrize("version", [4, 6])
def test_a_long_segment_is_divided(card: Card, version: int) -> None:
    """In parts in two pages. A segment that need not be divided has its checksums filled in."""
    kind = 1 if version == 4 else 2
    frame = segment(Random(1).randbytes(5000), version, options=3)
    card.bench.write(DATA, frame)
    parts = part(len(frame), EXTRA | MORE | BLANK, 5), divided(1448, kind), part(len(frame) - 4096, 0, 6, 0, 17)
    assert card.send(*parts) == [(5, OK), (0, NOTHING), (6, OK)]
    assert card.sent == segments(frame, 1448) and len(card.sent) == 4
    assert card.send(part(100, EXTRA | BLANK, 7), divided(1448, kind)) == [(7, ERROR), (0, NOTHING)]  # it ends there
    short = segment(b"\1\2\3", version)
    card.bench.write(DATA, short)
    assert card.send(part(len(short), EXTRA | BLANK), divided(1448, kind))[0] == (0, OK)
    assert card.sent[4:] == segments(short, 1448) == [with_checksum(card.sent[4])]


@pytest.mark.parametrize("extra", [divided(0, 1), divided(39, 1), divided(1448, 3), divided(1448, 0), divided(9, 1, 2)])
def test_what_is_not_divided(card: Card, extra: bytes) -> None:
    """Into nothing, into more than 128, or by a kind that was not offered: the frame is lost, and the next one sent."""
    frame = segment(bytes(5000), 4)
    card.bench.write(DATA, frame)
    parts = part(len(frame), EXTRA | MORE | BLANK, 5), extra, part(len(frame) - 4096, 0, 6, 0, 17)
    assert card.send(*parts, part(60, number=7)) == [(5, ERROR), (0, NOTHING), (6, ERROR), (7, OK)]
    assert card.sent == [frame[:60]]


def test_what_is_not_sent(card: Card) -> None:
    """Frames that are too short, or not granted, or ask for what was not offered: each is answered."""
    extra = divided(500, 1, flags=1), divided(0, 0, kind=2)
    assert card.send(part(13, number=1), part(0, number=2)) == [(1, ERROR), (2, ERROR)]
    assert card.send(part(100, EXTRA, 3), *extra) == [(3, ERROR), (0, NOTHING), (0, NOTHING)]
    card.grant(1, 0)
    assert card.send(part(100, number=4, reference=17), part(100, number=5, reference=999)) == [(4, ERROR), (5, ERROR)]
    assert card.send(part(200, MORE, 6), part(100, 0, 7, reference=17)) == [(6, ERROR), (7, ERROR)]
    assert not card.sent
    card.grant(0, PERMIT | READ_ONLY)  # as front ends grant what they send
    assert card.send(part(100, number=8)) == [(8, OK)]


@pytest.mark.parametrize(
    "requests",
    [
        [part(100, MORE)],
        [part(100, EXTRA)],
        [part(100, offset=4000)],
        [part(100, MORE), part(101)],
        [part(5000, MORE), part(100)],
        [part(5000)],
        [part(20_000, MORE)] * 18 + [part(100)],
        [part(100, MORE), part(50, 0, 0, 4090)],
    ],
)
def test_what_no_front_end_sends_ends_the_connection(card: Card, requests: Sequence[bytes]) -> None:
    card.send(*requests)
    assert card.front.phase == Phase.CLOSING and not card.sent
    assert not card.bench.flags(FIRST_GRANT) & READING and not card.bench.flags(FIRST_GRANT + 1) & READING
    card.arrive(bytes(100))  # which nobody gets


def test_frames_arrive(card: Card) -> None:
    """They wait for pages. One that is longer than a page is in several of them."""
    frames = [bytes([number]) * (60 + number) for number in range(3)]
    for frame in frames:
        card.arrive(frame)
    assert card.received() == []
    card.offer(7, 3)
    assert card.received() == [(7, 0, 0, 60), (3, 0, 0, 61)]
    assert card.bench.read(DATA + (7 << 12), 60) == frames[0]
    long = Random(1).randbytes(9000)
    card.arrive(long)
    card.offer(1)
    assert card.received() == [(1, 0, 0, 62)]
    card.offer(4, 5)
    assert card.received() == []
    card.offer(6)
    assert card.received() == [(4, 0, MORE, 4096), (5, 0, MORE, 4096), (6, 0, 0, 808)]
    assert card.bench.read(DATA + (4 << 12), 9000) == long


def stream(version: int, size: int) -> tuple[bytes, list[bytes]]:
    """Return a long segment of TCP with so many bytes of content, and the frames that it is divided into."""
    frame = bytearray(segment(Random(size).randbytes(size), version, options=3))
    frame[(34 if version == 4 else 54) + 13] = 0x18  # ACK, PSH
    return bytes(frame), segments(bytes(frame), 1448)


@pytest.mark.parametrize("version", [4, 6])
def test_segments_that_arrive_together_are_one_long_segment(version: int) -> None:
    """Between other frames. Each extra answer, of a kind and a size, takes a page's place."""
    card = Card(joins=1)
    frame, frames = stream(version, 10_000)
    card.offer(*range(8))
    card.arrive(bytes(60), *frames, bytes(61))
    extra = (1, 1448, 1 if version == 4 else 2, 0)
    first, last = (1, 0, MORE | LONG, 4096), (4, 0, 0, len(frame) - 8192)
    assert card.received() == [(0, 0, 0, 60), first, extra, (3, 0, MORE, 4096), last, (5, 0, 0, 61)]
    got = b"".join(card.bench.read(DATA + (page << 12), 4096) for page in (1, 3, 4))[: len(frame)]
    assert segments(got, 1448) == frames
    card.bench.close()


def test_a_long_segment_has_as_many_parts_as_there_are_pages() -> None:
    """And waits as the frames that it is made of, of which a restored card makes the same."""
    card = Card(joins=1)
    _, frames = stream(4, 20_000)
    card.arrive(*frames)
    state = card.bench.board.save()
    found = []
    for _ in range(2):
        card.rx = Ring(card.bench, RING + 0x1000, FIRST_GRANT + 1, 8, 8)
        card.bench.grant(FIRST_GRANT + 1, RING + 0x1000, PERMIT | READING)
        got = []
        for count in (1, 2, 3, 4, 5):
            card.offer(*range(count))
            got.append(card.received())
        found.append(got)
        card.bench.board.restore(state)
    assert found[0] == found[1]
    one, two, three, four, five = found[0]
    extra = (1, 1448, 1, 0)
    assert one == [(0, 0, 0, 1514)]
    assert two == [(0, 0, LONG, 66 + 2 * 1448), extra]
    assert three == [(0, 0, MORE | LONG, 4096), extra, (2, 0, 0, 66 + 5 * 1448 - 4096)]
    assert four[-1] == (3, 0, 0, 66 + 5 * 1448 + 1176 - 8192), "the last one has 1176 bytes"
    assert five == []
    card.bench.close()


@pytest.mark.parametrize("features", ["spreads", "joins"])
def test_segments_are_not_joined_unless_the_front_end_agrees(features: str) -> None:
    card = Card(spreads=features != "spreads", joins=features != "joins")
    _, frames = stream(4, 5000)
    card.offer(*range(8))
    card.arrive(*frames)
    assert [answer[2:] for answer in card.received()] == [(0, len(frame)) for frame in frames]
    card.bench.close()


def test_the_front_end_hears_once_of_frames_that_arrive_together(card: Card) -> None:
    card.offer(*range(8))
    domain = card.bench.board.hypervisor
    assert domain is not None
    (counts,) = (one.counts for one in domain.back_ends)
    before = counts.notifications
    card.arrive(*(bytes([number]) * 60 for number in range(12)))
    assert [size for _, _, _, size in card.received()] == [60] * 8
    assert counts.notifications == before + 1
    card.offer(8, 9, 10, 11, 12)  # for which the back end has asked, because frames wait
    assert len(card.received()) == 4
    assert not card.rx.put(bytes(8))  # nothing waits


def test_without_scatter_gather_a_frame_is_no_longer_than_a_page() -> None:
    card = Card(spreads=0)
    card.offer(*range(8))
    card.arrive(bytes(4097))
    card.arrive(bytes(4096))
    assert card.received() == [(0, 0, 0, 4096)]
    card.bench.close()


@pytest.mark.parametrize("at_once", [1, 7, 3000])
def test_more_frames_than_can_wait_are_lost(card: Card, at_once: int) -> None:
    """However they come: those that find a page at once are no part of them."""
    card.offer(*range(32))
    frames = [number.to_bytes(2, "big") * 30 for number in range(2 * MOST_FRAMES)]
    for first in range(0, len(frames), at_once):
        card.arrive(*frames[first : first + at_once])
    card.arrive(bytes(13))
    total = len(card.received())
    last = b""
    while total < MOST_FRAMES + 32:
        card.offer(*range(32))
        total += len(card.received())
        last = card.bench.read(DATA + (31 << 12), 60)
    assert last == frames[total - 1]
    card.offer(0)
    assert card.received() == []


def test_long_frames_that_wait_are_fewer(card: Card) -> None:
    card.arrive(*([bytes(LONGEST_FRAME)] * 300), bytes(60))
    domain = card.bench.board.hypervisor
    assert domain is not None
    (back_end,) = domain.back_ends
    assert isinstance(back_end, NetBackEnd)
    assert len(back_end.frames) == MOST_BYTES // LONGEST_FRAME == 256
    assert back_end.is_possible()


def test_pages_that_are_not_granted_get_nothing(card: Card) -> None:
    before = card.bench.read(DATA, 3 << 12)
    card.grant(0, PERMIT | READ_ONLY)
    card.grant(1, 0)
    card.offer(0, 1, 2)
    for _ in range(3):
        card.arrive(b"\x77" * 60)
    assert card.received() == [(0, 0, 0, ERROR), (1, 0, 0, ERROR), (2, 0, 0, 60)]
    assert card.bench.read(DATA, 2 << 12) == before[: 2 << 12]


def test_a_restored_card_goes_on(card: Card) -> None:
    card.arrive(b"\x11" * 60)
    state = card.bench.board.save()
    for _ in range(2):
        card.rx = Ring(card.bench, RING + 0x1000, FIRST_GRANT + 1, 8, 8)
        card.bench.grant(FIRST_GRANT + 1, RING + 0x1000, PERMIT | READING)
        card.offer(2)
        assert card.received() == [(2, 0, 0, 60)]
        card.bench.board.restore(state)
    domain = card.bench.board.hypervisor
    assert domain is not None
    (back_end,) = domain.back_ends
    assert isinstance(back_end, NetBackEnd)
    back_end.announce()
    assert card.sent[-1][6:14] == ADDRESS + b"\x80\x35"
