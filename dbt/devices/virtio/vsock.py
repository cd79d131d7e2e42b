"""The socket device (virtio 1.2, section 5.10) for stream sockets between the guest and the host.

The device has the protocol: connections, credit, and what is owed to the guest. Behind it is an end on the host
(:mod:`dbt.host.vsock`), to which it says things (``tell``), and from which messages arrive. These are input from
outside. Nothing that the guest says of lengths and credit is trusted: at most :data:`BUFFER` bytes wait in either
direction of at most :data:`MOST_CONNECTIONS` connections.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from dbt.devices.state import Wiring, Word
from dbt.devices.virtio.device import RequestError, VirtioDevice
from dbt.devices.virtio.queue import Chain
from dbt.devices.virtio.vsock_packet import (
    BOTH,
    BUFFER,
    HEADER_SIZE,
    HOST_CID,
    MOST_DATA,
    NO_RECEIVE,
    NO_SEND,
    STREAM,
    WORD,
    Connection,
    Kind,
    Message,
    Op,
    Owed,
    Packet,
    Stage,
    may_say,
)

_RECEIVE, _TRANSMIT, _EVENT = range(3)
#: Connections at once. Who wants more is refused.
MOST_CONNECTIONS: Final = 256
#: Refusals that wait for the guest. While there are more, no packets of the guest's are served.
MOST_RESETS: Final = 64
_PORTS: Final = struct.Struct("<II")
#: VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, the only event that there is.
_TRANSPORT_RESET: Final = bytes(4)
#: The guest is told of so many bytes that the host has taken.
_CREDIT_STEP: Final = BUFFER // 4
_LATENCY_NS: Final = 5_000

#: Takes what the device says to the host's end.
Tell = Callable[[Message], None]


@dataclass(eq=False)
class Vsock(VirtioDevice):
    """A socket device for the guest with the number ``cid``.

    ``connections`` are packed (:class:`Connection`); who got something last is the last. ``resets`` are the ports of
    connections that the guest has to give up. ``is_started`` says that the driver is ready, ``has_event`` that the
    guest is to be told that all connections are lost. ``said`` is a checksum of all that was told, ``arrived`` of all
    that came from the host's end.
    """

    device_id: ClassVar[int] = 19
    queue_count: ClassVar[int] = 3
    input_queues: ClassVar[frozenset[int]] = frozenset({_RECEIVE, _EVENT})
    receiver: ClassVar[str] = "vsock"

    cid: Word
    tell: Wiring[Tell]
    connections: list[bytes] = field(default_factory=list)
    resets: list[bytes] = field(default_factory=list)
    is_started: bool = False
    has_event: bool = False
    said: Word = 0
    arrived: Word = 0

    def is_possible(self) -> bool:
        try:
            held = [Connection.unpack(packed)[:2] for packed in self.connections]
        except ValueError:
            return False
        return (
            len(held) <= MOST_CONNECTIONS
            and len(set(held)) == len(held)
            and len(self.resets) <= MOST_RESETS + MOST_CONNECTIONS
            and all(len(ports) == _PORTS.size for ports in self.resets)
        )

    def start(self, features: int) -> None:
        self.is_started = True

    def reset(self) -> None:
        for packed in self.connections:
            self._say(Kind.RESET, *_PORTS.unpack_from(packed))
        self.connections, self.resets = [], []
        self.is_started = self.has_event = False

    def config(self) -> bytes:
        return self.cid.to_bytes(8, "little")

    def most_bytes(self, queue: int) -> int:
        return HEADER_SIZE + MOST_DATA

    @property
    def is_idle(self) -> bool:
        """True if there is no connection."""
        return not self.connections

    # -- connections ---------------------------------------------------------------------------

    def _find(self, guest_port: int, host_port: int) -> int | None:
        """Return where a connection is in the list."""
        ports = _PORTS.pack(guest_port, host_port)
        return next((at for at, packed in enumerate(self.connections) if packed.startswith(ports)), None)

    def _give_up(self, at: int, tells_host: bool = True, tells_guest: bool = True) -> None:
        """Forget a connection. The guest is not told of one that it has never heard of."""
        held = Connection.unpack(self.connections.pop(at))
        if tells_guest and not held.owed & Owed.REQUEST:
            self.resets.append(_PORTS.pack(*held[:2]))
        if tells_host:
            self._say(Kind.RESET, *held[:2])

    def _say(self, kind: Kind, guest_port: int = 0, host_port: int = 0, number: int = 0, data: bytes = b"") -> None:
        message = Message(kind, guest_port, host_port, number, data)
        self.said = message.checksum(self.said)
        self.tell(message)

    # -- from the guest ------------------------------------------------------------------------

    def can_serve(self, queue: int) -> bool:
        return len(self.resets) < MOST_RESETS

    def duration(self, queue: int, chain: Chain) -> int:
        return _LATENCY_NS + chain.out_size

    def serve(self, queue: int, chain: Chain) -> int:
        if chain.out_size < HEADER_SIZE:
            raise RequestError(f"a packet of a socket begins with a header of {HEADER_SIZE} bytes")
        packet = Packet.unpack(chain.read(0, HEADER_SIZE))
        data = chain.read(HEADER_SIZE, packet.size)
        if len(data) != packet.size:
            raise RequestError(f"a packet of a socket says that it has {packet.size} bytes, and has {len(data)}")
        if (packet.src_cid, packet.dst_cid) == (self.cid, HOST_CID):
            self._take(packet, data)
        return 0

    def _take(self, packet: Packet, data: bytes) -> None:
        """Do what a packet of the guest's to the host says."""
        at = self._find(packet.src_port, packet.dst_port)
        if at is None:
            if packet.op == Op.REQUEST and packet.type == STREAM and len(self.connections) < MOST_CONNECTIONS:
                self._ask(packet)
            elif packet.op != Op.RST:
                self.resets.append(_PORTS.pack(packet.src_port, packet.dst_port))
            return
        held = Connection.unpack(self.connections[at])
        held = held._replace(guest_room=packet.buf_alloc, guest_taken=packet.fwd_cnt)
        if packet.op == Op.RST:
            self._give_up(at, tells_guest=False)
            return
        if held.stage == Stage.OFFERED and not held.owed & Owed.REQUEST and packet.op == Op.RESPONSE:
            self._say(Kind.ACCEPT, *held[:2])
            self.connections[at] = held._replace(stage=Stage.OPEN).pack()
            return
        if (changed := self._change(held, packet, data)) is None:
            self._give_up(at)
        elif changed.guest_end == BOTH:
            self._give_up(at, tells_host=False)
        else:
            self.connections[at] = changed.pack()

    def _ask(self, packet: Packet) -> None:
        """Ask the host for a connection, which the guest wants."""
        held = Connection(
            packet.src_port, packet.dst_port, Stage.ASKED, guest_room=packet.buf_alloc, guest_taken=packet.fwd_cnt
        )
        self.connections.append(held.pack())
        self._say(Kind.CONNECT, *held[:2])

    def _change(self, held: Connection, packet: Packet, data: bytes) -> Connection | None:
        """Return what becomes of an open connection by a packet, or None if the guest must not send it."""
        match packet.op:
            case _ if packet.type != STREAM:
                return None
            case Op.SHUTDOWN if held.stage != Stage.OFFERED:
                end = held.guest_end | packet.flags & BOTH
                if end != held.guest_end:
                    self._say(Kind.END, *held[:2], end)
                return held._replace(guest_end=end, data=b"" if end & NO_RECEIVE else held.data)
            case Op.RW if held.stage == Stage.OPEN and not held.guest_end & NO_SEND:
                if held.waiting + len(data) > BUFFER:
                    return None
                return self._pass_on(held, data) if data else held
            case Op.CREDIT_UPDATE:
                return held
            case Op.CREDIT_REQUEST:
                return held._replace(owed=held.owed | Owed.CREDIT_UPDATE)
            case _:
                return None

    def _pass_on(self, held: Connection, data: bytes) -> Connection:
        """Give the guest's data to the host, unless that takes none any more."""
        held = held._replace(received=held.received + len(data) & WORD)
        if held.host_end & NO_RECEIVE:
            return _with_credit(held, len(data))
        self._say(Kind.DATA, *held[:2], data=data)
        return held

    # -- from the host -------------------------------------------------------------------------

    def arrive(self, data: bytes) -> None:
        """Take a message of the host's end. What no end would send does no harm."""
        try:
            before, message = Message.unpack(data)
        except ValueError:
            return
        if message.kind != Kind.RESTART and before != self.arrived:
            self._say(Kind.LOST)
            return
        self.arrived = message.checksum(before)
        if message.kind == Kind.RESTART:
            self._restart()
            return
        at = self._find(message.guest_port, message.host_port)
        if message.kind == Kind.CONNECT:
            self._offer(message, at is not None)
        elif at is not None:
            self._hear(at, Connection.unpack(self.connections[at]), message)

    def _restart(self) -> None:
        """Give up all connections. That the guest has to give them up, an event tells it."""
        self.has_event = self.has_event or (self.is_started and bool(self.connections))
        self.connections = []

    def _offer(self, message: Message, is_there: bool) -> None:
        """Offer the guest a connection, which somebody on the host wants."""
        if is_there or not self.is_started or len(self.connections) >= MOST_CONNECTIONS:
            self._say(Kind.RESET, message.guest_port, message.host_port)
            return
        held = Connection(message.guest_port, message.host_port, Stage.OFFERED, Owed.REQUEST)
        self.connections.append(held.pack())

    def _hear(self, at: int, held: Connection, message: Message) -> None:
        """Do what a message says about a connection."""
        is_open = held.stage == Stage.OPEN
        match message.kind:
            case Kind.ACCEPT if held.stage == Stage.ASKED:
                held = held._replace(stage=Stage.OPEN, owed=held.owed | Owed.RESPONSE)
            case Kind.DATA if is_open and len(held.data) + len(message.data) <= BUFFER:
                if not held.guest_end & NO_RECEIVE:
                    held = held._replace(data=held.data + message.data)
            case Kind.CREDIT if is_open and message.number <= held.waiting:
                held = _with_credit(held, message.number)
            case Kind.END if is_open:
                held = held._replace(host_end=held.host_end | message.number & BOTH)
            case Kind.RESET:
                self._give_up(at, tells_host=False)
                return
            case _:
                self._give_up(at)
                return
        self.connections[at] = held.pack()

    # -- to the guest --------------------------------------------------------------------------

    def next_input(self, queue: int) -> bytes | None:
        if queue == _EVENT:
            return _TRANSPORT_RESET if self.has_event else None
        if self.resets:
            guest_port, host_port = _PORTS.unpack(self.resets[0])
            return self._packet(Connection(guest_port, host_port, Stage.OPEN), Op.RST)
        found = self._next()
        if found is None:
            return None
        _, held, op = found
        return self._packet(held, op, held.data[: min(held.credit, MOST_DATA)] if op == Op.RW else b"")

    def _next(self) -> tuple[int, Connection, Op] | None:
        """Return the next connection that has something for the guest, where it is in the list, and what it has."""
        for at, packed in enumerate(self.connections):
            if may_say(packed):
                held = Connection.unpack(packed)
                if (op := _next_op(held)) is not None:
                    return at, held, op
        return None

    def _packet(self, held: Connection, op: Op, data: bytes = b"") -> bytes:
        flags = held.end_to_tell if op == Op.SHUTDOWN else 0
        room = 0 if op == Op.RST else BUFFER
        header = Packet(
            *(HOST_CID, self.cid, held.host_port, held.guest_port, len(data), STREAM, op, flags, room, held.taken)
        )
        return header.pack() + data

    def for_buffers(self, data: bytes, rooms: Sequence[int]) -> bytes:
        """Return a packet that fits into the buffer."""
        if len(data) <= rooms[0] or len(data) < HEADER_SIZE:  # which is an event
            return data
        if rooms[0] <= HEADER_SIZE:
            raise RequestError(f"a buffer for a packet has {rooms[0]} bytes, and the header alone {HEADER_SIZE}")
        header = Packet.unpack(data[:HEADER_SIZE])._replace(size=rooms[0] - HEADER_SIZE)
        return header.pack() + data[HEADER_SIZE : rooms[0]]

    def take_input(self, queue: int, size: int) -> None:
        if queue == _EVENT:
            self.has_event = False
        elif self.resets:
            del self.resets[0]
        elif (found := self._next()) is not None:
            at, held, op = found
            del self.connections[at]
            self.connections.append(self._delivered(held, op, size - HEADER_SIZE).pack())

    def _delivered(self, held: Connection, op: Op, size: int) -> Connection:
        """Return a connection of which the guest has got a packet, with so many bytes of data."""
        if op == Op.SHUTDOWN:
            held = held._replace(told_end=held.told_end | held.end_to_tell)
        elif op == Op.RW:
            held = held._replace(sent=held.sent + size & WORD, data=held.data[size:])
            self._say(Kind.CREDIT, *held[:2], size)
        else:
            held = held._replace(owed=held.owed & ~_OWED[op])
        if held.data and not held.credit and op == Op.RW:
            held = held._replace(owed=held.owed | Owed.CREDIT_REQUEST)
        return held._replace(told_taken=held.taken, owed=held.owed & ~Owed.CREDIT_UPDATE)


_OWED: Final = {
    Op.REQUEST: Owed.REQUEST,
    Op.RESPONSE: Owed.RESPONSE,
    Op.CREDIT_UPDATE: Owed.CREDIT_UPDATE,
    Op.CREDIT_REQUEST: Owed.CREDIT_REQUEST,
}


def _next_op(held: Connection) -> Op | None:
    """Return the operation of the next packet for the guest, or None if there is none."""
    for op, owed in _OWED.items():
        if held.owed & owed:
            return op
    if held.stage != Stage.OPEN:
        return None
    if held.data and held.credit:
        return Op.RW
    return Op.SHUTDOWN if held.end_to_tell else None


def _with_credit(held: Connection, size: int) -> Connection:
    """Return a connection of whose bytes from the guest the host has taken ``size`` more."""
    held = held._replace(taken=held.taken + size & WORD)
    step = held.taken - held.told_taken & WORD
    return held._replace(owed=held.owed | Owed.CREDIT_UPDATE) if step >= _CREDIT_STEP else held
