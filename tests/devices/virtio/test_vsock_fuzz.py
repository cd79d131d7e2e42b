"""Long conversations of a guest, a host and a socket device, in which anybody may say anything at any time."""

from __future__ import annotations

from random import Random

import pytest

from dbt.devices.virtio.vsock import MOST_CONNECTIONS, MOST_RESETS
from dbt.devices.virtio.vsock_packet import BUFFER, WORD, Connection, Kind, Op, Stage
from tests.devices.virtio.vsock_guest import Guest
from tests.long import LONG

_PACKETS = 25_000 if LONG else 1000
_PORTS = (0, 1, 2, WORD)
_NUMBERS = (0, 1, 2, 3, 100, 4096, BUFFER, 1 << 31, WORD)
_OPS = (*Op, Op.REQUEST, Op.REQUEST, Op.RESPONSE, Op.RESPONSE, Op.RW, Op.RW, Op.RW, 0, 9, 0xFFFF)
_KINDS = (*Kind, *[Kind.CONNECT, Kind.DATA, Kind.END] * 3)


class Conversation:
    """One device with the two that it stands between."""

    def __init__(self, seed: int) -> None:
        self.guest = Guest()
        self._random = Random(seed)

    def say(self) -> None:
        """Let the guest or the host say something: mostly what is in its turn, and sometimes what is not."""
        random = self._random
        held = [Connection.unpack(packed) for packed in self.guest.device.connections]
        if held and random.random() < 0.9:
            self._go_on(random.choice(held))
        elif random.randrange(2):
            self._packet(random.choice(_PORTS), random.choice(_PORTS), random.choice(_OPS))
        else:
            self._message(random.choice(_PORTS), random.choice(_PORTS), random.choice(_KINDS))
        if random.random() < 0.5 and self.guest.given - self.guest.taken < 32:
            self.guest.give_buffers(8, random.choice((48, 144, 4096)))

    def _go_on(self, one: Connection) -> None:
        """Say something about a connection."""
        random, ports = self._random, one[:2]
        if random.random() < 0.03:
            self._packet(*ports, random.choice(_OPS))
        elif random.random() < 0.03:
            self._message(*ports, random.choice(_KINDS))
        elif one.stage == Stage.ASKED:
            self._message(*ports, Kind.ACCEPT)
        elif one.stage == Stage.OFFERED:
            self._packet(*ports, Op.RESPONSE)
        elif random.randrange(2):
            op = random.choice((*[Op.RW] * 6, *[Op.CREDIT_UPDATE, Op.CREDIT_REQUEST] * 2, Op.SHUTDOWN))
            self._packet(*ports, op, fwd_cnt=one.sent)
        else:
            self._message(*ports, random.choice((Kind.DATA, Kind.CREDIT)), one.waiting)

    def _packet(self, guest_port: int, host_port: int, op: int, **fields: int) -> None:
        random = self._random
        data = (
            random.randbytes(random.choice((0, 1, 100, 4096, 30_000))) if op == Op.RW or random.random() < 0.1 else b""
        )
        numbers = {"flags": random.choice(_NUMBERS), "buf_alloc": random.choice((*_NUMBERS, *[1 << 18] * 9))}
        numbers["fwd_cnt"] = random.choice(_NUMBERS)
        if random.random() < 0.02:
            fields |= {"type": random.choice((0, 2, 0xFFFF)), "src_cid": random.choice((3, 4, 1 << 32))}
        self.guest.send(op, data, host_port, guest_port, **{**numbers, **fields})

    def _message(self, guest_port: int, host_port: int, kind: Kind, number: int | None = None) -> None:
        random = self._random
        data = random.randbytes(random.choice((0, 1, 5000, BUFFER))) if kind == Kind.DATA else b""
        number = random.choice(_NUMBERS) if number is None else number
        self.guest.hear(kind, number, data, guest_port, host_port)

    def check(self) -> None:
        """The device is in order, and holds no more than it may."""
        device = self.guest.device
        assert device.is_possible() and not self.guest.rig.transport.broken
        assert len(device.connections) <= MOST_CONNECTIONS and len(device.resets) <= MOST_RESETS + MOST_CONNECTIONS
        for op, header, data in self.guest.got():
            assert len(data) == header.size <= 4096 and (not data or op == Op.RW)


@pytest.mark.parametrize("seed", range(4))
def test_anybody_may_say_anything(seed: int) -> None:
    conversation = Conversation(seed)
    conversation.guest.start(0)
    said = set()
    for _ in range(_PACKETS):
        conversation.say()
        conversation.check()
        said |= {message.kind for message in conversation.guest.told()}
    assert said >= {Kind.CONNECT, Kind.ACCEPT, Kind.RESET, Kind.DATA, Kind.CREDIT, Kind.END}
    conversation.guest.rig.transport.restore(conversation.guest.rig.transport.save())
    conversation.guest.rig.close()
