"""The cluster: it lets its machines execute in quanta, and carries frames between them.

All machines stop together at multiples of a quantum, which is the shortest time that a frame takes from one to another.
So no frame can come in the quantum in which it is sent, machines can execute beside each other, and everything follows
from the guests, the seed and what is typed. Where all guests wait, time jumps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from dbt.hypervisor.cluster.network import US, Crossing, Hub, Incoming, Network
from dbt.hypervisor.cluster.node import Expectation, Node, NodeConsole, check_joinable
from dbt.memory.closing import Closing
from dbt.vm.state import state_hash

if TYPE_CHECKING:
    from dbt.hypervisor.carrier import Boot
    from dbt.hypervisor.cluster.domains import ClusterDomains
    from dbt.hypervisor.cluster.recording import ClusterLog
    from dbt.hypervisor.cluster.saved import ClusterState
    from dbt.vm.checkpoint import Checkpoint
    from dbt.vm.machine import Machine

_NS: int = 10**9
#: How long a cluster that waits for somebody to type sleeps, in seconds, before it looks whether it is to stop.
_LONGEST_WAIT_S = 0.1
#: Checkpoints of a history at most.
_MOST_CHECKPOINTS = 128


class ClusterEnd(Enum):
    """Why a run of a cluster has returned."""

    #: The time that was given is over.
    TIME = "time"
    #: All guests have ended.
    ENDED = "ended"
    #: All guests wait for something that cannot come by itself.
    IDLE = "idle"
    #: Somebody has stopped it, or it took too long.
    STOPPED = "stopped"


class Typed(NamedTuple):
    """What was typed at the console of a machine, at ``ns``."""

    ns: int
    machine: str
    data: bytes


class _Checkpoint(NamedTuple):
    ns: int
    values: dict[str, object]
    machines: dict[str, Checkpoint]


class Cluster(Closing):
    """Machines at ``hubs``, which are given by name. ``seed``, in [0, 2^63), is what the losses of links follow from.

    ``cores`` machines execute at the same time. That does not change what happens. If ``domains_us`` is given,
    machines with the board xen are domains of one host, and execute in turn for so many microseconds
    (:class:`dbt.hypervisor.cluster.domains.ClusterDomains`), with ``share_core`` on one core. :meth:`close`, or the end
    of a ``with`` block, closes all machines.
    """

    def __init__(
        self,
        hubs: Mapping[str, Hub],
        seed: int = 0,
        cores: int = 1,
        domains_us: int | None = None,
        share_core: bool = False,
    ) -> None:
        if share_core and domains_us is None:
            raise ValueError("machines that share a core are domains of one host, which needs domains_us")
        self.network = Network(dict(hubs), seed)
        self.domains = None if domains_us is None else _make_domains(domains_us, share_core)
        self.cores = cores
        self.nodes: dict[str, Node] = {}
        #: The time of the cluster in nanoseconds, to which all machines have come.
        self.now_ns = 0
        #: What happens, if it is recorded or compared (:mod:`dbt.hypervisor.cluster.recording`).
        self.log: ClusterLog | None = None
        self._called = Event()
        self._is_stopping = False
        self._typed: list[Typed] = []  # all that was typed, in its order
        self._played = 0  # how many of these the machines have got; fewer than all after the cluster has gone back
        self._newest_ns = 0
        self._replays = False
        self._checkpoints: list[_Checkpoint] = []
        self._every_ns = 0

    def close(self) -> None:
        """Close all machines."""
        self._checkpoints.clear()
        for node in self.nodes.values():
            node.machine.close()
        self.nodes.clear()

    # -- machines ------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        boot: Boot,
        script: Sequence[tuple[bytes, bytes]] = (),
        shown: Callable[[bytes], None] | None = None,
    ) -> Node:
        """Add a machine, which ``boot`` makes with the console that it is given. The cluster has not run yet.

        Each line of ``script`` is a text that the guest is expected to write, and what is typed then. ``shown`` is
        called with what the guest writes. Raise ValueError for a machine that depends on something of the host's.
        """
        if not name or name in self.nodes or self.now_ns:
            raise ValueError(f"the machine {name!r} has no name, or one that is taken, or comes after time has passed")
        console = NodeConsole(self.notice_typing, shown)
        return self.join(name, boot(console), console, [Expectation(*line) for line in script])

    def join(self, name: str, machine: Machine, console: NodeConsole, script: Sequence[Expectation]) -> Node:
        """Add a machine that has been made with this console. It is closed if it cannot be a part of a cluster."""
        try:
            self.network.connect(name, check_joinable(name, machine))
        except ValueError:
            machine.close()
            raise
        node = self.nodes[name] = Node(name, machine, console, self.quantum_ns, script)
        if self.domains is not None:
            self.domains.join(node)
        return node

    @property
    def quantum_ns(self) -> int:
        """How far machines can be apart."""
        quantum = self.network.quantum_ns
        return quantum if self.domains is None else min(quantum, self.domains.quantum_ns)

    def notice_typing(self) -> None:
        """Hear that somebody has typed."""
        self._called.set()

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def hashes(self) -> dict[str, str]:
        """Return the state hash of each machine."""
        return {name: state_hash(node.machine) for name, node in self.nodes.items()}

    # -- running -------------------------------------------------------------------------------

    def run(
        self,
        seconds: float | None = None,
        timeout: float | None = None,
        until: Callable[[], bool] | None = None,
        waits: bool = False,
    ) -> ClusterEnd:
        """Run all machines for so many ``seconds`` of their time, or as long as something can happen. Where machines
        are domains of one host, the run ends at the end of a quantum.

        ``until`` is asked after each quantum whether the run is over: ask it of the guests alone, and it is over at the
        same time again. ``timeout`` is in seconds of the host's time. With ``waits``, a cluster in which nothing can
        happen waits for somebody to type.
        """
        end = None if seconds is None else self._end_after(seconds)
        deadline = None if timeout is None else monotonic() + timeout
        self._is_stopping = False
        if self.domains is not None:
            self.domains.begin()
        with ThreadPoolExecutor(self.cores, "dbt-cluster") as pool:
            while end is None or self.now_ns < end:
                if self._is_stopping or (deadline is not None and monotonic() >= deadline):
                    return ClusterEnd.STOPPED
                self._keep_checkpoint()
                self._type()
                stop = self._next_stop(end)
                if stop is not None:
                    self._advance(stop, pool)
                    if until is not None and until():
                        return ClusterEnd.STOPPED
                elif all(node.is_over for node in self.nodes.values()):
                    return ClusterEnd.ENDED
                elif waits and not self._replays:
                    self._called.wait(_LONGEST_WAIT_S)
                    self._called.clear()
                else:
                    return ClusterEnd.IDLE
        return ClusterEnd.TIME

    def _turns(self) -> list[Callable[[int], None]]:
        """Return what lets machines execute up to a time. These can be done beside each other."""
        if self.domains is None:
            return [node.advance for node in self.nodes.values()]
        in_turn = list(self.domains.nodes)
        return [self.domains.advance, *(node.advance for node in self.nodes.values() if node not in in_turn)]

    def _end_after(self, seconds: float) -> int:
        end = self.now_ns + round(seconds * _NS / US) * US
        return end if self.domains is None else -(-end // self.quantum_ns) * self.quantum_ns

    def _advance(self, stop: int, pool: ThreadPoolExecutor) -> None:
        """Let all machines execute up to a time, and carry what they send."""
        turns = self._turns()
        if self.cores == 1:
            for advance in turns:
                advance(stop)
        else:
            for turn in [pool.submit(advance, stop) for advance in turns]:
                turn.result()
        self.now_ns = stop
        self._carry()
        if self.domains is not None:
            self.domains.stand_together()

    def stop(self) -> None:
        """Let :meth:`run` return after the present quantum. Any thread, and the handler of a signal, may call it."""
        self._is_stopping = True
        self._called.set()

    def _next_stop(self, end: int | None) -> int | None:
        """Return where the machines stop next: at the end of the quantum in which one of them can go on. Return None if
        nobody can, ever.
        """
        quantum = self.quantum_ns
        wakes = [wakes for node in self.nodes.values() if (wakes := node.wakes_ns) is not None]
        if self._played < len(self._typed):
            wakes.append(self._typed[self._played].ns - quantum)
        if self._takes_typing and any(node.console.arrived() for node in self.nodes.values()):
            wakes.append(self.now_ns)  # it is typed where the machines stop together next
        if not wakes:
            return end
        stop = (max(self.now_ns, min(wakes)) // quantum + 1) * quantum
        return stop if end is None else min(stop, end)

    @property
    def _takes_typing(self) -> bool:
        """True if nothing is repeated: what people and scripts type is new."""
        return not self._replays and self.now_ns >= self._newest_ns

    def _type(self) -> None:
        """Give the machines what is typed, where they stop together."""
        if self.now_ns % self.quantum_ns:
            return
        for name, node in self.nodes.items():
            data = node.follow_script()
            if self._takes_typing and (data := data + node.take_typed()):
                self._typed.append(Typed(self.now_ns, name, data))
        while self._played < len(self._typed) and self._typed[self._played].ns <= self.now_ns:
            one = self._typed[self._played]
            self._played += 1
            self.nodes[one.machine].input.typed += one.data
            if self.log is not None:
                self.log.typed(one)

    def _carry(self) -> None:
        """Let what was sent in this quantum go to where it comes."""
        frames = [frame for node in self.nodes.values() for frame in node.take_frames()]
        for crossing in self.network.cross(frames):
            self._deliver(crossing)
            if self.log is not None:
                self.log.crossed(crossing)
        self._newest_ns = max(self._newest_ns, self.now_ns)

    def _deliver(self, crossing: Crossing) -> None:
        sent = crossing.sent
        for port, ns in crossing.arrivals:
            if ns is not None:
                self.nodes[port.machine].input.add(Incoming(ns, sent.machine, sent.number, port.card, sent.data))

    def replay_typed(self, typed: Iterable[Typed]) -> None:
        """Type what is given, at its times, and nothing else. Nothing may have been typed before."""
        self._typed, self._replays = list(typed), True

    @property
    def played(self) -> int:
        """How often something was typed that the machines have got."""
        return self._played

    def go_to_typed(self, played: int) -> None:
        """Stand where so much of what was typed has been given to the machines."""
        self._played = min(played, len(self._typed))

    # -- states --------------------------------------------------------------------------------

    def save(self) -> ClusterState:
        """Return the state of all machines and of what is between them."""
        from dbt.hypervisor.cluster.saved import save

        return save(self)

    # -- going back ----------------------------------------------------------------------------

    def keep_history(self, every_s: float = 1.0) -> None:
        """Keep checkpoints from now on, one in so many seconds of the cluster's time, for :meth:`go_back`. When there
        are too many, every second one is given up, and they are made half as often.

        Raise CheckpointError if a guest writes to a file as its disk.
        """
        self._every_ns = max(round(every_s * _NS), 1)
        self._keep_checkpoint()

    def _keep_checkpoint(self) -> None:
        if not self._every_ns or (self._checkpoints and self.now_ns < self._checkpoints[-1].ns + self._every_ns):
            return
        from dbt.hypervisor.cluster.saved import values_of

        machines = {name: node.machine.checkpoint() for name, node in self.nodes.items()}
        self._checkpoints.append(_Checkpoint(self.now_ns, values_of(self), machines))
        if len(self._checkpoints) > _MOST_CHECKPOINTS:  # half of them are enough, twice as far from each other
            del self._checkpoints[1::2]
            self._every_ns *= 2

    @property
    def oldest_ns(self) -> int:
        """The earliest time to which :meth:`go_back` can go."""
        return self._checkpoints[0].ns if self._checkpoints else self.now_ns

    def go_back(self, ns: int) -> None:
        """Go to an earlier time, at which everything is as it was. Going on from there, everything happens again, and
        what was typed is typed again. Nothing is shown twice.

        Raise ValueError if the history does not reach so far, or if the cluster is being recorded or compared.
        """
        if self.log is not None:
            raise ValueError("a cluster that is being recorded or compared cannot go back")
        found = [one for one in self._checkpoints if one.ns <= ns]
        if not found or ns > self.now_ns or ns % US:
            raise ValueError(
                f"cannot go to {ns} ns: the history has whole microseconds from {self.oldest_ns} to {self.now_ns} ns"
            )
        from dbt.hypervisor.cluster.saved import give_values

        checkpoint = found[-1]
        for name, kept in checkpoint.machines.items():
            self.nodes[name].machine.rollback(kept)
        give_values(self, checkpoint.values)
        del self._checkpoints[len(found) :]
        self.run(seconds=(ns - self.now_ns) / _NS)


def _make_domains(quantum_us: int, share_core: bool) -> ClusterDomains:
    from dbt.hypervisor.cluster.domains import ClusterDomains  # which few clusters have

    return ClusterDomains(quantum_us, share_core)


def shown_of(shown: Callable[[str, bytes], None] | None, name: str) -> Callable[[bytes], None] | None:
    """Return what is called with what one machine writes, if ``shown`` is called with what all of them write."""
    return None if shown is None else lambda data: shown(name, data)
