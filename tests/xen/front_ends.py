"""A domain whose front ends are the tests: it has memory, hypercalls and time, and no CPU."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.board.board import Board, BoardWiring
from dbt.board.boards import BOARDS
from dbt.hypervisor.xen.back_ends.back_end import BackEnd, Phase, XenBus
from dbt.hypervisor.xen.store.server import Type
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from tests.devices.virtual_time import Line, VirtualTime
from tests.xen.guests import MEMORY, RAM, SELF, Caller
from tests.xen.store_client import HOME, Client

GRANTS = 0x38000000
#: The first grant that the toolstack has not made.
FIRST_GRANT = 8
PERMIT, READ_ONLY, READING, WRITING = 1, 4, 8, 16
#: A page of the guest's for a ring, and those behind it for data.
RING, DATA = RAM + 0x20000, RAM + 0x40000
SECOND = 1_000_000_000


class Bench:
    """The domain. Its devices are what ``makers`` make."""

    def __init__(self, *makers: Callable[[XenBus], BackEnd]) -> None:
        model = BOARDS["xen"]
        self.memory = GuestMemory(Ram(model.layout(MEMORY).regions))
        self.time = VirtualTime()
        self.board: Board = model.build(
            BoardWiring(
                *(lambda _: None, self.memory.ram.layout, self.time.timeline, Line(), Line(), lambda: None, 0),
                memory=self.memory,
                back_ends=makers,
            )
        )
        self.caller = Caller(self)
        self.store = Client(self.caller)
        assert self.caller.call(12, 7, self.caller.put("HHIQQ", SELF, 0, 1, 0, GRANTS >> 12)) == 0

    def close(self) -> None:
        self.memory.ram.close()

    def read(self, at: int, size: int) -> bytes:
        return self.memory.read_ram(Gpa(at), size)

    def write(self, at: int, data: bytes) -> None:
        self.memory.write_ram(Gpa(at), data)

    def grant(self, number: int, page: int, flags: int = PERMIT, domain: int = 0) -> int:
        """Make an entry of the grant table, and return its number."""
        self.write(GRANTS + 8 * number, struct.pack("<HHI", flags, domain, page >> 12))
        return number

    def flags(self, number: int) -> int:
        """Return the flags of an entry of the grant table."""
        return int.from_bytes(self.read(GRANTS + 8 * number, 2), "little")


class FrontEnd:
    """The front end of the only device of a domain."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        domain = bench.board.hypervisor
        assert domain is not None
        (self.back_end,) = domain.back_ends
        self.front = f"{HOME}/device/{self.back_end.kind}/{self.back_end.number}"
        self.back = f"/local/domain/0/backend/{self.back_end.kind}/1/{self.back_end.number}"
        self.port = 0

    def said(self, name: str) -> bytes:
        """Return what the back end says in a node."""
        return self.bench.store.ask(Type.READ, f"{self.back}/{name}\0".encode())

    def say(self, name: str, value: object) -> None:
        assert self.bench.store.ask(Type.WRITE, f"{self.front}/{name}\0{value}".encode()) == b"OK\0"

    def connect(self, nodes: Mapping[str, object], phase: int = Phase.INITIALISED) -> None:
        """Offer a port, write nodes and say that the front end is there."""
        self.port = self.bench.caller.open(0)
        for name, value in {"event-channel": self.port, **nodes}.items():
            self.say(name, value)
        self.say("state", phase)

    @property
    def phase(self) -> int:
        """How far the back end says that it is."""
        return int(self.said("state"))

    def kick(self) -> None:
        """Send the back end an event, and let what it begins come to its end."""
        assert self.bench.caller.events(4, "I", self.port) == 0
        self.bench.time.advance(SECOND)


class Ring:
    """The front end's side of a ring (ring.h) with entries of ``entry`` bytes and responses of ``response`` bytes."""

    def __init__(self, bench: Bench, page: int, reference: int, entry: int, response: int) -> None:
        self.bench, self.page, self.entry, self.response = bench, page, entry, response
        self.reference = bench.grant(reference, page)
        self.size = 1 << ((PAGE_SIZE - 64) // entry).bit_length() - 1
        self.sent = self.seen = 0
        bench.write(page, bytes(PAGE_SIZE))
        bench.write(page + 4, struct.pack("<II", 1, 0) + struct.pack("<I", 1))

    def put(self, *requests: bytes) -> bool:
        """Send requests, and return whether the back end wants an event for them."""
        before = self.sent
        for request in requests:
            self.bench.write(self.page + 64 + self.sent % self.size * self.entry, request)
            self.sent = (self.sent + 1) % (1 << 32)
        self.bench.write(self.page, struct.pack("<I", self.sent))
        wanted = int.from_bytes(self.bench.read(self.page + 4, 4), "little")
        return (self.sent - wanted) % (1 << 32) < (self.sent - before) % (1 << 32)

    def take(self) -> list[bytes]:
        """Return the responses that have come, and ask for an event at the next one."""
        written = int.from_bytes(self.bench.read(self.page + 8, 4), "little")
        found = []
        while self.seen != written:
            found.append(self.bench.read(self.page + 64 + self.seen % self.size * self.entry, self.response))
            self.seen = (self.seen + 1) % (1 << 32)
        self.bench.write(self.page + 12, struct.pack("<I", (self.seen + 1) % (1 << 32)))
        return found
