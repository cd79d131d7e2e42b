"""What a socket device says: packets to and from the guest (virtio 1.2, section 5.10.6), messages to and from the end
on the host, and connections, each as a value that can be made bytes.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple
from zlib import crc32

#: The bytes of struct virtio_vsock_hdr, which begins a packet.
HEADER_SIZE: Final = 44
#: The number of the host among the CIDs.
HOST_CID: Final = 2
#: The type of a stream socket.
STREAM: Final = 1
#: Bytes behind a header at most, and bytes that wait in either direction of a connection at most. The guest is told
#: that it may send so many.
MOST_DATA: Final = 1 << 16
BUFFER: Final = 1 << 16
#: The directions that are closed, as SHUTDOWN has them: who says so will not receive, will not send.
NO_RECEIVE, NO_SEND, BOTH = 1, 2, 3
WORD: Final = 0xFFFFFFFF

_HEADER: Final = struct.Struct("<QQIIIHHIII")
_MESSAGE: Final = struct.Struct("<IBIII")
_CONNECTION: Final = struct.Struct("<IIBBBBB6I")


class Op(IntEnum):
    """The operation of a packet."""

    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class Packet(NamedTuple):
    """The header of a packet."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    size: int
    type: int
    op: int
    flags: int
    buf_alloc: int
    fwd_cnt: int

    def pack(self) -> bytes:
        return _HEADER.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Packet:
        """Return the header of :data:`HEADER_SIZE` bytes."""
        return cls(*_HEADER.unpack(data))


class Kind(IntEnum):
    """What a message between the device and the host's end is about.

    - CONNECT: the sender wants a connection. ACCEPT: the other side has it now. RESET: there is none, or no more.
    - DATA: bytes of the stream. CREDIT: so many bytes have been taken, and may follow.
    - END: directions that the sender's side has closed, as SHUTDOWN has them.
    - RESTART: the end has lost all connections. LOST: the device has missed a message.
    """

    CONNECT = 1
    ACCEPT = 2
    RESET = 3
    DATA = 4
    CREDIT = 5
    END = 6
    RESTART = 7
    LOST = 8


class Message(NamedTuple):
    """A message about the connection between a port of the guest and one of the host. ``number`` is that of CREDIT and
    END.
    """

    kind: Kind
    guest_port: int = 0
    host_port: int = 0
    number: int = 0
    data: bytes = b""

    def pack(self, before: int) -> bytes:
        """Return the message as bytes. ``before`` is the checksum of all that the sender has said before."""
        return _MESSAGE.pack(before, self.kind, self.guest_port, self.host_port, self.number) + self.data

    @classmethod
    def unpack(cls, data: bytes) -> tuple[int, Message]:
        """Return the checksum of what was said before, and the message. Raise ValueError for bytes that are none."""
        if len(data) < _MESSAGE.size:
            raise ValueError("a message about a socket ends in the middle")
        before, kind, guest_port, host_port, number = _MESSAGE.unpack_from(data)
        return before, cls(Kind(kind), guest_port, host_port, number, data[_MESSAGE.size :])

    def checksum(self, before: int) -> int:
        """Return the checksum of this message behind all those whose checksum is ``before``, a CRC-32."""
        return crc32(self.data, crc32(_MESSAGE.pack(0, *self[:-1]), before))


class Stage(IntEnum):
    """How far a connection is: the guest has asked for it, the host has, or it is open."""

    ASKED = 0
    OFFERED = 1
    OPEN = 2


class Owed(IntEnum):
    """Bits for the packets that the guest is to get, besides data and SHUTDOWN."""

    REQUEST = 1
    RESPONSE = 2
    CREDIT_UPDATE = 4
    CREDIT_REQUEST = 8


class Connection(NamedTuple):
    """A connection of the guest's.

    ``owed`` is a set of :class:`Owed`. ``guest_end`` and ``host_end`` are the directions that each side has closed, and
    ``told_end`` what the guest has been told of the latter. Of the bytes to the guest, ``sent`` counts all,
    ``guest_taken`` those that it says it has taken, and ``guest_room`` is how many it takes at a time. Of those from
    the guest, ``received`` counts all, ``taken`` those that the host has taken, and ``told_taken`` what the guest has
    been told of that. Counts are modulo 2^32. ``data`` waits for the guest.
    """

    guest_port: int
    host_port: int
    stage: int
    owed: int = 0
    guest_end: int = 0
    host_end: int = 0
    told_end: int = 0
    guest_room: int = 0
    guest_taken: int = 0
    sent: int = 0
    received: int = 0
    taken: int = 0
    told_taken: int = 0
    data: bytes = b""

    def pack(self) -> bytes:
        return _CONNECTION.pack(*self[:-1]) + self.data

    @classmethod
    def unpack(cls, packed: bytes) -> Connection:
        """Return the connection that :meth:`pack` has made bytes of. Raise ValueError for others."""
        if len(packed) < _CONNECTION.size:
            raise ValueError("a connection ends in the middle")
        found = cls._make((*_CONNECTION.unpack_from(packed), packed[_CONNECTION.size :]))
        if not (
            found.stage <= Stage.OPEN
            and found.owed < 1 << len(Owed)
            and max(found.guest_end, found.host_end, found.told_end) <= BOTH
            and len(found.data) <= BUFFER
            and found.waiting <= BUFFER
        ):
            raise ValueError("the fields of a connection do not belong together")
        return found

    @property
    def waiting(self) -> int:
        """How many bytes from the guest the host has not taken."""
        return self.received - self.taken & WORD

    @property
    def credit(self) -> int:
        """How many bytes the guest takes now, by what it says."""
        return max(self.guest_room - (self.sent - self.guest_taken & WORD), 0)

    @property
    def end_to_tell(self) -> int:
        """What SHUTDOWN has to tell the guest, 0 for nothing new: the host sends no more once its data are sent."""
        now = self.host_end & (NO_RECEIVE if self.data else BOTH)
        return now if now & ~self.told_end else 0


def may_say(packed: bytes) -> bool:
    """Return False if a packed connection certainly has nothing for the guest, without unpacking it."""
    return bool(packed[_AT_OWED]) or packed[_AT_HOST_END] != packed[_AT_TOLD_END] or len(packed) > _CONNECTION.size


#: Where a packed connection has these fields.
_AT_OWED, _AT_HOST_END, _AT_TOLD_END = 9, 11, 12
