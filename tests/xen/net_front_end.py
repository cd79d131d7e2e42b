"""The front end of a network card."""

from __future__ import annotations

import struct
from functools import partial

from dbt.hypervisor.xen.back_ends.back_end import Phase
from dbt.hypervisor.xen.back_ends.net import NetBackEnd
from tests.xen.front_ends import DATA, FIRST_GRANT, PERMIT, RING, Bench, FrontEnd, Ring

BLANK, MORE, EXTRA = 1, 4, 8
#: What is said of a long segment that arrives: its checksum is right, not filled in, and its parts follow.
LONG = 1 | 2 | EXTRA
OK, ERROR, NOTHING = 0, -1, 1
ADDRESS = bytes.fromhex("525400123456")
_SENT, _ROOM, _ANSWER = struct.Struct("<IHHHH"), struct.Struct("<HxxI"), struct.Struct("<HHHh")


class Card:
    """A network card's front end, which has granted 32 pages."""

    def __init__(self, spreads: int = 1, joins: int = 0) -> None:
        self.sent: list[bytes] = []
        self.bench = Bench(partial(NetBackEnd, number=0, send=self.sent.extend, address=ADDRESS))
        self.front = FrontEnd(self.bench)
        self.spreads, self.joins = spreads, joins
        self.connect()

    def connect(self) -> None:
        self.tx = Ring(self.bench, RING, FIRST_GRANT, 12, 4)
        self.rx = Ring(self.bench, RING + 0x1000, FIRST_GRANT + 1, 8, 8)
        for number in range(32):
            self.grant(number)
        nodes = {"tx-ring-ref": FIRST_GRANT, "rx-ring-ref": FIRST_GRANT + 1, "request-rx-copy": 1}
        features = ("feature-gso-tcpv4", "feature-gso-tcpv6", "feature-ipv6-csum-offload")
        nodes |= dict.fromkeys(features, self.joins)
        self.front.connect({**nodes, "feature-sg": self.spreads}, Phase.CONNECTED)

    def grant(self, number: int, flags: int = PERMIT) -> int:
        return self.bench.grant(16 + number, DATA + (number << 12), flags)

    def send(self, *requests: bytes) -> list[tuple[int, int]]:
        """Return ids and statuses of requests."""
        if self.tx.put(*requests):
            self.front.kick()
        return [struct.unpack("<Hh", one) for one in self.tx.take()]

    def offer(self, *numbers: int) -> None:
        """Give pages to the back end for what arrives."""
        if self.rx.put(*(_ROOM.pack(number, 16 + number) for number in numbers)):
            self.front.kick()

    def arrive(self, *frames: bytes) -> None:
        self.bench.board.receivers["net"](frames)

    def received(self) -> list[tuple[int, int, int, int]]:
        """Return ids, offsets, flags and sizes of what has arrived."""
        return [_ANSWER.unpack(one) for one in self.rx.take()]


def divided(size: int, version: int, kind: int = 1, flags: int = 0) -> bytes:
    """Return what is behind the first request of a frame that is to be sent as segments of so many bytes."""
    return struct.pack("<BBHB7x", kind, flags, size, version)


def part(size: int, flags: int = 0, number: int = 0, offset: int = 0, reference: int = 16) -> bytes:
    return _SENT.pack(reference, offset, flags, number, size)
