"""A bare-metal guest of the board virt that uses the socket device: it sends packets and waits for others."""

from __future__ import annotations

import struct

from dbt.devices.virtio.vsock_packet import HEADER_SIZE, HOST_CID, STREAM, Op, Packet
from tests.devices.virtio.guest import _POLL, DATA, TRANSPORT, Guest

CID = 3
#: Bytes of the buffer for a packet, and how far apart these are in RAM, from DATA on.
ROOM = 0x1000
#: How many packets the guest gets at most.
MOST_PACKETS = 8
_QUEUES, _QUEUE_BYTES = 0x41300000, 0x4000
_PACKET, _EVENT = 0x41310000, 0x41318000
_GUEST_PORT = 1000


class VsockProgram(Guest):
    """Call the methods in the order of what the guest is to do, and then :meth:`image`. It counts on nothing."""

    def __init__(self) -> None:
        self._sent = 0
        super().__init__(features=0)

    def _place(self, queue: int) -> tuple[int, int, int]:
        base = _QUEUES + queue * _QUEUE_BYTES
        return base, base + 0x1000, base + 0x2000

    def _start(self, features: int) -> None:
        for offset, value in ((0x70, 3), (0x24, 0), (0x20, features), (0x24, 1), (0x20, 1), (0x70, 11)):
            self._write(TRANSPORT + offset, value)
        for queue in range(3):
            desc, avail, used = self._place(queue)
            registers = ((0x30, queue), (0x38, MOST_PACKETS), (0x80, desc), (0x90, avail), (0xA0, used), (0x44, 1))
            for offset, value in registers:
                self._write(TRANSPORT + offset, value)
        desc, avail, _ = self._place(0)
        for number in range(MOST_PACKETS):
            self._write(desc + 16 * number, DATA + ROOM * number, 0, ROOM, 2)
        self._write(avail + 4, *(2 * pair | 2 * pair + 1 << 16 for pair in range(MOST_PACKETS // 2)))
        self._write(avail, MOST_PACKETS << 16)
        desc, avail, _ = self._place(2)
        self._write(desc, _EVENT, 0, 4, 2)
        self._write(avail, 1 << 16)
        self._write(TRANSPORT + 0x70, 15)
        self._write(TRANSPORT + 0x50, 0)

    def send(self, op: Op, data: bytes = b"", host_port: int = 52, flags: int = 0) -> None:
        """Send a packet, and wait until the device has taken it."""
        header = Packet(CID, HOST_CID, _GUEST_PORT, host_port, len(data), STREAM, op, flags, 1 << 18, 0)
        packet = header.pack() + data
        size = len(packet)
        packet = packet.ljust(-(-size // 4) * 4, b"\0")
        self._write(_PACKET, *struct.unpack(f"<{len(packet) // 4}I", packet))
        desc, avail, used = self._place(1)
        self._write(desc, _PACKET, 0, size, 0)
        self._sent += 1
        self._write(avail, self._sent << 16)
        self._write(TRANSPORT + 0x50, 1)
        self._accesses.append((_POLL, used, self._sent << 16))
        self._write(TRANSPORT + 0x64, 1)

    def wait(self, packets: int) -> None:
        """Wait until so many packets have come."""
        self._accesses.append((_POLL, self._place(0)[2], packets << 16))

    def wait_for_event(self) -> None:
        """Wait until all connections are lost."""
        self._accesses.append((_POLL, self._place(2)[2], 1 << 16))


def packet(data: bytes) -> tuple[Op, bytes]:
    """Return operation and data of a packet in guest RAM."""
    header = Packet.unpack(data[:HEADER_SIZE])
    return Op(header.op), data[HEADER_SIZE : HEADER_SIZE + header.size]
