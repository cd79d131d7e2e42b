"""Saved states of a domain whose fields somebody has changed: each is refused, or does no harm.

    python -m tests.xen.fuzz_states --count 10000 --seed 1

A domain has a disk, a card or a directory with requests in flight, watches, transactions, ports and holes. Some of its
fields get other values of their kinds. If that is taken, the guest and the toolstack do a bit of everything.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from dbt.board.board import BoardState
from dbt.board.timeline import Event
from dbt.devices.medium import OverlaidMedium
from dbt.devices.state import StateError
from dbt.devices.virtio.ninep import Request
from dbt.host.ninep import messages as m
from dbt.host.ninep.server import Server
from dbt.hypervisor.xen.store.server import Type
from tests.xen.block_front_end import READ, WRITE, Disk
from tests.xen.block_front_end import request as block
from tests.xen.front_ends import SECOND, Bench
from tests.xen.guests import ARGUMENTS, RAM, SELF
from tests.xen.net_front_end import Card, part
from tests.xen.ninep_front_end import Share, message
from tests.xen.store_client import PAGE

_EDGES: Final = (0, 1, 2, 16, 255, 512, 1023, 1024, 4096, RAM, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, -1)
_TEXTS: Final = (b"", b"//\0x\0", b"@\0\0", b"a\0b\0", b"n1\0", b"\xff", b"4")
#: Pages of the guest's that hypercalls name: of the virtual CPU's information, of a hole, and such as are no more.
_INFO, _RUNSTATE, _HOLE, _PAGES = RAM + 0x30000, RAM + 0x31FE0, RAM + 0x33000, range(0x40030, 0x40038)

Device = Disk | Card | Share


def disk() -> Disk:
    made = Disk(OverlaidMedium, persistent=1)
    for number in range(2):
        made.page(number)
    made.do(block(WRITE, 0, [(9, 0, 7)]))
    made.ring.put(block(READ, 0, [(9, 0, 7)]), block(READ, 8, [(10, 0, 7)]))
    return made


def card() -> Card:
    made = Card(joins=1)
    made.offer(0)
    made.arrive(*[bytes(60)] * 3)
    return made


class Served(Share):
    """A directory with an open file, which a server serves."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        (Path(self.folder.name) / "a").write_bytes(b"x" * 100)
        self.server = Server(self.folder.name)
        super().__init__()
        for body, kind in (
            (struct.pack("<IH", 8192, 8) + b"9P2000.L", m.TVERSION),
            (struct.pack("<IIHHI", 1, (1 << 32) - 1, 0, 0, 0), m.TATTACH),
            (struct.pack("<IIHH", 1, 2, 1, 1) + b"a", m.TWALK),
            (struct.pack("<II", 2, 0), m.TLOPEN),
        ):
            self.pairs[0].send(message(body, kind))
            self.pairs[0].take()

    def answer(self, request: Request) -> bytes:
        return self.server.answer(request).pack()


MAKERS: Final[tuple[Callable[[], Device], ...]] = (disk, card, Served)


def furnish(bench: Bench) -> None:
    """Let the domain have a bit of everything."""
    caller, store = bench.caller, bench.store
    for watch in (b"device\0token\0", b"/local/domain/0\0token\0"):
        store.ask(Type.WATCH, watch)
    for _ in range(2):
        number = int(store.ask(Type.TRANSACTION_START, b"\0")[:-1])
        store.ask(Type.WRITE, b"data/x\0y", number)
        store.ask(Type.READ, b"data\0", number)
    caller.bind(caller.open())
    caller.events(7, "II", 0, 0)
    caller.events(1, "III", 0, 0, 0)
    caller.call(24, 10, 0, caller.put("QII", _INFO >> 12, 0, 0))
    caller.call(24, 5, 0, caller.put("Q", _RUNSTATE))
    caller.put("Q", _HOLE >> 12, at=ARGUMENTS + 64)
    caller.call(12, 1, caller.put("QQIIHxxxxxx", ARGUMENTS + 64, 1, 0, 0, SELF))


def _changed(value: Any, draw: Random) -> Any:
    """Return a value of a state with one change somewhere in it, of the same kind."""
    match value:
        case dict() if value:
            key = draw.choice(sorted(value, key=repr))
            if isinstance(key, int) or "/" in key:
                change = draw.randrange(3)
                if change < 2:
                    rest = {name: held for name, held in value.items() if name != key}
                    return {**rest, draw.choice(_EDGES): value[key]} if change and isinstance(key, int) else rest
            return {**value, key: _changed(value[key], draw)}
        case dict():
            return {draw.choice(_EDGES): draw.choice((1, 255, b"", b"x"))}
        case list() if value:
            at = draw.randrange(len(value))
            if len(value) < 200 and draw.random() < 0.2:
                return draw.choice((value[:at] + value[at + 1 :], [*value, value[at]]))
            return [*value[:at], _changed(value[at], draw), *value[at + 1 :]]
        case list():
            return [draw.choice((draw.choice(_EDGES), draw.choice(_TEXTS)))]
        case bool():
            return not value
        case int():
            return draw.choice((value + 1, value - 1, value + 4096, *_EDGES))
        case bytes():
            return draw.choice((value + draw.choice(_TEXTS), value[: len(value) // 2], value * 2, draw.choice(_TEXTS)))
        case _:
            return draw.choice(_EDGES)


def mutated(state: BoardState, draw: Random, device: str) -> BoardState:
    """Return a state with some of its fields changed, or of its events."""
    domain, events = state.devices["Xen"], list(state.events)
    for _ in range(draw.choice((1, 1, 1, 2))):
        if draw.random() < 0.2:
            name = draw.choice(("poll", "periodic timer", device))
            events = [event for event in events if event.action != name]
            events.append(Event("Xen", name, draw.choice((0, 5, SECOND, (1 << 63) - 1)), len(events)))
        else:
            domain = _changed(domain, draw)
    return BoardState({**state.devices, "Xen": domain}, events)


def _ask(bench: Bench, kind: int, payload: bytes, transaction: int = 0) -> None:
    """Send a request to XenStore, whatever is in the rings."""
    data = struct.pack("<IIII", kind, 7, transaction, len(payload)) + payload
    taken, _, _, given = struct.unpack("<IIII", bench.read(PAGE + 2048, 16))
    for number, byte in enumerate(data):
        bench.write(PAGE + (taken + number) % 1024, bytes([byte]))
    bench.write(PAGE + 2048, struct.pack("<IIII", taken, taken + len(data) & (1 << 32) - 1, given, given))
    bench.caller.events(4, "I", bench.store.port)


def exercise(made: Device) -> None:
    """Let the guest, its front end and the toolstack do a bit of everything."""
    bench, caller = made.bench, made.bench.caller
    domain = caller.domain
    bench.time.advance(1000)
    for kind, payload in (
        (Type.WRITE, b"data/z\0v"),
        (Type.DIRECTORY, b"device\0"),
        (Type.SET_PERMS, b"data\0n1\0r0\0"),
        (Type.UNWATCH, b"device\0token\0"),
        (Type.WATCH, b"data\0token\0"),
        (Type.TRANSACTION_START, b"\0"),
    ):
        _ask(bench, kind, payload)
    for number in (1, 2, 3):
        _ask(bench, Type.READ, b"data\0", number)
        _ask(bench, Type.WRITE, b"data/e\0u", number)
        _ask(bench, Type.TRANSACTION_END, b"T\0", number)
    domain.store.write("/local/domain/0/z", b"1")
    domain.store.receive(bytes([Type.RM]) + b"data/x\0")
    domain.store.hear("/local/domain/1/data")
    domain.store.deliver()
    for port in (*range(9), 1023, 1024, (1 << 32) - 1):
        for command in (4, 9):
            caller.events(command, "I", port)
    caller.events(11, "QIIB7x", RAM + 0x40000 >> 12, 0, 0, 0)
    caller.events(12, "Q", RAM + 0x41000 >> 12)
    for port in range(1, 6):
        caller.events(4, "I", port)
    domain.console.drain()
    domain.console.push(b"abc"[: max(domain.console.room, 0)])
    caller.call(18, 1, 10, RAM + 0x12000)
    caller.call(29, 3, caller.put("QIxxxxQ", ARGUMENTS + 64, 1, 1 << 40))
    bench.time.advance(10)
    _spend(made)
    for page in _PAGES:
        caller.put("Q", page, at=ARGUMENTS + 64)
        for command in (1, 6):
            caller.call(12, command, caller.put("QQIIHxxxxxx", ARGUMENTS + 64, 1, 0, 0, SELF))
    caller.call(12, 7, caller.put("HHIQQ", SELF, 0, 1, 1, _PAGES[0]))
    for handle in (0, 1, 4095):
        caller.call(20, 1, caller.put("QQIh", _HOLE, 0, handle, 77), 1)
    _serve(made)
    state = f"{made.front.front}/state\0".encode()
    for phase in (b"5", b"6", b"1", b"3", b"4"):
        _ask(bench, Type.WRITE, state + phase)
    caller.events(10, "H", SELF)
    bench.time.advance(SECOND)
    bench.board.restore(bench.board.save())


def _spend(made: Device) -> None:
    """Let time pass for the virtual CPU, and tell the guest how."""
    caller, processor = made.bench.caller, made.bench.caller.domain.processor
    caller.call(24, 5, 0, caller.put("Q", _RUNSTATE))
    processor.block()
    made.bench.time.advance(10)
    processor.unblock()
    processor.steal(5)
    processor.gets_core()


def _serve(made: Device) -> None:
    """Let the front end have requests."""
    match made:
        case Disk():
            made.ring.put(block(WRITE, 0, [(9, 0, 7), (10, 0, 7)]))
        case Card():
            made.tx.put(part(60))
            made.arrive(bytes(60), bytes(1500))
        case Share():
            for pair in made.pairs:
                pair.sent = pair.word(64)
                pair.send(message(struct.pack("<IQI", 2, 0, 30), m.TREAD))
    made.bench.caller.events(4, "I", made.front.port)
    made.bench.time.advance(SECOND)


def attack(seed: int) -> bool:
    """Restore a domain from a state that is not its own, and return whether that was taken."""
    draw = Random(seed)
    made = MAKERS[seed % len(MAKERS)]()
    try:
        furnish(made.bench)
        state = mutated(made.bench.board.save(), draw, made.front.back_end.name)
        try:
            made.bench.board.restore(state)
        except StateError:
            return False
        exercise(made)
        return True
    finally:
        made.bench.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.xen.fuzz_states", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="how many states are changed [10000]")
    parser.add_argument("--seed", type=int, default=1, help="of the first state [1]")
    options = parser.parse_args()
    taken = 0
    for seed in range(options.seed, options.seed + options.count):
        try:
            taken += attack(seed)
        except BaseException:
            print(f"seed {seed}")
            raise
    print(f"{options.count} states, of which {taken} were taken")


if __name__ == "__main__":
    main()
