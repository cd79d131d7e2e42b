"""The figures of histories for ``make bench-state``: recording with checkpoints, and running backwards under gdb.

What is recorded is a program that stores to each word of 1 MiB again and again, and Linux that boots, if there is one.
What is searched backwards is a loop with as many instructions as are wanted, which arrives 10,000 times at one place.
"""

from __future__ import annotations

import contextlib
import queue
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from figure import Figure

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gva
from dbt.cli.asm import encode
from dbt.engine.tier import JitMode
from dbt.gdb.packets import PacketReader, Signal, framed

#: Of the runs: instructions that are recorded, and steps back from places in them.
_RECORDED, _STEPS = 300_000_000, 30
_TIMEOUT_S = 120.0
_AT = Gva(0x8000)
_HITS = 10_000
#: The place at which the loop arrives so often: its sixth instruction.
_HIT = _AT + 5 * 4
_WALK = """
    ldr r1, =0x100000 ; mov r0, #0
again: mov r2, #0
next: str r0, [r1, r2] ; add r0, r0, r2 ; add r2, r2, #4 ; cmp r2, #0x100000 ; bne next
    b again
    .ltorg
"""
_LOOP = f"""
    ldr r1, =0x20000 ; ldr r2, ={_HITS} ; mov r0, #0 ; ldr r5, =0x31000
again: ldr r4, =ROUNDS
    nop
inner: subs r4, r4, #1 ; str r4, [r5] ; bne inner
    add r0, r0, #1 ; str r0, [r1] ; subs r2, r2, #1 ; bne again
    b .
    .ltorg
"""
#: gdb's agent expression that is false: const8 0, end.
_FALSE = ";X3,220027"


def figures(linux: Callable[[], Machine] | None, runs: int) -> Iterator[Figure]:
    """Yield the figures. ``linux`` returns a machine that is about to boot Linux, if there is one."""
    guests: dict[str, Callable[[], Machine]] = {"a program": lambda: program(_WALK, "sync")}
    if linux is not None:
        guests["Linux that boots"] = linux
    for name, start in guests.items():
        taken = recording(start, runs)
        yield Figure(f"{_RECORDED // 1_000_000} million instructions of {name}, recorded / plain", taken, "", 1.1)
    for name, start in guests.items():
        steps = steps_back(start)
        yield Figure(f"reverse-stepi under gdb in {name}", steps, "ms", 50)
        yield Figure(f"... the longest of {len(steps)}", [max(steps)], "ms", 50)
    for rounds in (10_000, 1_000):
        yield from searches(rounds, runs)


# -- recording -------------------------------------------------------------------------------------


def recording(start: Callable[[], Machine], runs: int) -> list[float]:
    """Return how many times the processor time of the plain run the recording takes, for pairs of runs in turn."""
    found = []
    for _ in range(runs + 1):
        taken = []
        for records in (False, True):
            with start() as guest:
                run = guest.begin_history().run if records else guest.run
                _ = guest.tier  # which is made now
                started = time.process_time()
                run(_RECORDED)
                taken.append(time.process_time() - started)
        found.append(taken[1] / taken[0])
    return found[1:]


# -- backwards -------------------------------------------------------------------------------------


class _Client:
    """A client of gdb's remote protocol, connected to the server at ``place``, HOST:PORT."""

    def __init__(self, place: str) -> None:
        host, _, port = place.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=_TIMEOUT_S)
        self._reader, self._packets = PacketReader(), list[str]()

    def ask(self, body: str) -> str:
        """Return the answer to a packet. What is written to gdb's console before it is left out."""
        self.socket.sendall(framed(body.encode()))
        while True:
            while not self._packets:
                data = self.socket.recv(1 << 16)
                if not data:
                    raise EOFError(f"the server has closed the connection after {body!r}")
                found = self._reader.feed(data)
                self._packets += [packet.decode("latin-1") for packet in found if not isinstance(packet, Signal)]
            answer = self._packets.pop(0)
            if answer == "OK" or answer[:1] != "O":
                return answer

    def expect(self, body: str, answer: str) -> float:
        """Send a packet and return the milliseconds until the answer. Raise RuntimeError for another answer."""
        started = time.perf_counter()
        found = self.ask(body)
        taken = (time.perf_counter() - started) * 1e3
        if answer not in found:
            raise RuntimeError(f"the answer to {body!r} is {found!r}, without {answer!r}")
        return taken

    def seek(self, icount: int) -> None:
        """Go to an instruction of the history."""
        self.expect("qRcmd," + f"seek {icount}".encode().hex(), "OK")


@contextlib.contextmanager
def debugged(guest: Machine, fuel: int) -> Iterator[_Client]:
    """Serve a debugger that has let the guest execute ``fuel`` instructions, with their history."""
    places: queue.Queue[str] = queue.Queue()

    def serve() -> None:
        guest.serve_gdb(wait=True, fuel=fuel, announce=places.put, history=True)

    server = threading.Thread(target=serve)
    server.start()
    client = _Client(places.get(timeout=_TIMEOUT_S).split()[-1])
    try:
        client.expect("c", "T05")
        yield client
    finally:
        client.socket.sendall(framed(b"k"))
        server.join(_TIMEOUT_S)
        client.socket.close()


def steps_back(start: Callable[[], Machine]) -> list[float]:
    """Return the milliseconds of steps back from random places of the guest's run."""
    chance, found = random.Random(1), []
    with start() as guest, debugged(guest, _RECORDED) as client:
        for _ in range(_STEPS):
            client.seek(chance.randrange(guest.icount * 3 // 4, guest.icount))
            found.append(client.expect("bs", "T05"))
    return found


def searches(rounds: int, runs: int) -> Iterator[Figure]:
    """Yield the times of searches through a whole loop, without a hit and with many that a condition refuses."""
    count = 4 + _HITS * (6 + 3 * rounds)
    forward: list[float] = []
    without: list[float] = []
    refused: list[float] = []
    with loop(rounds, "sync") as guest:  # so that the others find its regions on disk
        guest.run(count)
    for _ in range(runs + 1):
        with loop(rounds) as guest:
            started = time.perf_counter()
            guest.run(count)
            forward.append((time.perf_counter() - started) * 1e3)
        for found, condition in ((without, None), (refused, _FALSE)):
            with loop(rounds) as guest, debugged(guest, count) as client:
                if condition is not None:
                    client.expect(f"Z0,{_HIT:x},4{condition}", "OK")
                found.append(client.expect("bc", "replaylog:begin"))
    forward, name = forward[1:], f"{count:,} instructions"
    median = statistics.median(forward)
    yield Figure(f"plain run of {name}", forward, "ms")
    yield Figure("... reverse-continue through them", without[1:], "ms", 1.3 * median + 50)
    yield Figure(f"... with {_HITS:,} hits on the way", refused[1:], "ms", 3 * median + 50)


def program(source: str, jit: JitMode = "async") -> Machine:
    """Return a machine that is about to execute a program."""
    guest = Machine(4 << 20, jit=jit, console=CaptureConsole())
    guest.load_bytes(encode(source, _AT, "a program"), base=_AT)
    return guest


def loop(rounds: int, jit: JitMode = "async") -> Machine:
    """Return a machine that is about to execute the loop, with so many rounds between two hits."""
    guest = program(_LOOP.replace("ROUNDS", str(rounds)), jit)
    _ = guest.tier  # which is made now
    return guest
