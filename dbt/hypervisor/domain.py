"""A domain: a machine with a name, a share of the host, and a life."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import thread_time_ns
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID

from dbt.hypervisor.console_ring import ConsoleRing
from dbt.hypervisor.lifecycle import ALIVE, SOUND, DomainState, Lifecycle, LifecycleError
from dbt.hypervisor.limits import NO_INSTRUCTIONS_LEFT, Limits, limit_devices
from dbt.hypervisor.movable import MovableDomain
from dbt.hypervisor.turn_watcher import TurnWatcher
from dbt.hypervisor.waits import GuestTime
from dbt.vm.machine import Machine
from dbt.vm.metered_run import MeteredRun
from dbt.vm.result import StopReason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    from dbt.host.console import Console
    from dbt.host.net_option import Net
    from dbt.hypervisor.limits import LimitChanges
    from dbt.vm.identity import Identity
    from dbt.vm.options import HostOptions
    from dbt.vm.vm_state import VmState

#: A function that makes a domain's machine and loads it. It is called at each start, and when the guest resets itself.
Boot = Callable[["Console"], Machine]


@dataclass
class Usage:
    """What a domain has used since it was defined.

    ``instructions`` have retired; ``charged`` is what other events were charged, in instructions. ``turns`` is how
    often it has had a core. ``host_ns`` is the CPU time of the host that its turns took, in nanoseconds; nothing is
    decided by it where schedules can be repeated.
    """

    instructions: int = 0
    charged: int = 0
    turns: int = 0
    host_ns: int = 0


class Outcome(NamedTuple):
    """How a turn ended: with a run, or with an error of the host."""

    run: MeteredRun | None
    error: BaseException | None
    instructions: int
    charged: int
    host_ns: int

    @property
    def used(self) -> int:
        return self.instructions + self.charged


class Carrier(Protocol):
    """What a domain needs of the host that it belongs to."""

    def held(self, domain: Domain) -> AbstractContextManager[None]:
        """Keep the domain from executing, and all others from changing it."""

    def state_changed(self, domain: Domain) -> None:
        """Hear that the domain has come into another state."""

    def limits_changed(self, domain: Domain) -> None:
        """Hear that the domain's share of the host is another one."""

    def adopt(self, domain: Domain) -> None:
        """Take over a domain that has been made. Raise ValueError if there is one of that name."""

    def identity(self, nets: int, wall_clock: int | None) -> Identity:
        """Return the identity of the next clone."""

    @property
    def host_ns(self) -> Callable[[], int] | None:
        """What gives the host's time in nanoseconds, if the guests' time is to follow it while they compute."""

    @property
    def longest_turn_s(self) -> float:
        """How long a turn may last, in seconds of the host."""

    @property
    def holds_frames(self) -> bool:
        """True if what a guest sends is to leave when its turn is accounted for, and not at once."""


class Domain(MovableDomain):
    """A domain of a :class:`dbt.hypervisor.host.Host`, which makes it (:meth:`dbt.hypervisor.host.Host.define`).

    Any thread may call its methods, also while the host runs. A method that cannot be called in the present state
    raises LifecycleError.
    """

    def __init__(
        self, carrier: Carrier, name: str, uuid: UUID, boot: Boot, limits: Limits, typed: Callable[[Domain], None]
    ) -> None:
        super().__init__(carrier)
        self.name = name
        self.uuid = uuid
        self.usage = Usage()
        self.console = ConsoleRing(typed=lambda: typed(self))
        #: Why its machine has ended: what the guest did, or the error of the host. It is empty before.
        self.reason = ""
        #: The exit code of the guest, once it has ended by itself.
        self.exit_code: int | None = None
        self._boot = boot
        self._typed = typed
        self._limits = limits
        self._life = Lifecycle(name)
        self._machine: Machine | None = None
        self._saved: tuple[VmState, HostOptions] | None = None
        self._time = GuestTime()
        self._is_fresh = True  # its user may have changed its machine since its last turn
        self._wakes_at: int | None = None  # the tick of the guest's time up to which it waits

    def __repr__(self) -> str:
        return f"<domain {self.name}, {self.state.value}>"

    @property
    def state(self) -> DomainState:
        return self._life.state

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def machine(self) -> Machine:
        """Its machine, to look at and to change while the domain does not execute, as when it is paused."""
        self._life.require("look at the machine of", *ALIVE)
        assert self._machine is not None
        return self._machine

    def set_limits(self, **changes: Unpack[LimitChanges]) -> None:
        """Change its limits, which are the fields of :class:`dbt.hypervisor.limits.Limits`. What is not given, or None,
        stays. A ``cap`` of 1 is none.
        """
        with self._carrier.held(self):
            old, new = self._limits, self._limits.changed(self.name, changes)
            self._limits = new
            self._carrier.limits_changed(self)
            if self.state in SOUND and (old.disks, old.nets) != (new.disks, new.nets):
                limit_devices(self.machine, new)
                self._typed(self)

    @property
    def instructions_left(self) -> int | None:
        """How many instructions it may still execute, or None without a limit."""
        most = self._limits.instructions
        return None if most is None else max(most - self.usage.instructions, 0)

    # -- its life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the domain: make its machine and boot it, or go on where it was saved."""
        with self._carrier.held(self):
            self._life.require("start", DomainState.DEFINED, DomainState.SAVED)
            self._require_instructions()
            self._machine = self._made()
            self._wakes_at, self.reason, self.exit_code = None, "", None
            self._time.forget()
            self._to(DomainState.RUNNING)

    def _made(self) -> Machine:
        if self._saved is None:
            machine = self._boot(self.console)
        else:
            state, options = self._saved
            machine = Machine.restore(state, **options)
            state.close()
            self._saved = None
        if machine.options.realtime:
            machine.close()
            raise ValueError(f"the machine of the domain {self.name} has realtime=True: its host says how time passes")
        if self._carrier.holds_frames:
            machine.hold_frames()
        limit_devices(machine, self._limits)
        return machine

    def pause(self) -> None:
        """Let the guest stand still. Its time does not pass."""
        with self._carrier.held(self):
            self._life.require("pause", DomainState.RUNNING, DomainState.BLOCKED)
            self._to(DomainState.PAUSED)

    def resume(self, force: bool = False) -> None:
        """Let the guest go on. With ``force``, also after a migration of which nobody knows where the machine is: its
        user knows that it does not run elsewhere. Raise DiskError or NetworkError if what it needs is used there.
        """
        with self._carrier.held(self):
            if force and self.state is DomainState.UNDECIDED:
                self._move.force()
            else:
                self._life.require("resume", DomainState.PAUSED)
                self._require_instructions()
            self._time.forget()
            self._is_fresh = True
            self._to(DomainState.RUNNING)

    def _require_instructions(self) -> None:
        if self.instructions_left == 0:
            raise LifecycleError(f"the domain {self.name} cannot go on: {NO_INSTRUCTIONS_LEFT}")

    def shutdown(self) -> None:
        """Press the power key of its machine, so that the guest shuts down by itself. What it does is its own affair.
        Raise ValueError if the board has no such key.
        """
        with self._carrier.held(self):
            self._life.require("shut down", DomainState.RUNNING, DomainState.BLOCKED)
            self.machine.press_power_key()
        self._typed(self)

    def destroy(self) -> None:
        """End the machine at once, as if it was switched off. The domain can be started again."""
        with self._carrier.held(self):
            self._life.require("destroy", *ALIVE, DomainState.SAVED)
            self._end("it was destroyed")

    def save(self) -> None:
        """Keep the machine's state in memory and give everything else back. :meth:`start` goes on there."""
        with self._carrier.held(self):
            self._life.require("save", *SOUND)
            machine = self.machine
            options = machine.options.of_host(self.console, _silent)
            options["nets"], options["drives"] = machine.options.nets, machine.options.drives
            options["vsock"] = machine.options.vsock
            self._saved = machine.save(), options
            self._to(DomainState.SAVED)
            machine.close()
            self._machine = None

    def clone(self, name: str, wall_clock: int | None = None, nets: Sequence[Net] | None = None) -> Domain:
        """Return a new domain in the state of this one, with the same limits, which shares the memory of both until one
        of them stores to it. It is paused: :meth:`resume` starts it.

        It has another UUID, other addresses of network cards and other random numbers, which follow from the host's
        seed and from how many clones there were before. With ``wall_clock``, its time of day is that, in seconds since
        1970. ``nets`` says what its network cards are connected to. By default they are at the hubs at which this
        domain's are, and what reaches outside, which is this domain's, is connected to nothing.

        What the guest has read of its identity already is in its memory, and stays. Raise StateError for what
        :meth:`dbt.vm.machine.Machine.fork` cannot do.
        """
        with self._carrier.held(self):
            self._life.require("clone", *SOUND)
            machine = self.machine
            ends = nets
            if ends is None:
                ends = [net.disconnected() if net.reaches_outside else net for net in machine.options.nets]
            identity = self._carrier.identity(len(machine.options.nets), wall_clock)
            other = Domain(self._carrier, name, identity.uuid, self._boot, self._limits, self._typed)
            other._machine = machine.fork(identity, console=other.console, nets=ends)
            try:
                self._carrier.adopt(other)
            except ValueError:
                other._machine.close()
                raise
            if self._carrier.holds_frames:
                other._machine.hold_frames()
            limit_devices(other._machine, self._limits)
            other._to(DomainState.RUNNING)
            other._to(DomainState.PAUSED)
            return other

    def _become(self, machine: Machine | None, reason: str = "") -> None:
        """Have another machine, or none any more, because of ``reason``."""
        if machine is None:
            self._end(reason)
            return
        self._machine, self._wakes_at, self.reason, self.exit_code = machine, None, "", None
        self._time.forget()
        self._is_fresh = True
        if self._carrier.holds_frames:
            machine.hold_frames()
        limit_devices(machine, self._limits)

    def _to(self, state: DomainState) -> None:
        self._life.to(state)
        self._carrier.state_changed(self)

    def _end(self, reason: str, exit_code: int | None = None) -> None:
        """Give back everything that the domain has of the host."""
        self.reason, self.exit_code = reason, exit_code
        self._end_move()
        if self._saved is not None:
            self._saved[0].close()
            self._saved = None
        if self.state is not DomainState.SAVED:
            self._to(DomainState.DYING)
        if self._machine is not None:
            self._machine.close()
            self._machine = None
        self._to(DomainState.DEFINED)

    # -- for the host that it belongs to -------------------------------------------------------

    def execute(self, units: int) -> Outcome:
        """Execute the guest for at most so many units. Exceptions become the outcome's: they are this domain's."""
        machine = self.machine
        before, began = machine.icount, thread_time_ns()
        run = error = None
        watcher = TurnWatcher(self._carrier.longest_turn_s, not self._is_fresh)
        self._is_fresh = False
        try:
            ticks_behind = self._ticks_behind if self._carrier.host_ns else None
            run = machine.run_metered(units, watcher, ticks_behind, self.instructions_left)
        except BaseException as failure:  # whatever it is, it concerns this domain and no other
            error = failure
        host_ns = thread_time_ns() - began
        return Outcome(run, error, machine.icount - before, 0 if run is None else run.charged, host_ns)

    def _ticks_behind(self, now: int) -> int:
        """Return by how many ticks the guest, which computes, is behind the host's clock."""
        assert self._carrier.host_ns is not None
        insn_ns = self.machine.options.insn_ns
        return self._time.noticeable_lag(self._carrier.host_ns(), now * insn_ns) // insn_ns

    def account(self, outcome: Outcome, host_ns: int) -> int | None:
        """Take account of a turn that has ended at a time of the host's, in nanoseconds, and go over to the state that
        follows from it.

        Return until when the domain is blocked, or None if it is not, or waits for something from outside.
        """
        usage = self.usage
        usage.instructions += outcome.instructions
        usage.charged += outcome.charged
        usage.host_ns += outcome.host_ns
        usage.turns += 1
        self.machine.release_frames()
        run = outcome.run
        if run is None and not isinstance(outcome.error, Exception):
            return None  # it is the caller's, as Ctrl-C is: the machine can go on
        if run is None:
            self._crash(f"{type(outcome.error).__name__}: {outcome.error}")
            return None
        match run.result.reason:
            case StopReason.FUEL | StopReason.WAITING if self.instructions_left == 0:
                self.reason = NO_INSTRUCTIONS_LEFT
                self._to(DomainState.PAUSED)
            case StopReason.WAITING:
                return self._block(run.wait_ns, host_ns)
            case StopReason.EXITED if self.machine.vcpu.reset_requested:
                self._reboot()
            case StopReason.EXITED:
                self._end(run.result.message or "the guest has ended", run.result.exit_code)
            case StopReason.FAULT | StopReason.HALTED:
                self._crash(run.result.message)
        return None

    def _crash(self, reason: str) -> None:
        self.reason = reason
        self._to(DomainState.CRASHED)

    def _block(self, wait_ns: int | None, host_ns: int) -> int | None:
        machine = self.machine
        lag = self._time.lag(host_ns, self._guest_ns)
        ticks = None if wait_ns is None else wait_ns // machine.options.insn_ns
        self._wakes_at = None if ticks is None else machine.vcpu.now() + ticks
        self._to(DomainState.BLOCKED)
        return None if wait_ns is None else host_ns + max(wait_ns - lag, 0)

    @property
    def _guest_ns(self) -> int:
        return self.machine.vcpu.now() * self.machine.options.insn_ns

    def wake(self, host_ns: int) -> None:
        """Let a blocked domain execute again, at a time of the host's. Its guest's time passes, up to what it waits
        for.
        """
        machine = self.machine
        tick = machine.vcpu.now() + self._time.lag(host_ns, self._guest_ns) // machine.options.insn_ns
        if self._wakes_at is not None:
            tick = min(tick, self._wakes_at)
        try:
            machine.wait_until(tick)
        except Exception as failure:  # of a device: it ends this domain and no other
            self._crash(f"{type(failure).__name__}: {failure}")
        else:
            self._to(DomainState.RUNNING)

    @property
    def has_network(self) -> bool:
        """Return True if something may come for the guest without anybody's call."""
        return self._machine is not None and bool(self._machine.options.nets or self._machine.options.vsock)

    @property
    def has_arrivals(self) -> bool:
        """Return True if something has come for the guest, other than what was typed."""
        return self.machine.input_source.has_arrivals

    def _reboot(self) -> None:
        """Boot the machine anew, because the guest has reset it. A machine that cannot be made is a crash."""
        self.machine.close()
        try:
            self._machine = self._made()
            self._time.forget()
        except Exception as failure:  # of the function that boots it, which is the user's
            self._crash(f"it cannot be booted again: {failure}")


def _silent(line: str) -> None:
    """Ignore what a machine says about itself; its console and its domain's reason are there to be read."""
