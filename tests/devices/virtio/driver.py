"""A driver for virtio devices as a test: it writes queues into RAM and accesses the transport's registers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dbt.abi.addresses import Gpa
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.transport import COMMON_FEATURES, F_VERSION_1, Transport
from dbt.memory.dma import Dma
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamRegion
from tests.devices.virtual_time import Line, VirtualTime

BASE, SIZE = 0x40000000, 1 << 20
#: Where the tables of queue N are: from QUEUES + N * QUEUE_BYTES on.
QUEUES, QUEUE_BYTES = BASE, 0x4000
BUFFERS = BASE + 0x40000
NEXT, WRITE, INDIRECT = 1, 2, 4
EVENT_IDX = 1 << 29
SECOND = 10**8


@dataclass
class Rig:
    """A device behind a transport, in RAM of its own. ``make`` makes the device, or is one."""

    make: VirtioDevice | Callable[[Dma], VirtioDevice]
    size: int = 8
    time: VirtualTime = field(default_factory=VirtualTime)
    line: Line = field(default_factory=Line)
    memory: GuestMemory = field(init=False)
    transport: Transport = field(init=False)
    device: VirtioDevice = field(init=False)
    available: dict[int, int] = field(default_factory=dict)
    free: int = BUFFERS

    def __post_init__(self) -> None:
        self.memory = GuestMemory(Ram([RamRegion(Gpa(BASE), SIZE)]))
        dma = Dma(self.memory)
        self.device = self.make if isinstance(self.make, VirtioDevice) else self.make(dma)
        self.transport = Transport(dma, self.time.named("virtio"), self.line, 31, self.device)

    def close(self) -> None:
        self.memory.ram.close()

    # -- registers -----------------------------------------------------------------------------

    def r(self, offset: int, size: int = 4) -> int:
        return self.transport.read(offset, size)

    def w(self, offset: int, value: int, size: int = 4) -> None:
        self.transport.write(offset, size, value)

    def offered(self) -> int:
        self.w(0x14, 0)
        low = self.r(0x10)
        self.w(0x14, 1)
        return self.r(0x10) << 32 | low

    def negotiate(self, features: int) -> None:
        """Write features, and FEATURES_OK."""
        self.w(0x70, 0)
        self.w(0x70, 3)
        for word in (0, 1):
            self.w(0x24, word)
            self.w(0x20, features >> 32 * word & 0xFFFFFFFF)
        self.w(0x70, 11)

    def place(self, number: int) -> tuple[int, int, int]:
        """Where the tables of a queue are."""
        base = QUEUES + number * QUEUE_BYTES
        return base, base + 0x1000, base + 0x2000

    def start(self, features: int = F_VERSION_1, queues: Sequence[int] | None = None) -> None:
        """Do what a driver does before the first request."""
        self.negotiate(features)
        assert self.r(0x70) == 11
        for number in range(self.device.queue_count) if queues is None else queues:
            self.make_queue(number)
        self.w(0x70, 15)

    def make_queue(self, number: int) -> None:
        self.memory.write_ram(Gpa(self.place(number)[0]), bytes(QUEUE_BYTES))
        self.w(0x30, number)
        self.w(0x38, self.size)
        for register, address in zip((0x80, 0x90, 0xA0), self.place(number), strict=True):
            self.w(register, address)
            self.w(register + 4, 0)
        self.w(0x44, 1)
        self.available[number] = 0

    # -- queues --------------------------------------------------------------------------------

    def write(self, address: int, data: bytes) -> None:
        self.memory.write_ram(Gpa(address), data)

    def read(self, address: int, size: int) -> bytes:
        return self.memory.read_ram(Gpa(address), size)

    def half(self, address: int) -> int:
        return int.from_bytes(self.read(address, 2), "little")

    def describe(self, table: int, index: int, address: int, size: int, flags: int, following: int = 0) -> None:
        """Write a descriptor."""
        self.write(table + 16 * index, struct.pack("<QIHH", address & (1 << 64) - 1, size, flags, following))

    def buffer(self, size: int, data: bytes = b"") -> int:
        """Return the address of a new buffer."""
        at = self.free
        self.free += -(-max(size, 1) // 16) * 16
        if self.free > BASE + SIZE:
            at, self.free = BUFFERS, BUFFERS + -(-size // 16) * 16
        self.write(at, data.ljust(size, b"\0"))
        return at

    def make_available(self, number: int, *heads: int) -> None:
        avail = self.place(number)[1]
        for head in heads:
            self.write(avail + 4 + 2 * (self.available[number] % self.size), struct.pack("<H", head))
            self.available[number] = self.available[number] + 1 & 0xFFFF
        self.write(avail + 2, struct.pack("<H", self.available[number]))

    def chain(self, number: int, out: Sequence[bytes], room: Sequence[int], first: int = 0) -> list[int]:
        """Describe a request from descriptor ``first`` on; return the addresses of the buffers for the answer."""
        buffers = [(self.buffer(len(data), data), len(data), 0) for data in out]
        buffers += [(self.buffer(size), size, WRITE) for size in room]
        for at, (address, size, flags) in enumerate(buffers, first):
            last = at == first + len(buffers) - 1
            self.describe(self.place(number)[0], at, address, size, flags | (0 if last else NEXT), at + 1)
        return [address for address, _, flags in buffers if flags]

    def notify(self, number: int) -> None:
        self.w(0x50, number)

    def used(self, number: int) -> list[tuple[int, int]]:
        """All answers so far, as head and length, if there are not more than the ring has room for."""
        used = self.place(number)[2]
        count = self.half(used + 2)
        return [struct.unpack("<II", self.read(used + 4 + 8 * (at % self.size), 8)) for at in range(count)]

    def ask(self, number: int, out: Sequence[bytes], room: Sequence[int]) -> tuple[int, bytes]:
        """Send one request and let time pass; return the length that was answered and what the buffers have."""
        places = self.chain(number, out, room)
        before = self.half(self.place(number)[2] + 2)
        self.make_available(number, 0)
        self.notify(number)
        self.time.advance(10 * SECOND)
        used = self.place(number)[2]
        assert self.half(used + 2) == before + 1 & 0xFFFF, f"status {self.r(0x70):#x}"
        head, length = struct.unpack("<II", self.read(used + 4 + 8 * (before % self.size), 8))
        assert head == 0
        return length, b"".join(self.read(at, size) for at, size in zip(places, room, strict=True))


__all__ = ["COMMON_FEATURES", "F_VERSION_1", "Rig"]
