"""The socket device: connections from both sides, data and credit, half-closed directions, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbt.devices.state import StateError
from dbt.devices.virtio.vsock import MOST_CONNECTIONS, MOST_RESETS
from dbt.devices.virtio.vsock_packet import BUFFER, HEADER_SIZE, Connection, Kind, Message, Op, Stage
from tests.devices.virtio.driver import SECOND
from tests.devices.virtio.vsock_guest import CID, EVENT, TRANSMIT, Guest


@pytest.fixture
def guest() -> Iterator[Guest]:
    one = Guest()
    yield one
    one.rig.close()


def test_configuration(guest: Guest) -> None:
    assert guest.rig.r(0x08) == 19
    assert (guest.rig.r(0x100), guest.rig.r(0x104)) == (CID, 0)


def test_the_guest_connects(guest: Guest) -> None:
    guest.start()
    guest.connect()
    guest.send(Op.RW, b"hello")
    assert guest.told() == [Message(Kind.DATA, 1000, 52, 0, b"hello")]
    guest.hear(Kind.DATA, data=b"world")
    [(op, header, data)] = guest.got()
    assert (op, data) == (Op.RW, b"world")
    assert (header.src_port, header.dst_port, header.buf_alloc, header.fwd_cnt) == (52, 1000, BUFFER, 0)
    assert guest.told() == [Message(Kind.CREDIT, 1000, 52, 5)]
    guest.hear(Kind.CREDIT, 5)
    guest.send(Op.CREDIT_REQUEST)
    [(op, header, _)] = guest.got()
    assert (op, header.fwd_cnt) == (Op.CREDIT_UPDATE, 5)
    guest.send(Op.SHUTDOWN, flags=3)
    assert guest.told() == [Message(Kind.END, 1000, 52, 3)]
    assert guest.ops() == [Op.RST] and guest.device.is_idle


def test_the_guest_is_refused(guest: Guest) -> None:
    guest.start()
    guest.send(Op.REQUEST)
    guest.hear(Kind.RESET)
    assert guest.ops() == [Op.RST] and guest.device.is_idle
    guest.send(Op.REQUEST, type=2)
    assert guest.ops() == [Op.RST]
    assert guest.told() == [Message(Kind.CONNECT, 1000, 52)]


def test_the_host_connects(guest: Guest) -> None:
    guest.hear(Kind.CONNECT)
    assert guest.told() == [Message(Kind.RESET, 1000, 52)]  # there is no driver
    guest.start()
    guest.hear(Kind.CONNECT)
    assert guest.ops() == [Op.REQUEST]
    guest.send(Op.RESPONSE)
    assert guest.told() == [Message(Kind.ACCEPT, 1000, 52)]
    guest.hear(Kind.DATA, data=b"x")
    guest.hear(Kind.END, 2)
    assert guest.ops() == [Op.RW, Op.SHUTDOWN]
    guest.send(Op.RST)
    assert guest.told() == [Message(Kind.CREDIT, 1000, 52, 1), Message(Kind.RESET, 1000, 52)]
    guest.hear(Kind.CONNECT)
    guest.send(Op.RST)  # nobody listens
    assert guest.told() == [Message(Kind.RESET, 1000, 52)]
    assert guest.ops() == [Op.REQUEST] and guest.device.is_idle


def test_data_is_cut_to_buffers_and_credit(guest: Guest) -> None:
    guest.start(3, room=144)
    guest.connect(buf_alloc=250)
    guest.hear(Kind.DATA, data=bytes(range(200)) * 2)
    guest.give_buffers(9, room=144)
    got = guest.got()
    assert [(op, len(data)) for op, _, data in got] == [(Op.RW, 100), (Op.RW, 100), (Op.RW, 50), (Op.CREDIT_REQUEST, 0)]
    guest.send(Op.CREDIT_UPDATE, buf_alloc=250, fwd_cnt=250)
    got += guest.got()
    assert b"".join(data for _, _, data in got) == bytes(range(200)) * 2
    assert sum(message.number for message in guest.told() if message.kind == Kind.CREDIT) == 400


@pytest.mark.parametrize("fwd_cnt", [1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_lie_about_credit_stops_the_stream(guest: Guest, fwd_cnt: int) -> None:
    """Nothing has been sent, and the guest says that it has taken some."""
    guest.start()
    guest.connect()
    guest.send(Op.CREDIT_UPDATE, fwd_cnt=fwd_cnt, buf_alloc=0)
    guest.hear(Kind.DATA, data=b"x")
    assert guest.ops() == []
    guest.send(Op.CREDIT_UPDATE)
    assert guest.ops() == [Op.RW]


def test_who_sends_more_than_there_is_room_for_is_reset(guest: Guest) -> None:
    guest.start()
    guest.connect()
    half = BUFFER // 2
    guest.send(Op.RW, bytes(half))
    guest.send(Op.RW, bytes(half))
    guest.hear(Kind.CREDIT, half)
    [(op, header, _)] = guest.got()
    assert (op, header.fwd_cnt) == (Op.CREDIT_UPDATE, half)
    guest.send(Op.RW, bytes(half))
    assert [message.kind for message in guest.told()] == [Kind.DATA] * 3
    guest.send(Op.RW, b"x")
    assert guest.told() == [Message(Kind.RESET, 1000, 52)]
    assert guest.ops() == [Op.RST]


@pytest.mark.parametrize(
    ("op", "fields"),
    [(Op.REQUEST, {}), (Op.RESPONSE, {}), (0, {}), (99, {}), (Op.RW, {"type": 2}), (Op.RST + 256, {})],
)
def test_what_nobody_sends_resets_the_connection(guest: Guest, op: int, fields: dict[str, int]) -> None:
    guest.start()
    guest.connect()
    guest.send(op, b"", **fields)
    assert guest.told() == [Message(Kind.RESET, 1000, 52)]
    assert guest.ops() == [Op.RST] and guest.device.is_idle


def test_a_direction_is_closed_alone(guest: Guest) -> None:
    guest.start()
    guest.connect()
    guest.send(Op.SHUTDOWN, flags=2)
    assert guest.told() == [Message(Kind.END, 1000, 52, 2)]
    guest.hear(Kind.DATA, data=b"still")
    assert guest.ops() == [Op.RW]
    guest.told()
    guest.send(Op.RW, b"no more")
    assert guest.told() == [Message(Kind.RESET, 1000, 52)]
    assert guest.ops() == [Op.RST]


def test_the_host_closes_after_its_data(guest: Guest) -> None:
    guest.start(1)
    guest.connect()
    guest.hear(Kind.DATA, data=b"last")
    guest.hear(Kind.END, 3)
    guest.give_buffers(4)
    got = guest.got()
    assert [op for op, _, _ in got] == [Op.RW, Op.SHUTDOWN] and got[1][1].flags == 3
    guest.send(Op.RW, b"nobody takes this")
    assert [message.kind for message in guest.told()] == [Kind.CREDIT]
    guest.send(Op.SHUTDOWN, flags=1)
    guest.send(Op.SHUTDOWN, flags=2)
    assert guest.ops() == [Op.RST]


def test_packets_for_nobody(guest: Guest) -> None:
    guest.start()
    guest.send(Op.REQUEST, dst_cid=5)
    guest.send(Op.REQUEST, src_cid=4)
    guest.send(Op.RST)
    assert not guest.got() and not guest.told()
    for op in (Op.RW, Op.SHUTDOWN, Op.CREDIT_UPDATE, Op.CREDIT_REQUEST, Op.RESPONSE, 77):
        guest.send(op)
        assert guest.ops() == [Op.RST]
    assert not guest.told()


def test_refusals_that_nobody_takes_hold_the_guest_up(guest: Guest) -> None:
    guest.start(0)
    for _ in range(2 * MOST_RESETS):
        guest.send(Op.RW)
    assert len(guest.device.resets) == MOST_RESETS
    guest.give_buffers(40)
    guest.rig.time.advance(SECOND)
    assert len(guest.ops()) == 40


def test_there_are_so_many_connections(guest: Guest) -> None:
    guest.start(1)
    for port in range(MOST_CONNECTIONS):
        guest.send(Op.REQUEST, guest_port=port)
    assert len(guest.told()) == len(guest.device.connections) == MOST_CONNECTIONS
    guest.send(Op.REQUEST)
    assert guest.ops() == [Op.RST]
    guest.hear(Kind.CONNECT)
    assert guest.told() == [Message(Kind.RESET, 1000, 52)]
    guest.rig.transport.restore(guest.rig.transport.save())
    guest.rig.w(0x70, 0)
    assert len(guest.told()) == MOST_CONNECTIONS and guest.device.is_idle


def test_connections_take_turns(guest: Guest) -> None:
    guest.start(0)
    for port in range(3):
        guest.send(Op.REQUEST, guest_port=port)
        guest.hear(Kind.ACCEPT, guest_port=port)
        guest.hear(Kind.DATA, data=b"x" * 10_000, guest_port=port)
    guest.give_buffers(9)
    assert [header.dst_port for _, header, _ in guest.got()] == [0, 1, 2] * 3


@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_packet_that_no_driver_sends_breaks_the_device(guest: Guest, is_wrong: bool) -> None:
    guest.start()
    if is_wrong:
        guest.send(Op.RW, b"short", size=6)
    else:
        guest.rig.chain(TRANSMIT, [bytes(HEADER_SIZE - 1)], [])
        guest.rig.make_available(TRANSMIT, 0)
        guest.rig.notify(TRANSMIT)
        guest.rig.time.advance(SECOND)
    assert guest.rig.r(0x70) & 64


def test_a_buffer_without_room_for_a_header_breaks_the_device(guest: Guest) -> None:
    guest.start(1, room=HEADER_SIZE - 1)
    guest.send(Op.RW)
    assert guest.rig.r(0x70) & 64


def test_all_connections_are_lost(guest: Guest) -> None:
    guest.start()
    guest.connect()
    [place] = guest.rig.chain(EVENT, [], [8])
    guest.rig.write(place, b"\xff" * 8)
    guest.hear(Kind.RESTART)
    guest.rig.make_available(EVENT, 0)
    guest.rig.notify(EVENT)
    assert guest.rig.used(EVENT) == [(0, 4)] and guest.rig.read(place, 8) == bytes(4) + b"\xff" * 4
    assert guest.device.is_idle and not guest.told()
    guest.send(Op.RW, b"x")
    assert guest.ops() == [Op.RST]
    guest.hear(Kind.RESTART)
    assert not guest.device.has_event  # there was nothing to lose


def test_a_message_that_was_missed_is_noticed(guest: Guest) -> None:
    guest.start()
    guest.connect()
    guest.rig.transport.receive([Message(Kind.DATA, 1000, 52, 0, b"x").pack(7)])
    assert guest.told() == [Message(Kind.LOST)] and not guest.got()


@pytest.mark.parametrize(
    ("kind", "number", "data"),
    [(Kind.CREDIT, 1, b""), (Kind.DATA, 0, bytes(BUFFER + 1)), (Kind.ACCEPT, 0, b""), (Kind.LOST, 0, b"")],
)
def test_what_no_end_says_resets_the_connection(guest: Guest, kind: Kind, number: int, data: bytes) -> None:
    guest.start()
    guest.connect()
    guest.hear(kind, number, data)
    assert guest.ops() == [Op.RST] and guest.told() == [Message(Kind.RESET, 1000, 52)]


def test_bytes_that_are_no_message_do_nothing(guest: Guest) -> None:
    guest.start()
    before = guest.rig.transport.save()
    for data in (b"", bytes(16), bytes(17), b"\0\0\0\0\x63" + bytes(12)):
        guest.rig.transport.receive([data])
    assert guest.rig.transport.save() == before


@pytest.mark.parametrize(
    "connections",
    [
        [b""],
        [Connection(1, 2, Stage.OPEN).pack()] * 2,
        [Connection(1, 2, 3).pack()],
        [Connection(1, 2, Stage.OPEN, owed=16).pack()],
        [Connection(1, 2, Stage.OPEN, host_end=4).pack()],
        [Connection(1, 2, Stage.OPEN, data=bytes(BUFFER + 1)).pack()],
        [Connection(1, 2, Stage.OPEN, received=BUFFER + 1).pack()],
        [Connection(1, port, Stage.OPEN).pack() for port in range(MOST_CONNECTIONS + 1)],
    ],
)
def test_states_that_cannot_be_are_refused(guest: Guest, connections: list[bytes]) -> None:
    with pytest.raises(StateError):
        guest.device.restore({**guest.device.save(), "connections": connections})
