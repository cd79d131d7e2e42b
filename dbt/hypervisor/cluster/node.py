"""A machine of a cluster: it executes up to a time, and gets its input at times that depend on no host."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.board.clock import least_nanoseconds, least_ticks_in, ticks_in
from dbt.hypervisor.cluster.network import Incoming, Sent
from dbt.hypervisor.console_ring import ConsoleRing
from dbt.hypervisor.turn_watcher import TurnWatcher
from dbt.vm.input import Arrival
from dbt.vm.result import StopReason

if TYPE_CHECKING:
    from dbt.vm.machine import Machine

#: More than a guest can use in a quantum: in a cluster, nobody is charged.
_NO_LIMIT: Final = 1 << 60


class NodeConsole(ConsoleRing):
    """The console of a machine in a cluster. What a guest that has gone back writes again is not shown again."""

    def __init__(self, typed: Callable[[], None], shown: Callable[[bytes], None] | None = None) -> None:
        super().__init__(typed=typed)
        #: How many bytes the guest has written where it stands.
        self.produced = 0
        self._shown = shown

    def go_to(self, produced: int, position: int, recent: bytes) -> None:
        """Stand where the guest had written ``produced`` bytes, of which ``recent`` are those from ``position`` on."""
        if not self.written:
            self.begin_at(position, recent)
        self.produced = produced

    def write(self, data: bytes) -> None:
        new = data[max(self.written - self.produced, 0) :]
        self.produced += len(data)
        if new:
            super().write(new)
            if self._shown is not None:
                self._shown(new)


class NodeInput:
    """The input source of a machine in a cluster (:class:`dbt.vm.input.InputSource`).

    Frames come at the tick that they have, or after the instruction that is executed then. What is typed comes when the
    guest accesses its UART, and at multiples of ``grid`` ticks, where all machines of the cluster stop: not between two
    instructions anywhere else, because where the host ends slices has no part in what happens.
    """

    def __init__(self, now: Callable[[], int], ticks_per_second: int, grid: int) -> None:
        self._now = now
        self._ticks_per_second = ticks_per_second
        self._grid = grid
        #: What is on its way to the machine, in the order in which it comes.
        self.incoming: list[Incoming] = []
        #: What was typed and has not been read.
        self.typed = b""

    def _tick(self, one: Incoming) -> int:
        return least_ticks_in(one.ns, self._ticks_per_second)

    def add(self, one: Incoming) -> None:
        """Let a frame come."""
        insort(self.incoming, one)

    @property
    def next_tick(self) -> int | None:
        """When the next frame comes, or None if none is on its way."""
        return self._tick(self.incoming[0]) if self.incoming else None

    # -- implements dbt.vm.input.InputSource ----------------------------------------------------

    @property
    def next_delivery(self) -> int | None:
        if self.incoming:
            return self.next_tick
        return self._now() // self._grid * self._grid if self.typed else None

    @property
    def ended(self) -> bool:
        """False: somebody may type at any time."""
        return False

    def due(self, now: int) -> int | None:
        return now if self.typed else None

    def pass_time(self, now: int, behind: int) -> int:
        """Return 0: time passes by what the guest executes and waits."""
        return 0

    def poll(self, now: int, room: int, access: bool = False) -> bytes:
        if not access and now % self._grid:
            return b""
        data, self.typed = self.typed[: max(room, 0)], self.typed[max(room, 0) :]
        return data

    def read(self, now: int, size: int) -> bytes | None:
        """Return what was typed; nothing is the end of the input, because nobody can wait here."""
        data, self.typed = self.typed[:size], self.typed[size:]
        return data

    def arrivals(self, now: int) -> Sequence[Arrival]:
        found = []
        while self.incoming and self._tick(self.incoming[0]) <= now:
            one = self.incoming.pop(0)
            found.append(Arrival(f"net {one.card}" if one.card else "net", one.data))
        return found

    @property
    def has_arrivals(self) -> bool:
        return bool(self.incoming) and self._tick(self.incoming[0]) <= self._now()

    def ask(self, now: int, operation: Callable[[], bytes]) -> bytes:
        """Refuse: a machine of a cluster has nothing of the host's (:func:`check_joinable`)."""
        raise RuntimeError("a machine of a cluster has asked for something of the host's")

    def wait(self, seconds: float) -> None:
        """Return at once."""


class Expectation(NamedTuple):
    """A line of a script: when the guest has written ``text``, ``answer`` is typed. Texts are found in this order."""

    text: bytes
    answer: bytes


class Node:
    """A machine in a cluster, with its console. ``grid_ns`` is how often machines stop together."""

    def __init__(
        self, name: str, machine: Machine, console: NodeConsole, grid_ns: int, script: Sequence[Expectation] = ()
    ) -> None:
        self.name, self.machine, self.console = name, machine, console
        self.script = tuple(script)
        self.ticks_per_second = machine.timeline.ticks_per_second
        self.input = NodeInput(machine.vcpu.now, self.ticks_per_second, ticks_in(grid_ns, self.ticks_per_second))
        #: How often the guest has sent a frame; how many lines of the script are done, and up to which byte of output.
        self.sent = self.answered = self.matched = 0
        #: Why the guest has ended, and its exit code; it has not if the reason is empty.
        self.reason = ""
        self.exit_code: int | None = None
        self.wakes_at: int | None = 0  # the tick up to which the guest waits; None: for something from outside
        self._frames: list[Sent] = []
        self._is_fresh = True
        self._looked_at = -1  # the bytes of output in which the script has not found its next text
        machine.attach_input(self.input)
        machine.divert_frames(self._send)

    @property
    def is_over(self) -> bool:
        return bool(self.reason)

    @property
    def now_ns(self) -> int:
        return self.machine.timeline.nanoseconds

    @property
    def wakes_ns(self) -> int | None:
        """When the guest goes on, as far as is known: not before what it waits for, and what is on its way."""
        if self.is_over:
            return None
        ticks = [tick for tick in (self.wakes_at, self.input.next_tick) if tick is not None]
        if self.input.typed and self.machine.board.console.expects_input:
            ticks.append(0)
        return least_nanoseconds(min(ticks), self.ticks_per_second) if ticks else None

    def _send(self, card: int, frames: Sequence[bytes]) -> None:
        for data in frames:
            self._frames.append(Sent(self.now_ns, self.name, self.sent, card, data))
            self.sent += 1

    def look_for_events(self) -> None:
        """Notice whether something has come for a guest that waits, which is not input of the machine's."""
        hypervisor, cpu = self.machine.board.hypervisor, self.machine.cpu
        if cpu.native("interrupt_lines") or (hypervisor is not None and hypervisor.wakes):
            self.wakes_at = 0

    def take_frames(self) -> list[Sent]:
        """Return what the guest has sent since the last call."""
        frames, self._frames = self._frames, []
        return frames

    @property
    def recent_output(self) -> bytes:
        """What the guest has written where it stands, from what the script has found last."""
        output, end = self.console.read_from(self.matched)
        return output[: max(self.console.produced - (end - len(output)), 0)]

    def follow_script(self) -> bytes:
        """Return what the script types now."""
        typed = b""
        while self.answered < len(self.script) and self.console.produced != self._looked_at:
            text, answer = self.script[self.answered]
            output = self.recent_output
            at = output.find(text)
            if at < 0:
                self._looked_at = self.console.produced
                break
            self.matched = self.console.produced - len(output) + at + len(text)
            self.answered += 1
            typed += answer
        return typed

    def take_typed(self) -> bytes:
        """Return what people have typed since the last call."""
        typed = b""
        while (data := self.console.read(1 << 16)) is not None:
            typed += data
        return typed

    def stands_still(self, end_ns: int) -> bool:
        """Return True if the guest waits until a time, and nothing happens to it before."""
        return self.is_over or (not self._is_fresh and ((wakes := self.wakes_ns) is None or wakes >= end_ns))

    def wait_until(self, end_ns: int) -> None:
        """Let time pass for a guest that stands still."""
        if not self.is_over:
            self.machine.wait_until(ticks_in(end_ns, self.ticks_per_second))

    def stand_by(self, end_ns: int) -> None:
        """Let time pass up to a time for a domain that has no core. What it could have executed is stolen from it."""
        machine, vcpu, end = self.machine, self.machine.vcpu, ticks_in(end_ns, self.ticks_per_second)
        while not self.is_over and (now := vcpu.now()) < end:
            vcpu.timeline.run_due()
            self.look_for_events()
            if not vcpu.is_waiting or self.wakes_at == 0:
                assert machine.board.hypervisor is not None
                machine.board.hypervisor.processor.steal(end - now)
                machine.wait_until(end)
                self.wakes_at = 0
                break
            ahead = [tick for tick in (vcpu.timeline.next_tick, self.input.next_delivery) if tick is not None]
            machine.wait_until(min([end, *(tick for tick in ahead if tick > now)]))

    def get_core(self) -> None:
        """Tell a domain that was standing by what has been stolen from it."""
        hypervisor = self.machine.board.hypervisor
        if hypervisor is not None and not self.is_over:
            hypervisor.processor.gets_core()

    def advance(self, end_ns: int) -> None:
        """Execute the guest up to a time, exactly, or until it ends."""
        machine, end = self.machine, ticks_in(end_ns, self.ticks_per_second)
        vcpu = machine.vcpu
        while not self.is_over and (now := vcpu.now()) < end:
            watcher = TurnWatcher(inf, not self._is_fresh)
            self._is_fresh = False
            run = machine.run_metered(_NO_LIMIT, watcher, fuel=end - now)
            self.wakes_at = 0
            match run.result.reason:
                case StopReason.WAITING:
                    wait = None if run.wait_ns is None else ticks_in(run.wait_ns, self.ticks_per_second)
                    self.wakes_at = None if wait is None else vcpu.now() + wait
                    machine.wait_until(end if self.wakes_at is None else min(self.wakes_at, end))
                case StopReason.EXITED:
                    self.reason = run.result.message or "the guest has ended"
                    self.exit_code = run.result.exit_code
                case StopReason.FAULT | StopReason.HALTED:
                    self.reason = run.result.message


def check_joinable(name: str, machine: Machine) -> list[str]:
    """Return the hubs of a machine's cards. Raise ValueError if it depends on something of the host's."""
    options = machine.options
    hubs = []
    for net in options.nets:
        kind, _, hub = net.end.partition(":")
        if kind != "hub":
            raise ValueError(f"a network card of {name} is at {net.end}: in a cluster, cards are at hubs (hub:NAME)")
        hubs.append(hub)
    outside = {"shares": options.shares, "vsock": options.vsock, "files": options.files, "realtime": options.realtime}
    for what, value in outside.items():
        if value:
            raise ValueError(f"the machine {name} has {what}, which depends on the host: a cluster has its own time")
    return hubs
