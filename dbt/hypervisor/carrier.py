"""Where the machines of domains execute, as one contract: in the host's process, or each in a process of its own.

A :class:`Carrier` makes machines, and a :class:`Vm` is one of them as its domain sees it. What becomes of a domain
depends on the values of :class:`Outcome` alone, so it is the same with both carriers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from time import monotonic_ns, thread_time_ns
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID

from dbt.board.clock import nanoseconds, ticks_in
from dbt.hypervisor.turn_watcher import TurnWatcher
from dbt.hypervisor.waits import GuestTime
from dbt.vm.machine import Machine
from dbt.vm.meter import CHARGES
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.host.console import Console
    from dbt.host.net_option import Net
    from dbt.hypervisor.arriving_vm import ArrivingVm
    from dbt.hypervisor.console_ring import ConsoleRing
    from dbt.hypervisor.limits import Limits
    from dbt.hypervisor.migration.arriving import Maker
    from dbt.hypervisor.migration.leaving import Leaving
    from dbt.hypervisor.turn_watcher import AskedToStop
    from dbt.vm.identity import Identity
    from dbt.vm.metered_run import MeteredRun
    from dbt.vm.options import HostOptions
    from dbt.vm.vm_state import VmState

#: A function that makes a domain's machine and loads it. It is called at each start, and when the guest resets itself.
Boot = Callable[["Console"], Machine]


class VmLost(RuntimeError):
    """Raised if a machine's process has ended, or says what makes no sense. The text says what has happened."""


class Name(NamedTuple):
    """The name and the UUID of a domain, by which its process is found again."""

    name: str
    uuid: UUID


class Conduct(NamedTuple):
    """What a machine does by itself if its host is gone, and how it begins.

    - ``rate``: the instructions that a core is taken to execute in a second.
    - ``cap``: the units that it may use in each period of ``period_ms``.
    - ``core_time``: the part of a core's time that it may use in place of that, or None.
    - ``goes_on``: whether it executes without its host: not if it is paused, nor if its schedule can be repeated.
    - ``holds_frames``: whether what the guest sends leaves when its turn is accounted for, and not at once.
    """

    rate: int
    cap: int
    core_time: float | None
    period_ms: int
    goes_on: bool
    holds_frames: bool


class Facts(NamedTuple):
    """What of a machine does not change while it exists.

    ``ticks_per_second``: those of its time. ``nets``: its network cards. ``hears_outside``: whether something may come
    for it without anybody's call. ``has_limits``: whether it has devices that can be limited.
    """

    ticks_per_second: int
    nets: tuple[Net, ...]
    hears_outside: bool
    has_limits: bool

    @classmethod
    def of(cls, machine: Machine) -> Facts:
        options = machine.options
        has_limits, nets = bool(options.nets or options.drives), tuple(options.nets)
        return cls(machine.timeline.ticks_per_second, nets, options.hears_outside, has_limits)


class RecordingFile(NamedTuple):
    """A file in which the input of a machine is recorded, from its first instruction on (:mod:`dbt.vm.recording`).

    ``file`` is the descriptor of an empty file, of which the machine has a copy. ``path`` names it in messages.
    ``origin`` says how the run is made, as a JSON object.
    """

    file: int
    path: str
    origin: Mapping[str, object]


class Terms(NamedTuple):
    """What a turn may use.

    - ``units``: instructions and charges.
    - ``seconds``: how long it may last, by the host's clock.
    - ``goes_on``: nobody has changed the guest since the last turn.
    - ``origin_ns``: where the guest's time is to follow the host's clock while it computes, when that began, by the
      clock ``monotonic_ns``, which all processes share. ``ahead``: see :class:`dbt.hypervisor.waits.GuestTime`.
    - ``instructions``: how many may retire, or None for any number.
    - ``memory``: how many bytes of the host its RAM may have for itself at the end, or None for any number.
    """

    units: int
    seconds: float
    goes_on: bool
    origin_ns: int | None = None
    ahead: int | None = None
    instructions: int | None = None
    memory: int | None = None


class Outcome(NamedTuple):
    """How a turn ended, in plain values.

    - ``reason``, ``message`` and ``exit_code``: as of any run. The reason is None if the host failed, and the message
      says how.
    - ``instructions`` have retired, other events were ``charged``, and ``host_ns`` is the CPU time that it took.
    - ``wait_ns``: for how long the guest waits, in nanoseconds of its time; None if it does not, or for something from
      outside.
    - ``now``: the tick of the guest's time.
    - ``resets``: the guest has reset its machine.
    - ``error``: an exception that is the caller's and no failure, as Ctrl-C is.
    """

    reason: StopReason | None
    message: str
    exit_code: int | None
    instructions: int
    charged: int
    host_ns: int
    wait_ns: int | None
    now: int
    resets: bool
    ahead: int | None
    error: BaseException | None = None

    @property
    def used(self) -> int:
        return self.instructions + self.charged

    @classmethod
    def failed(cls, message: str, now: int) -> Outcome:
        """Return the outcome of a turn of which nothing is known, but that the host has failed."""
        return cls(None, message, None, 0, 0, 0, None, now, False, None)


class Vm(Protocol):
    """A domain's machine. Its methods are called by one thread at a time, but for :meth:`interrupt`.

    All but :meth:`execute` and :meth:`close` raise VmLost if its process is gone.
    """

    facts: Facts

    @property
    def machine(self) -> Machine:
        """The machine itself. Raise RuntimeError if it is in another process."""

    def execute(self, terms: Terms) -> Outcome:
        """Execute the guest for one turn."""

    def interrupt(self) -> None:
        """Let the present turn end soon. Any thread may call it."""

    def wait_until(self, tick: int) -> None:
        """Let the time of a guest that waits pass up to ``tick``. A failure may be told by the next turn instead."""

    def press_power_key(self, reboots: bool = False) -> None:
        """See :meth:`dbt.vm.controlled_machine.ControlledMachine.press_power_key`."""

    def set_memory(self, size: int) -> None:
        """See :func:`dbt.hypervisor.limits.set_memory`."""

    def release_frames(self) -> None:
        """Let the frames leave that the guest has sent in its last turn."""

    @property
    def has_arrivals(self) -> bool:
        """True if something has come for the guest, other than what was typed, which :meth:`Carrier.stirring` does not
        tell.
        """

    @property
    def outside_events(self) -> Mapping[int, int]:
        """The descriptors at which :attr:`has_arrivals` may become true, and what they are looked at for, as poll(2)
        has it.
        """

    def limit_devices(self, limits: Limits) -> None:
        """See :func:`dbt.hypervisor.limits.limit_devices`."""

    def plug(self, cards: Mapping[int, int]) -> None:
        """Connect network cards to unix stream sockets, of which it gets copies: their descriptors by the cards."""

    def conduct(self, conduct: Conduct) -> None:
        """Hear how to go on if the host is gone."""

    # -- to look at, while it does not execute

    def state_hash(self) -> str:
        """See :func:`dbt.vm.state.state_hash`."""

    def registers(self) -> Sequence[int]:
        """Return R0 to R15 of the present mode."""

    def icount(self) -> int:
        """Return the instructions that have retired since the machine was reset."""

    def read(self, address: int, size: int) -> bytes:
        """See :meth:`dbt.vm.guest_access.GuestAccess.read`."""

    def write(self, address: int, data: bytes) -> None:
        """See :meth:`dbt.vm.guest_access.GuestAccess.write`."""

    # -- its state and its end

    def save(self) -> VmState:
        """See :meth:`dbt.vm.machine.Machine.save`."""

    def leaving(self) -> Leaving:
        """Return it as a migration sees it, at the source. One migration has one."""

    @property
    def arguments(self) -> object:
        """What the machine was made with and is no part of its state, for :meth:`Carrier.restore`."""

    def fork(self, name: Name, identity: Identity, console: ConsoleRing, nets: Sequence[Net], conduct: Conduct) -> Vm:
        """See :meth:`dbt.vm.machine.Machine.fork`."""

    def close(self) -> None:
        """Give back everything that it has of the host."""


class Found(NamedTuple):
    """A machine whose host is gone. ``ended`` is the outcome of its last turn if its guest has ended meanwhile.
    ``doubt`` is why it must not run, if it was being migrated and nobody knows whether it runs elsewhere.
    """

    vm: Vm
    ended: Outcome | None
    doubt: str


class Carrier(Protocol):
    """Makes machines."""

    def boot(self, name: Name, boot: Boot, console: ConsoleRing, conduct: Conduct) -> Vm:
        """Return the machine that ``boot`` makes. Raise what that raises."""

    def restore(
        self,
        name: Name,
        state: VmState,
        arguments: object,
        console: ConsoleRing,
        conduct: Conduct,
        identity: Identity | None = None,
        recording: RecordingFile | None = None,
    ) -> Vm:
        """Return a machine in a saved state, with the :attr:`Vm.arguments` of the one that was saved or those of
        :meth:`arguments`. With an ``identity`` it becomes another one. With a ``recording``, its input is recorded
        there; the machine's end is in the recording if it is closed, and is not if its process is killed.
        """

    def arguments(self, options: HostOptions) -> object:
        """Return what :meth:`restore` takes for a machine with these options, but for its console."""

    def arriving(self, name: Name, options: HostOptions, console: ConsoleRing, conduct: Conduct) -> Maker[ArrivingVm]:
        """Return what makes the machine of a domain that is moved here. ``options`` are what it has of this host."""

    def attach(self, name: Name, console: ConsoleRing, conduct: Conduct) -> Found | None:
        """Return the machine of that UUID whose host is gone, or None if there is none."""

    def stirring(self) -> Collection[str]:
        """Return the names of the domains whose machines say something that they were not asked, or are gone. Those
        that execute may be among them.
        """

    @property
    def outside_events(self) -> Mapping[int, int]:
        """The descriptors at which :meth:`stirring` may find somebody, and what they are looked at for, as poll(2) has
        it.
        """


def check_machine(machine: Machine, name: str) -> None:
    """Close a machine that no domain can have, and raise ValueError."""
    if machine.options.realtime:
        machine.close()
        raise ValueError(f"the machine of the domain {name} has realtime=True: its host says how time passes")


def execute(machine: Machine, terms: Terms, stop: AskedToStop | None = None) -> Outcome:
    """Execute one turn of a machine of this process. Exceptions become the outcome's: they are this domain's.

    A guest that follows the host's clock, and waits until a time that has passed there already, goes on in its turn. So
    a request to a disk, which takes some microseconds of the guest's time, takes no turn.

    ``stop`` returns True if the turn is to end early. It is asked between two slices.
    """
    before, began = machine.icount, thread_time_ns()
    rate, time = machine.timeline.ticks_per_second, GuestTime(terms.ahead)
    run: MeteredRun | None = None
    error: BaseException | None = None
    charged = 0

    def ticks_behind(now: int) -> int:
        assert terms.origin_ns is not None
        lag = time.noticeable_lag(monotonic_ns() - terms.origin_ns, nanoseconds(now, rate))
        return ticks_in(lag, rate)

    def is_past(run: MeteredRun) -> bool:
        """Return True if the guest waits until a time that the host's clock has passed."""
        if terms.origin_ns is None or run.result.reason is not StopReason.WAITING or run.wait_ns is None:
            return False
        return time.lag(monotonic_ns() - terms.origin_ns, nanoseconds(machine.vcpu.now(), rate)) >= run.wait_ns

    try:
        watcher = TurnWatcher(terms.seconds, terms.goes_on, stop)
        follows = None if terms.origin_ns is None else ticks_behind
        units, instructions_left = terms.units, terms.instructions
        while True:
            run = machine.run_metered(units, watcher, follows, instructions_left)
            charged += run.charged
            units -= run.used
            if instructions_left is not None:
                instructions_left -= run.retired
            if units <= 0 or instructions_left == 0 or not is_past(run) or watcher.wants_stop():
                break
            assert run.wait_ns is not None
            machine.wait_until(machine.vcpu.now() + ticks_in(run.wait_ns, rate), until_woken=True)
            watcher.goes_on = True
    except BaseException as failure:  # whatever it is, it concerns this domain and no other
        error = failure
    host_ns, instructions, now = thread_time_ns() - began, machine.icount - before, machine.vcpu.now()
    if run is None:
        is_the_callers = not isinstance(error, Exception)
        text = "" if is_the_callers else f"{type(error).__name__}: {error}"
        raised = error if is_the_callers else None
        return Outcome(None, text, None, instructions, charged, host_ns, None, now, False, time.ahead, raised)
    result, resets = run.result, machine.vcpu.reset_requested
    if terms.memory is not None and machine.own_memory.exceeds(terms.memory):
        text = f"its RAM takes {machine.own_memory.size()} bytes of the host, and its limit of memory is {terms.memory}"
        result = RunResult(StopReason.FAULT, None, result.icount, result.pc, text)
    charged += CHARGES.reset if resets else 0
    return Outcome(
        result.reason,
        result.message,
        result.exit_code,
        instructions,
        charged,
        host_ns,
        run.wait_ns,
        now,
        resets,
        time.ahead,
    )
