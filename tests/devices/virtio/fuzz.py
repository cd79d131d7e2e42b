"""Mutated queues and register accesses: whatever a guest does, a device answers or asks for a reset.

    python -m tests.devices.virtio.fuzz --count 1000000 --seed 1

A round makes a device, starts it as a driver would, writes a few requests of its kind, and changes some bytes or
numbers of the queues, the requests and the registers. Then nothing may be raised, everything must come to an end in
virtual and in host time, what has changed of RAM must be in the dirty log, and the state must be one that can be
restored.
"""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Callable
from random import Random

from dbt.abi.layout import PAGE_SHIFT
from dbt.devices.output import unplugged
from dbt.devices.virtio.balloon import Balloon
from dbt.devices.virtio.console import Console
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.net import Net
from dbt.devices.virtio.rng import Rng
from dbt.devices.virtio.transport import COMMON_FEATURES, F_VERSION_1
from dbt.devices.virtio.vsock import MOST_CONNECTIONS, MOST_RESETS, Vsock
from dbt.devices.virtio.vsock_packet import BUFFER, Kind, Message, Op, Packet
from dbt.host.ninep import messages as m
from dbt.memory.contents import nonzero_pages
from dbt.memory.dma import Dma
from tests.devices.virtio.disks import a_file, direct, overlaid
from tests.devices.virtio.driver import BASE, BUFFERS, INDIRECT, NEXT, SECOND, SIZE, WRITE, Rig
from tests.devices.virtio.every_device import ignore, network_card
from tests.devices.virtio.shared import shared_directory
from tests.host.ninep.client import NOFID, text, words
from tests.host.ninep.fuzz import Messages

#: No round may take longer, in seconds of processor time.
MOST_SECONDS = 2.0
_MOST_EVENTS = 4096
_NUMBERS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 255, 256, 511, 512, 513, 1024, 4096, 0x7FFF, 0x8000, 0xFFFF, 1 << 20)
_LARGE = (
    0x3FFFFFFF,
    BASE - 1,
    BASE,
    BASE + SIZE - 1,
    BASE + SIZE,
    0xFFFFFFF0,
    0xFFFFFFFF,
    1 << 32,
    (1 << 63),
    (1 << 64) - 1,
)

_REGISTERS = (0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4, 0xC0, 0x100)

#: Requests: what the driver sends, and the sizes of the buffers for the answer.
Request = tuple[list[bytes], list[int]]


def _block_request(random: Random, queue: int) -> Request:
    kind = random.choice((0, 0, 1, 1, 4, 8, 11, 13, 2, 99))
    sector = random.choice((*range(8), 63, 64, 1 << 40))
    header = struct.pack("<IIQ", kind, 0, sector)
    size = random.choice((512, 512, 1024, 4096, 100, 1))
    if kind == 1:
        return [header, random.randbytes(size)], [1]
    if kind in (11, 13):
        return [header, struct.pack("<QII", sector, random.choice((1, 8, 1 << 22)), random.randrange(3))], [1]
    return [header], [size, 1]


def _any_request(random: Random, queue: int) -> Request:
    out = [random.randbytes(random.choice((1, 8, 24, 100))) for _ in range(random.randrange(3))]
    return out, [random.choice((1, 64, 5000)) for _ in range(random.randrange(3))] if out else [64]


def _balloon_request(random: Random, queue: int) -> Request:
    pages = [random.choice((0x40000, 0x400FF, 0x40100, 0, 0xFFFFFFFF)) for _ in range(random.randrange(1, 9))]
    return ([struct.pack(f"<{len(pages)}I", *pages)], []) if queue < 3 else ([], [4096, 8192])


def _console_request(random: Random, queue: int) -> Request:
    if queue == 3:
        event = random.randrange(8), random.randrange(2)
        return [struct.pack("<IHH", random.choice((0, 0, 0, 1, 1 << 31)), *event)], []
    return ([], [random.choice((1, 8, 100))]) if queue in (0, 2) else ([random.randbytes(9)], [])


def _net_request(random: Random, queue: int) -> Request:
    if queue == 0:
        return [], [random.choice((12, 60, 1526, 4096))]
    if queue == 1:
        return [bytes(12), random.randbytes(random.choice((3, 14, 60, 1514)))], []
    kind, command = random.choice((0, 1, 2, 3, 5, 9)), random.randrange(6)
    count = random.choice((0, 1, 2, 40, 1 << 31))
    table = struct.pack("<I", count) + random.randbytes(6 * min(count, 70))
    data = random.choice((b"", b"\1", random.randbytes(2), random.randbytes(6), bytes(8), table * 2))
    return [bytes((kind, command)) + data], [1]


def _ninep_request(random: Random, queue: int) -> Request:
    begin = m.message(m.TVERSION, 0, words(8192) + text("9P2000.L"))
    attach = m.message(m.TATTACH, 0, words(random.randrange(3), NOFID) + text("") * 2 + words(0))
    message = random.choice((begin, attach, *(Messages(random).next() for _ in range(4))))
    return [message[: 1 << 16]], [random.choice((11, 4096, 4096, 10))]


#: Ports of sockets: few, so that connections meet.
_PORTS = (0, 1, 2, (1 << 32) - 1)


def _vsock_request(random: Random, queue: int) -> Request:
    if queue != 1:
        return [], [random.choice((48, 144, 4096)) if random.random() < 0.99 else random.choice((44, 43, 4))]
    size = random.choice((0, 0, 1, 100, 4096, 30_000))
    packet = Packet(
        3 if random.random() < 0.97 else random.choice((2, 1 << 32)),
        2 if random.random() < 0.97 else random.choice((3, 1 << 63)),
        *(random.choice(_PORTS), random.choice(_PORTS)),
        size if random.random() < 0.97 else random.choice((size + 1, 0, size >> 1, (1 << 32) - 1)),
        random.choice((1, 1, 1, 1, 1, 1, 2, 0, 0xFFFF)),
        random.choice((*Op, Op.REQUEST, Op.REQUEST, Op.RESPONSE, Op.RW, Op.RW, 0, 8, 0xFFFF)),
        random.choice((0, 1, 2, 3, 3, 0xFFFFFFFF)),
        random.choice((0, 1, 4096, 1 << 18, 1 << 18, (1 << 32) - 1)),
        random.choice((0, 0, 1, 4096, 1 << 31, (1 << 32) - 1)),
    )
    return [packet.pack() + random.randbytes(size)] if size < 2 else [packet.pack(), random.randbytes(size)], []


def _host_message(random: Random, device: Vsock) -> bytes:
    """What the host's end says, or what it would never say, such as a line of a damaged recording."""
    if random.random() < 0.05:
        return random.randbytes(random.randrange(40))
    kind = random.choice((*Kind, Kind.CONNECT, Kind.ACCEPT, Kind.ACCEPT, Kind.DATA, Kind.DATA, Kind.CREDIT))
    number = random.choice((0, 1, 2, 3, 100, 4096, (1 << 32) - 1))
    data = random.randbytes(random.choice((0, 1, 100, 5000, BUFFER, BUFFER + 1))) if kind == Kind.DATA else b""
    serial = device.arrived if random.random() < 0.95 else random.getrandbits(32)
    return Message(kind, random.choice(_PORTS), random.choice(_PORTS), number, data).pack(serial)


def _check_vsock(device: Vsock) -> None:
    """Whatever was said, the device has no more than this."""
    assert len(device.connections) <= MOST_CONNECTIONS and len(device.resets) <= MOST_RESETS + MOST_CONNECTIONS
    assert device.is_possible()


def _console() -> Console:
    console = Console(unplugged)
    console.received = b"input" * 100
    return console


#: What makes a device, and what makes a request for it.
KINDS: tuple[tuple[Callable[[Dma], VirtioDevice], Callable[[Random, int], Request]], ...] = (
    (lambda memory: direct(a_file()), _block_request),
    (lambda memory: overlaid(a_file()), _block_request),
    (lambda memory: direct(a_file(), read_only=True), _block_request),
    (lambda memory: Rng(0), _any_request),
    (Balloon, _balloon_request),
    (lambda memory: _console(), _console_request),
    (lambda memory: network_card([]), _net_request),
    (lambda memory: shared_directory(), _ninep_request),
    (lambda memory: Vsock(3, ignore), _vsock_request),
    (lambda memory: Vsock(3, ignore), _vsock_request),
)


def _number(random: Random) -> int:
    return random.choice((random.choice(_NUMBERS), random.choice(_LARGE), BUFFERS + random.randrange(SIZE >> 1)))


class Round:
    """One round: a device with requests that are not all right."""

    def __init__(self, rig: Rig, random: Random, request: Callable[[Random, int], Request]) -> None:
        self._rig, self._random, self._request = rig, random, request

    def run(self) -> None:
        rig, random = self._rig, self._random
        features = (
            rig.offered() & random.choice((-1, F_VERSION_1, COMMON_FEATURES, random.getrandbits(41))) | F_VERSION_1
        )
        rig.start(features, range(min(rig.device.queue_count, 4)))
        for _ in range(random.randrange(1, 6)):
            self._write_requests()
            for _ in range(random.choice((0, 0, 1, 1, 2, 5))):
                self._mutate()
            self._access()
            if isinstance(rig.device, Net):
                frame = random.choice((b"\xff" * 6, b"\x52\x54\0\x12\x34\x56", random.randbytes(6)))
                rig.transport.receive([frame + random.randbytes(random.choice((0, 8, 54, 1508, 9000)))])
            if isinstance(rig.device, Vsock):
                for _ in range(random.randrange(6)):
                    rig.transport.receive([_host_message(random, rig.device)])
            self._let_time_pass()
            if isinstance(rig.device, Vsock):
                _check_vsock(rig.device)

    def _write_requests(self) -> None:
        rig, random = self._rig, self._random
        for queue in rig.available:
            head, heads = 0, []
            while head < rig.size - 4 and random.random() < 0.8:
                out, room = self._request(random, queue)
                if random.random() < 0.2:
                    self._write_indirect(queue, head, out, room)
                else:
                    rig.chain(queue, out, room, head)
                heads.append(head)
                head += len(out) + len(room)
            rig.make_available(queue, *heads)

    def _write_indirect(self, queue: int, head: int, out: list[bytes], room: list[int]) -> None:
        rig = self._rig
        buffers = [(rig.buffer(len(data), data), len(data), 0) for data in out]
        buffers += [(rig.buffer(size), size, WRITE) for size in room]
        table = rig.buffer(16 * len(buffers))
        for at, (address, size, flags) in enumerate(buffers):
            rig.describe(table, at, address, size, flags | (NEXT if at < len(buffers) - 1 else 0), at + 1)
        rig.describe(rig.place(queue)[0], head, table, 16 * len(buffers), INDIRECT)

    def _mutate(self) -> None:
        """Change the tables of a queue or what is in buffers: a field, a bit, or some bytes."""
        rig, random = self._rig, self._random
        desc, avail, used = rig.place(random.randrange(4))
        match random.randrange(7):
            case 0 | 1:
                at, size = random.choice(((0, 8), (8, 4), (12, 2), (14, 2)))
                value = random.choice((random.randrange(8), _number(random))) & (1 << 8 * size) - 1
                rig.write(desc + 16 * random.randrange(rig.size) + at, value.to_bytes(size, "little"))
            case 2:
                rig.write(avail + 2 * random.randrange(2 + rig.size), (_number(random) & 0xFFFF).to_bytes(2, "little"))
            case 3:
                rig.write(used + 2 * random.randrange(2 + 4 * rig.size), random.randbytes(2))
            case 4:
                self._flip(desc, 16 * rig.size)
            case 5:
                self._flip(BUFFERS, max(rig.free - BUFFERS, 1))
            case _:
                rig.write(random.randrange(BASE, BASE + SIZE - 64), random.randbytes(64))

    def _flip(self, start: int, size: int) -> None:
        at = start + self._random.randrange(size)
        self._rig.write(at, bytes([self._rig.read(at, 1)[0] ^ 1 << self._random.randrange(8)]))

    def _access(self) -> None:
        """Notify the device, and access other registers, some of them in a wrong way."""
        rig, random = self._rig, self._random
        for queue in rig.available:
            rig.notify(queue)
        while random.random() < 0.3:
            offset = random.choice(
                (0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4, 0xC0, 0x100)
            )
            value = random.choice((0, 1, 3, 15, _number(random) & 0xFFFFFFFF))
            rig.w(offset + random.choice((0, 0, 0, random.randrange(64))), value)
            size = random.choice((1, 2, 4))
            assert 0 <= rig.r(random.randrange(0, 0x200 - size), size) < 1 << 8 * size

    def _let_time_pass(self) -> None:
        rig, random = self._rig, self._random
        if random.random() < 0.2:
            rig.time.advance(random.randrange(3000))
            return
        for _ in range(_MOST_EVENTS):
            due = rig.time.timeline.next_tick
            if due is None:
                return
            assert due - rig.time.tick < 10 * SECOND
            rig.time.advance(max(due - rig.time.tick, 1))
        raise AssertionError("the device does not come to an end")


def run(seed: int) -> bool:
    """Do the round of a seed, and return whether the device asked for a reset in the end."""
    random = Random(seed)
    make, request = random.choice(KINDS)
    rig = Rig(make, size=random.choice((8, 8, 4, 64)))
    try:
        epoch = rig.memory.begin_epoch()  # RAM is zero
        Round(rig, random, request).run()
        dirty = set(epoch.dirty_pages())
        epoch.close()
        assert dirty.issuperset(gpa >> PAGE_SHIFT for gpa, _ in nonzero_pages(rig.memory.ram)), "not in the dirty log"
        state = rig.transport.save()
        rig.transport.restore(state)
        assert rig.transport.save() == state
        return bool(rig.r(0x70) & 64)
    finally:
        rig.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.devices.virtio.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="rounds [100000]")
    parser.add_argument("--seed", type=int, default=1, help="of the first round [1]")
    options = parser.parse_args()
    broken, slowest = 0, 0.0
    for seed in range(options.seed, options.seed + options.count):
        began = time.process_time()
        try:
            broken += run(seed)
        except BaseException:
            print(f"seed {seed}")
            raise
        slowest = max(slowest, time.process_time() - began)
        assert slowest < MOST_SECONDS, f"seed {seed} took {slowest:.1f} s"
    print(f"{options.count} rounds, {broken} end with a device to be reset; the slowest took {slowest:.3f} s")


if __name__ == "__main__":
    main()
