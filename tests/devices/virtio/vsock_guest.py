"""A driver of the socket device as tests use it, and the messages of the host's end."""

from __future__ import annotations

import struct

from dbt.devices.virtio.vsock import Vsock
from dbt.devices.virtio.vsock_packet import HEADER_SIZE, Kind, Message, Op, Packet
from tests.devices.virtio.driver import BASE, BUFFERS, SECOND, SIZE, WRITE, Rig

RECEIVE, TRANSMIT, EVENT = range(3)
CID, HOST = 3, 2
ROOM = 4096
#: Where the buffers for packets are.
_PLACES = BASE + SIZE - 64 * ROOM


class Guest:
    """A driver with one connection in mind, from its port 1000 to port 52 of the host, or the other way round."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.rig = Rig(Vsock(CID, self.said.append), size=64)
        self.taken = 0
        self.given = 0

    @property
    def device(self) -> Vsock:
        assert isinstance(self.rig.device, Vsock)
        return self.rig.device

    def start(self, buffers: int = 32, room: int = ROOM) -> None:
        self.rig.start()
        self.give_buffers(buffers, room)

    def give_buffers(self, count: int, room: int = ROOM) -> None:
        """Give the device buffers for packets, of which each has its own place."""
        rig = self.rig
        for head in (number % rig.size for number in range(self.given, self.given + count)):
            rig.describe(rig.place(RECEIVE)[0], head, _PLACES + ROOM * head, room, WRITE)
            rig.make_available(RECEIVE, head)
        self.given += count
        rig.notify(RECEIVE)

    def send(self, op: int, data: bytes = b"", host_port: int = 52, guest_port: int = 1000, **fields: int) -> None:
        """Send a packet. Its other fields are right, unless they are given."""
        right = {"src_cid": CID, "dst_cid": HOST, "src_port": guest_port, "dst_port": host_port, "size": len(data)}
        right |= {"type": 1, "op": op, "flags": 0, "buf_alloc": 1 << 18, "fwd_cnt": 0}
        packet = Packet(**{**right, **fields}).pack()
        self.rig.free = BUFFERS
        self.rig.chain(TRANSMIT, [packet, data] if data else [packet], [])
        self.rig.make_available(TRANSMIT, 0)
        self.rig.notify(TRANSMIT)
        self.rig.time.advance(SECOND)

    def got(self) -> list[tuple[Op, Packet, bytes]]:
        """Return the packets that have come since the last call."""
        rig, found = self.rig, []
        used = rig.place(RECEIVE)[2]
        while self.taken & 0xFFFF != rig.half(used + 2):
            head, size = struct.unpack("<II", rig.read(used + 4 + 8 * (self.taken % rig.size), 8))
            packet = rig.read(_PLACES + ROOM * head, size)
            header = Packet.unpack(packet[:HEADER_SIZE])
            assert (header.src_cid, header.dst_cid, header.type) == (HOST, CID, 1)
            assert header.size == size - HEADER_SIZE
            found.append((Op(header.op), header, packet[HEADER_SIZE:]))
            self.taken += 1
        return found

    def ops(self) -> list[Op]:
        return [op for op, _, _ in self.got()]

    def hear(self, kind: Kind, number: int = 0, data: bytes = b"", guest_port: int = 1000, host_port: int = 52) -> None:
        """Let a message of the host's end arrive."""
        self.rig.transport.receive([Message(kind, guest_port, host_port, number, data).pack(self.device.arrived)])

    def told(self) -> list[Message]:
        said, self.said[:] = list(self.said), []
        return said

    def connect(self, **fields: int) -> None:
        """Have a connection that the guest asked for."""
        self.send(Op.REQUEST, b"", **fields)
        assert self.told() == [Message(Kind.CONNECT, 1000, 52)]
        self.hear(Kind.ACCEPT)
        assert self.ops() == [Op.RESPONSE]
