"""Rings with random and changed contents: XenStore's, the console's, and those of disks, network cards and directories.

    python -m tests.xen.fuzz_rings --count 1000000 --seed 1

A round is a new domain with one device, whose front end says nonsense so many times. The host has no fault, the guest
gets nothing that it has not granted or may not read, and the state can be restored.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Callable
from random import Random
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.devices.ethernet import segments
from dbt.devices.medium import OverlaidMedium
from dbt.host.console import CaptureConsole
from dbt.hypervisor.xen.back_ends.back_end import Phase
from dbt.hypervisor.xen.interface import CONSOLE_PAGE
from dbt.hypervisor.xen.store.server import MOST_TRANSACTIONS, MOST_WATCHES, Type
from dbt.hypervisor.xen.store.tree import MOST_NODES
from tests.devices.packets import segment
from tests.xen.block_front_end import Disk, request
from tests.xen.front_ends import DATA, FIRST_GRANT, PERMIT, READ_ONLY, RING, Ring
from tests.xen.guests import Caller, domain_machine
from tests.xen.net_front_end import BLANK, EXTRA, MORE, Card, divided, part
from tests.xen.ninep_front_end import Share, message
from tests.xen.store_client import PAGE, Client

_ROUND = 500  # a front end that comes again needs another port, of which there are 1023
_EDGES: Final = (0, 1, 15, 16, 1023, 1024, 1025, 2048, 4096, 4097, 1 << 31, (1 << 32) - 1)
_WORDS: Final = (
    b"data",
    b"device/a",
    b"\0",
    b"n1\0",
    b"r0\0",
    b"b1\0",
    b"T\0",
    b"..",
    b"/",
    b"@x",
    b"7",
    b"token",
    b"\xff",
)
_INDICES = struct.Struct("<IIII")


def _index(draw: Random) -> int:
    return draw.choice((draw.choice(_EDGES), draw.getrandbits(32)))


def _message(draw: Random) -> bytes:
    """Return a message for XenStore. Most of them make some sense, and few are of another size than they say."""
    body = b"".join(draw.choice(_WORDS) for _ in range(draw.randrange(6))) + b"\0" * draw.randrange(2)
    kind = draw.choice((draw.randrange(24), Type.WRITE, Type.WATCH, Type.MKDIR, Type.TRANSACTION_START))
    size = len(body) if draw.random() < 0.99 else draw.choice(_EDGES)
    made = bytearray(struct.pack("<IIII", kind, draw.getrandbits(32), draw.choice((0, 0, 0, 1, 2, 9)), size) + body)
    if draw.random() < 0.03:
        made[draw.randrange(len(made))] = draw.getrandbits(8)
    return bytes(made)


def store(seed: int, count: int) -> int:
    """Send messages by XenStore's ring, whose indices are nonsense at times. Return how many bytes were answered."""
    draw, answered = Random(seed), 0
    with domain_machine(notice=lambda _: None) as machine:
        client = Client(Caller(machine))
        domain, memory = client.caller.domain, machine.memory
        ring, server = domain.store, domain.store.server
        tree = server.tree
        tree.write(0, "/secret", b"hidden")
        others = {path: value for path, value in tree.values.items() if not tree.permissions[path].startswith(b"n1\0")}
        for number in range(count):
            sent = _message(draw)[:1024]
            at = draw.choice((0, 1000, (1 << 32) - 8, draw.getrandbits(32)))
            for place, byte in enumerate(sent):
                memory.write_ram(Gpa(PAGE + (at + place) % 1024), bytes([byte]))
            indices = [at, (at + len(sent)) % (1 << 32), 0, 0]
            if draw.random() < 0.05:
                indices[draw.randrange(4)] = _index(draw)
            memory.write_ram(Gpa(PAGE + 2048), _INDICES.pack(*indices))
            assert client.caller.events(4, "I", client.port) == 0
            given = _INDICES.unpack(memory.read_ram(Gpa(PAGE + 2048), 16))[3] - indices[3] & 0xFFFFFFFF
            assert given <= 1024 and b"hidden" not in memory.read_ram(Gpa(PAGE + 1024), 1024)
            answered += given
            if number % 100 == 0:
                assert all(tree.values.get(path) == value for path, value in others.items())
                assert sum(each.startswith(b"n1\0") for each in tree.permissions.values()) <= MOST_NODES
                assert len(server.watches) <= MOST_WATCHES and len(server.transactions) <= MOST_TRANSACTIONS
                ring.restore(ring.save())
                tree = server.tree
    return answered


def console(seed: int, count: int) -> int:
    """Let the console's ring have random indices, with input and output. Return how many bytes came out."""
    draw, output = Random(seed), CaptureConsole()
    with domain_machine(notice=lambda _: None, console=output) as machine:
        caller = Caller(machine)
        assert caller.call(17, 0) == 0x40011
        domain, memory = caller.domain, machine.memory
        before, written = memory.read_ram(Gpa(CONSOLE_PAGE + 3088), 4096 - 3088), 0
        for number in range(count):
            memory.write_ram(Gpa(CONSOLE_PAGE + 3072), _INDICES.pack(*(_index(draw) for _ in range(4))))
            *_, taken, given = _INDICES.unpack(memory.read_ram(Gpa(CONSOLE_PAGE + 3072), 16))
            assert caller.events(4, "I", domain.console.port) == 0
            written += min(given - taken & 0xFFFFFFFF, 2048)
            room = domain.console.room
            assert 0 <= room <= 1024
            if room:
                domain.console.push(draw.randbytes(min(room, 20)))
            domain.console.take(len(domain.console.look(draw.choice((0, 5, 4096)))))
            if number % 100 == 0:
                domain.restore(domain.save())
        assert memory.read_ram(Gpa(CONSOLE_PAGE + 3088), 4096 - 3088) == before, "nothing behind the indices"
    return written


def block(seed: int, count: int) -> int:
    """Let a disk have random requests. Return how many responses came. Nothing but granted pages changes."""
    draw, done = Random(seed), 0
    disk = Disk(OverlaidMedium, persistent=1)
    secret = RING + 0x10000
    disk.bench.write(secret, b"\x5a" * 4096)
    for number in range(8):
        disk.page(number, draw.choice((PERMIT, PERMIT | READ_ONLY, 0)))
    for _ in range(count):
        # Not 0 and 1: who has a disk read into the ring of XenStore cannot speak to it any more.
        pages = [draw.choice((2, FIRST_GRANT, 511, 1 << 31, *range(9, 18))) for _ in range(11)]
        segments = [(page, draw.randrange(9), draw.randrange(10)) for page in pages]
        flags = draw.choice((0, 1, 2, 11, 12, 255))
        one = bytearray(request(draw.randrange(8), draw.choice((0, 8, 250, 1 << 60)), segments, flags=flags))
        if draw.random() < 0.5:
            one[draw.randrange(112)] = draw.getrandbits(8)
        disk.ring.put(bytes(one))
        if draw.random() < 0.02:
            disk.bench.write(RING + draw.randrange(0, 16, 4), struct.pack("<I", _index(draw)))
        disk.front.kick()
        done += len(disk.ring.take()) if disk.front.phase == Phase.CONNECTED else 0
        if disk.front.phase != Phase.CONNECTED:
            for phase in (Phase.CLOSED, Phase.INITIALISING):
                disk.front.say("state", phase)
            disk.ring = Ring(disk.bench, RING, FIRST_GRANT, 112, 16)
            disk.front.connect({"ring-ref": FIRST_GRANT, "feature-persistent": 1})
        disk.bench.grant(draw.randrange(9, 18), DATA, draw.choice((PERMIT, PERMIT | READ_ONLY, 0)))
    assert disk.bench.read(secret, 4096) == b"\x5a" * 4096
    disk.bench.board.restore(disk.bench.board.save())
    disk.bench.close()
    return done


def net(seed: int, count: int) -> int:
    """Let a network card have random rings. Return how many frames left. No byte leaves that was not granted."""
    draw, card, connections = Random(seed), Card(joins=seed % 2), 1
    secret = b"\xa5" * 4096
    card.bench.write(RING + 0x2000, secret)
    for _ in range(count):
        if card.front.phase != Phase.CONNECTED:
            card.front.say("state", Phase.CLOSED)
            card.front.say("state", Phase.INITIALISING)
            card.connect()
            connections += 1
        parts = draw.randrange(1, 6)
        sizes = [draw.choice((0, 13, 60, 1500, 4096, 65535)) for _ in range(parts)]
        flags = [draw.choice((0, 0, 0, BLANK, MORE, EXTRA)) for _ in range(parts)]
        card.tx.put(
            *(
                part(size, flag, 1, draw.choice((0, 0, 0, 4000)), draw.choice((16, 17, 18, 0, 5, 511, 1 << 31)))
                for size, flag in zip(sizes, flags, strict=True)
            )
        )
        if draw.random() < 0.2:
            frame = bytearray(segment(draw.randbytes(draw.randrange(3000)), draw.choice((4, 6)), draw.randrange(4)))
            if draw.random() < 0.7:
                frame[draw.randrange(12, min(70, len(frame)))] = draw.getrandbits(8)
            card.bench.write(DATA, bytes(frame))
            extra = divided(draw.choice((0, 1, 100, 1448, 65535)), draw.choice((1, 1, 2, 3)), draw.choice((1, 1, 2)))
            card.tx.put(part(len(frame) + draw.choice((0, 0, 0, 500)), EXTRA | BLANK), extra)
        card.offer(*(draw.randrange(64) for _ in range(draw.randrange(3))))
        card.arrive(draw.randbytes(draw.choice((14, 60, 5000))))
        if draw.random() < 0.1:
            long = bytearray(segment(draw.randbytes(draw.choice((500, 3000, 9000))), draw.choice((4, 6))))
            long[(34 if long[14] >> 4 == 4 else 54) + 13] = 0x10
            card.arrive(*segments(bytes(long), draw.choice((100, 400))))
            card.offer(*range(draw.randrange(8)))
        if draw.random() < 0.02:
            card.bench.write(RING + draw.choice((0, 0x1000)), struct.pack("<I", _index(draw)))
        card.grant(draw.randrange(3), draw.choice((PERMIT, PERMIT | READ_ONLY, 0)))
        if card.front.phase == Phase.CONNECTED:
            card.front.kick()
        card.tx.take()
        card.rx.take()
    assert connections < count and not any(secret[:64] in frame for frame in card.sent)
    card.bench.board.restore(card.bench.board.save())
    card.bench.close()
    return len(card.sent)


def ninep(seed: int, count: int) -> int:
    """Let a directory's rings have random messages. Return how many came to its server."""
    draw, share = Random(seed), Share()
    for _ in range(count):
        if share.front.phase != Phase.CONNECTED:
            for phase in (Phase.CLOSED, Phase.INITIALISING):
                share.front.say("state", phase)
            share.connect()
        pair = draw.choice(share.pairs)
        sent = bytearray(message(draw.randbytes(draw.randrange(60))))
        if draw.random() < 0.2:
            sent[draw.randrange(len(sent))] = draw.getrandbits(8)
        pair.send(bytes(sent))
        if draw.random() < 0.1:
            share.bench.write(pair.page + draw.choice((0, 4, 64, 68, 128, 132)), struct.pack("<I", _index(draw)))
        if draw.random() < 0.8 and pair.word(4) - pair.seen <= pair.half:
            pair.take()
    share.bench.board.restore(share.bench.board.save())
    share.bench.close()
    return len(share.requests)


#: What fills a ring: seed and count, and how much came of it.
KINDS: Final[dict[str, Callable[[int, int], int]]] = {one.__name__: one for one in (store, console, block, net, ninep)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.xen.fuzz_rings", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="how often something is put into a ring [100000]")
    parser.add_argument("--seed", type=int, default=1, help="of the first round [1]")
    options = parser.parse_args()
    rounds = -(-options.count // _ROUND)
    names = list(KINDS)
    came = dict.fromkeys(names, 0)
    for seed in range(options.seed, options.seed + rounds):
        name = names[seed % len(names)]
        try:
            came[name] += KINDS[name](seed, _ROUND)
        except BaseException:
            print(f"seed {seed}, {name}")
            raise
    print(f"{rounds * _ROUND} times in {rounds} rounds; of it came {came}")


if __name__ == "__main__":
    main()
