"""The front end of a directory: rings of bytes."""

from __future__ import annotations

import struct
from functools import partial

from dbt.devices.virtio.ninep import NineP, Outcome, Request
from dbt.hypervisor.xen.back_ends.ninep import NinePBackEnd
from tests.xen.front_ends import DATA, FIRST_GRANT, RING, SECOND, Bench, FrontEnd

#: Grants: of the pages with the indices, and behind 32 of them those of the data.
PAGES = FIRST_GRANT + 32


def message(body: bytes, kind: int = 120, tag: int = 1) -> bytes:
    return struct.pack("<IBH", 7 + len(body), kind, tag) + body


class Pair:
    """The front end's side of a pair of rings of 2^order pages."""

    def __init__(self, bench: Bench, number: int, order: int = 1) -> None:
        self.bench, self.page, self.reference = bench, RING + (number << 12), FIRST_GRANT + number
        self.half = 1 << 11 + order
        self.data = DATA + number * 0x10000
        count = 1 << order
        self.references = list(range(PAGES + 64 * number, PAGES + 64 * number + count))
        bench.write(self.page, bytes(4096))
        bench.write(self.page + 128, struct.pack(f"<I{count}I", order, *self.references))
        bench.grant(self.reference, self.page)
        for index, reference in enumerate(self.references):
            bench.grant(reference, self.data + (index << 12))
        self.sent = self.seen = 0
        self.port = bench.caller.open(0)

    def word(self, offset: int) -> int:
        return int.from_bytes(self.bench.read(self.page + offset, 4), "little")

    def send(self, data: bytes) -> None:
        """Write bytes to the ring, tell the back end, and let it come to its end."""
        for byte in data:
            self.bench.write(self.data + self.half + self.sent % self.half, bytes([byte]))
            self.sent += 1
        self.bench.write(self.page + 68, struct.pack("<I", self.sent % (1 << 32)))
        self.kick()

    def kick(self) -> None:
        assert self.bench.caller.events(4, "I", self.port) == 0
        self.bench.time.advance(SECOND)

    def waiting(self) -> bytes:
        """Return the bytes that have come."""
        ring = self.bench.read(self.data, self.half)
        return bytes(ring[number % self.half] for number in range(self.seen, self.word(4)))

    def take(self) -> bytes:
        found = self.waiting()
        self.seen += len(found)
        self.bench.write(self.page, struct.pack("<I", self.seen))
        return found


class Share:
    """The front end of a directory. It is answered with each message's bytes in reverse order."""

    def __init__(self, orders: tuple[int, ...] = (1, 1)) -> None:
        self.requests: list[Request] = []
        self.bench = Bench(partial(NinePBackEnd, number=0, session=NineP(b"tag", self.answer)))
        self.front = FrontEnd(self.bench)
        self.connect(orders)

    def answer(self, request: Request) -> bytes:
        self.requests.append(request)
        return Outcome(request.message[::-1], 0, {}).pack()

    def connect(self, orders: tuple[int, ...] = (1, 1)) -> None:
        self.pairs = [Pair(self.bench, number, order) for number, order in enumerate(orders)]
        nodes: dict[str, object] = {"version": 1, "num-rings": len(self.pairs)}
        for number, pair in enumerate(self.pairs):
            nodes |= {f"ring-ref{number}": pair.reference, f"event-channel-{number}": pair.port}
        self.front.connect(nodes)
