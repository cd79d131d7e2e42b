"""The 9p back end: messages and answers by rings of bytes, in turn, and rings that make no sense."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random

import pytest

from dbt.hypervisor.xen.back_ends.back_end import Phase
from tests.xen.front_ends import PERMIT, READING
from tests.xen.ninep_front_end import Pair, Share, message


@pytest.fixture
def share() -> Iterator[Share]:
    one = Share()
    yield one
    one.bench.close()


def test_it_says_what_it_is(share: Share) -> None:
    assert share.front.phase == Phase.CONNECTED
    assert [share.front.said(name) for name in ("versions", "max-rings", "max-ring-page-order")] == [b"1", b"2", b"6"]


@pytest.mark.parametrize("order", [1, 2, 4])
def test_messages_of_all_sizes_go_round_the_rings(order: int) -> None:
    share, random = Share((order, 1)), Random(order)
    for _ in range(60):
        size = random.randrange(share.pairs[0].half - 6)
        sent = message(random.randbytes(size))
        share.pairs[0].send(sent)
        assert share.pairs[0].take() == sent[::-1]
        assert share.requests[-1].room == share.pairs[0].half
    share.bench.close()


def test_rings_are_served_in_turn(share: Share) -> None:
    first, second = share.pairs
    one, other = [message(bytes([number]) * 20) for number in range(2)]
    first.send(one)
    second.send(other)
    assert (first.take(), second.take()) == (one[::-1], other[::-1])
    share.requests.clear()
    for pair, sent in ((first, one * 3), (second, other * 3)):
        for byte in sent:
            share.bench.write(pair.data + pair.half + pair.sent % pair.half, bytes([byte]))
            pair.sent += 1
        share.bench.write(pair.page + 68, struct.pack("<I", pair.sent))
    first.kick()
    assert [request.message for request in share.requests] == [one, other] * 3
    assert (first.take(), second.take()) == (one[::-1] * 3, other[::-1] * 3)


def test_a_message_may_come_in_pieces(share: Share) -> None:
    pair, sent = share.pairs[0], message(b"abcdefghij")
    for byte in sent[:-1]:
        pair.send(bytes([byte]))
    assert not share.requests
    pair.send(sent[-1:])
    assert pair.take() == sent[::-1]


def test_an_answer_waits_for_room(share: Share) -> None:
    pair, sent = share.pairs[0], message(bytes(2500))
    pair.send(sent)
    pair.send(sent)
    pair.send(message(b"last"))
    assert pair.waiting() == sent[::-1] and len(share.requests) == 2
    share.bench.board.restore(share.bench.board.save())
    assert pair.take() == sent[::-1]
    pair.kick()
    assert pair.take() == sent[::-1] + message(b"last")[::-1] and len(share.requests) == 3


@pytest.mark.parametrize("size", [0, 6, 4097, 0xFFFFFFFF])
def test_messages_with_impossible_sizes(share: Share, size: int) -> None:
    share.pairs[0].send(struct.pack("<IBH", size, 1, 1))
    assert share.front.phase == Phase.CLOSING and not share.requests
    assert not any(share.bench.flags(one) & READING for one in share.pairs[0].references)


@pytest.mark.parametrize("offset", [0, 68])
def test_impossible_indices(share: Share, offset: int) -> None:
    pair = share.pairs[0]
    pair.send(message(b""))
    share.bench.write(pair.page + offset, struct.pack("<I", 0x80000000))
    pair.kick()
    if share.front.phase == Phase.CONNECTED:  # as long as there is no answer
        pair.send(message(b"x"))
    assert share.front.phase == Phase.CLOSING


def test_what_the_page_says_is_copied(share: Share) -> None:
    pair = share.pairs[0]
    share.bench.write(pair.page + 128, struct.pack("<III", 9, 0, 0))
    pair.send(message(b"x"))
    assert pair.take() == message(b"x")[::-1]


def test_a_page_that_is_not_granted_any_more(share: Share) -> None:
    pair = share.pairs[0]
    share.bench.grant(pair.references[0], pair.data, 0)
    before = share.bench.read(pair.data, 4096)
    pair.send(message(b"x"))
    assert share.front.phase == Phase.CLOSING and share.bench.read(pair.data, 4096) == before


@pytest.mark.parametrize(
    ("nodes", "order", "flags"),
    [
        ({"version": 2}, 1, PERMIT),
        ({"num-rings": 3}, 1, PERMIT),
        ({"num-rings": 0}, 1, PERMIT),
        ({"num-rings": 2}, 1, PERMIT),
        ({"ring-ref0": 500}, 1, PERMIT),
        ({"event-channel-0": 1}, 1, PERMIT),
        ({}, 0, PERMIT),
        ({}, 7, PERMIT),
        ({}, 1, 0),
        ({}, 1, PERMIT | 4),
    ],
)
def test_a_front_end_that_makes_no_sense(share: Share, nodes: dict[str, object], order: int, flags: int) -> None:
    """Nothing stays in use."""
    for phase in (Phase.CLOSED, Phase.INITIALISING):
        share.front.say("state", phase)
    pair = Pair(share.bench, 0)
    share.bench.write(pair.page + 128, struct.pack("<I", order))
    share.bench.grant(pair.references[1], pair.data + 4096, flags)
    good = {"version": 1, "num-rings": 1, "ring-ref0": pair.reference, "event-channel-0": pair.port}
    share.front.say("ring-ref1", "none")
    share.front.connect({**good, **nodes})
    assert share.front.phase == Phase.CLOSING
    domain = share.bench.board.hypervisor
    assert domain is not None and not domain.grants.held


def test_it_comes_and_goes_again(share: Share) -> None:
    for _ in range(2):
        for phase in (Phase.CLOSING, Phase.CLOSED, Phase.INITIALISING):
            share.front.say("state", phase)
        share.connect((1,))
        share.pairs[0].send(message(b"again"))
        assert share.pairs[0].take() == message(b"again")[::-1]
