"""A domain: a machine with a name, a share of the host, and a life."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from dbt.board.clock import nanoseconds, ticks_in
from dbt.hypervisor.carrier import Boot, Carrier, Conduct, Name, Outcome, Terms, Vm, VmLost
from dbt.hypervisor.console_ring import ConsoleRing, default_ring
from dbt.hypervisor.lifecycle import ALIVE, SOUND, DomainState, Lifecycle, LifecycleError
from dbt.hypervisor.limits import NO_INSTRUCTIONS_LEFT, Limits
from dbt.hypervisor.movable import MovableDomain
from dbt.hypervisor.usage import Usage
from dbt.hypervisor.waits import GuestTime
from dbt.vm.result import StopReason

if TYPE_CHECKING:
    from typing import Unpack

    from dbt.host.net_option import Net
    from dbt.hypervisor.carrier import RecordingFile
    from dbt.hypervisor.limits import LimitChanges
    from dbt.vm.identity import Identity
    from dbt.vm.machine import Machine
    from dbt.vm.vm_state import VmState


class DomainHost(Protocol):
    """What a domain needs of the host that it belongs to."""

    carrier: Carrier

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
    def origin_ns(self) -> int | None:
        """When the host's time began, by the clock ``monotonic_ns``, if the guests' time is to follow it while they
        compute.
        """

    @property
    def longest_turn_s(self) -> float:
        """How long a turn may last, in seconds of the host."""

    def conduct(self, domain: Domain) -> Conduct:
        """Return how the domain's machine is to go on if the host is gone."""


class Domain(MovableDomain):
    """A domain of a :class:`dbt.hypervisor.host.Host`, which makes it (:meth:`dbt.hypervisor.host.Host.define`).

    Any thread may call its methods, also while the host runs. A method that cannot be called in the present state
    raises LifecycleError. One that needs the machine raises VmLost if that is in a process of its own and the process
    has ended; the domain is crashed then.
    """

    def __init__(
        self,
        host: DomainHost,
        name: str,
        uuid: UUID,
        boot: Boot,
        limits: Limits,
        typed: Callable[[Domain], None],
        ring: Callable[[Callable[[], None]], ConsoleRing] = default_ring,
    ) -> None:
        super().__init__(host)
        self.name = name
        self.uuid = uuid
        self.usage = Usage()
        self.console = ring(lambda: typed(self))
        #: Why its machine has ended: what the guest did, or the error of the host. It is empty before.
        self.reason = ""
        #: The exit code of the guest, once it has ended by itself.
        self.exit_code: int | None = None
        self._boot = boot
        self._typed = typed
        self._limits = limits
        self._life = Lifecycle(name)
        self._vm: Vm | None = None
        self._saved: tuple[VmState, object] | None = None
        self._time = GuestTime()
        #: How often the guest has reset its machine, which was booted anew then.
        self.resets = 0
        self._now = 0  # the tick of the guest's time at the end of its last turn
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
    def vm(self) -> Vm:
        """Its machine, wherever that executes."""
        self._life.require("look at the machine of", *ALIVE)
        assert self._vm is not None
        return self._vm

    @property
    def machine(self) -> Machine:
        """Its machine, to look at and to change while the domain does not execute, as when it is paused. Raise
        RuntimeError if it is in a process of its own.
        """
        return self.vm.machine

    @property
    def _name(self) -> Name:
        return Name(self.name, self.uuid)

    def set_limits(self, **changes: Unpack[LimitChanges]) -> None:
        """Change its limits, which are the fields of :class:`dbt.hypervisor.limits.Limits`. What is not given, or None,
        stays. A ``cap`` of 1 is none.
        """
        with self._held():
            old, new = self._limits, self._limits.changed(self.name, changes)
            self._limits = new
            self._host.limits_changed(self)
            self._conduct()
            if self.state in SOUND and (old.disks, old.nets) != (new.disks, new.nets):
                self.vm.limit_devices(new)
                self._typed(self)

    def plug_cards(self, cards: Mapping[int, int]) -> None:
        """Connect network cards of its machine to other ends (:meth:`dbt.hypervisor.carrier.Vm.plug`)."""
        with self._held():
            self._life.require("connect the network cards of", *SOUND)
            self.vm.plug(cards)
        self._typed(self)

    @property
    def instructions_left(self) -> int | None:
        """How many instructions it may still execute, or None without a limit."""
        most = self._limits.instructions
        return None if most is None else max(most - self.usage.instructions, 0)

    # -- to look at ----------------------------------------------------------------------------

    def state_hash(self) -> str:
        """Return the state hash of its machine (:func:`dbt.vm.state.state_hash`)."""
        with self._held():
            return self.vm.state_hash()

    def registers(self) -> Sequence[int]:
        """Return R0 to R15 of the guest's present mode."""
        with self._held():
            return self.vm.registers()

    @property
    def icount(self) -> int:
        """The instructions that its machine has retired since it was reset."""
        with self._held():
            return self.vm.icount()

    def read(self, address: int, size: int) -> bytes:
        """Return what its machine's RAM holds: see :meth:`dbt.vm.guest_access.GuestAccess.read`."""
        with self._held():
            return self.vm.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        """Change what its machine's RAM holds: see :meth:`dbt.vm.guest_access.GuestAccess.write`."""
        with self._held():
            self._is_fresh = True
            self.vm.write(address, data)

    # -- its life ------------------------------------------------------------------------------

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._host.held(self):
            try:
                yield
            except VmLost as lost:
                if self.state in SOUND:
                    self._crash(str(lost))
                raise

    def start(self) -> None:
        """Start the domain: make its machine and boot it, or go on where it was saved."""
        with self._held():
            self._life.require("start", DomainState.DEFINED, DomainState.SAVED)
            self._require_instructions()
            self._vm = self._made()
            self._begin()

    def start_in(
        self,
        state: VmState,
        arguments: object,
        identity: Identity | None = None,
        recording: RecordingFile | None = None,
    ) -> None:
        """Start the domain in a saved state, which may be that of many. ``arguments`` are those of its machine, by
        :meth:`dbt.hypervisor.carrier.Carrier.arguments`. With an ``identity`` it is another machine than the one that
        was saved. With a ``recording``, its input is recorded.
        """
        with self._held():
            self._life.require("start", DomainState.DEFINED)
            self._require_instructions()
            carrier, conduct = self._host.carrier, self._host.conduct(self)
            self._vm = carrier.restore(self._name, state, arguments, self.console, conduct, identity, recording)
            self._vm.limit_devices(self._limits)
            self._begin()

    def attach(self, is_paused: bool = False) -> bool:
        """Take over its machine, if that executes in a process of its own whose host is gone. Return False if there is
        none. What the guest did meanwhile, such as its end, is seen in the next run of the host. A machine that was
        being migrated when its host ended may be undecided. With ``is_paused``, the guest stands still afterwards.
        """
        with self._held():
            self._life.require("attach to", DomainState.DEFINED)
            conduct = self._host.conduct(self)
            conduct = conduct._replace(goes_on=conduct.goes_on and not is_paused)
            found = self._host.carrier.attach(self._name, self.console, conduct)
            if found is None:
                return False
            self._vm = found.vm
            if found.doubt:
                self._to(DomainState.MIGRATING)
                self.reason = found.doubt
                self._to(DomainState.UNDECIDED)
                return True
            self._begin()
            if found.ended is not None:
                self._go_over(found.ended, 0)
            elif is_paused:
                self._to(DomainState.PAUSED)
            return True

    def _begin(self) -> None:
        self._wakes_at, self.reason, self.exit_code = None, "", None
        self._time.forget()
        self._is_fresh = True
        self._to(DomainState.RUNNING)

    def _made(self) -> Vm:
        carrier, conduct = self._host.carrier, self._host.conduct(self)
        if self._saved is None:
            vm = carrier.boot(self._name, self._boot, self.console, conduct)
        else:
            state, arguments = self._saved
            vm = carrier.restore(self._name, state, arguments, self.console, conduct)
            state.close()
            self._saved = None
        vm.limit_devices(self._limits)
        return vm

    def pause(self) -> None:
        """Let the guest stand still. Its time does not pass."""
        with self._held():
            self._life.require("pause", DomainState.RUNNING, DomainState.BLOCKED)
            self._to(DomainState.PAUSED)
            self._conduct()

    def resume(self, force: bool = False) -> None:
        """Let the guest go on. With ``force``, also after a migration of which nobody knows where the machine is: its
        user knows that it does not run elsewhere. Raise DiskError or NetworkError if what it needs is used there.
        """
        with self._held():
            if force and self.state is DomainState.UNDECIDED:
                self._move.force()
            else:
                self._life.require("resume", DomainState.PAUSED)
                self._require_instructions()
            self._time.forget()
            self._is_fresh = True
            self._to(DomainState.RUNNING)
            self._conduct()

    def _require_instructions(self) -> None:
        if self.instructions_left == 0:
            raise LifecycleError(f"the domain {self.name} cannot go on: {NO_INSTRUCTIONS_LEFT}")

    def _conduct(self) -> None:
        """Tell the machine how it is to go on without the host."""
        if self.state in SOUND:
            self.vm.conduct(self._host.conduct(self))

    def shutdown(self, reboots: bool = False) -> None:
        """Press the power key of its machine, so that the guest shuts down by itself. What it does is its own affair.
        A domain of Xen can be told to reboot instead. Raise ValueError if the board has no such key.
        """
        with self._held():
            self._life.require("shut down", DomainState.RUNNING, DomainState.BLOCKED)
            self.vm.press_power_key(reboots)
        self._typed(self)

    def set_memory(self, size: int) -> None:
        """Ask the guest to have only so many bytes of its RAM, and to give the rest back by its balloon. Raise
        ValueError if it has none, or for a size that makes no sense. What it does is its own affair.
        """
        with self._held():
            self._life.require("set the memory of", *SOUND)
            self.vm.set_memory(size)
        self._typed(self)

    def destroy(self) -> None:
        """End the machine at once, as if it was switched off. The domain can be started again."""
        with self._held():
            self._life.require("destroy", *ALIVE, DomainState.SAVED)
            self._end("it was destroyed")

    def require_machine(self, what: str) -> None:
        """Raise LifecycleError if it has no machine that could be ended, to do ``what`` with it."""
        self._life.require(what, *ALIVE, DomainState.SAVED)

    def give_up(self, reason: str) -> None:
        """End a machine of which it is known now that it is the other side's."""
        with self._held():
            self._life.require("give up", DomainState.UNDECIDED)
            self._end(reason)

    def save(self) -> None:
        """Keep the machine's state in memory and give everything else back. :meth:`start` goes on there."""
        with self._held():
            self._life.require("save", *SOUND)
            self._saved = self.vm.save(), self.vm.arguments
            self._to(DomainState.SAVED)
            self._let_go()

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
        with self._held():
            self._life.require("clone", *SOUND)
            vm = self.vm
            cards, ends = vm.facts.nets, nets
            if ends is None:
                ends = [net.disconnected() if net.reaches_outside else net for net in cards]
            identity = self._host.identity(len(cards), wall_clock)
            other = Domain(self._host, name, identity.uuid, self._boot, self._limits, self._typed)
            conduct = self._host.conduct(other)._replace(goes_on=False)
            other._vm = vm.fork(other._name, identity, other.console, ends, conduct)
            try:
                self._host.adopt(other)
            except ValueError:
                other._vm.close()
                raise
            other._vm.limit_devices(self._limits)
            other._to(DomainState.RUNNING)
            other._to(DomainState.PAUSED)
            return other

    def _become(self, vm: Vm | None, reason: str = "") -> None:
        """Have another machine, or none any more, because of ``reason``."""
        if vm is None:
            self._end(reason)
            return
        self._vm = vm
        vm.limit_devices(self._limits)
        self._wakes_at, self.reason, self.exit_code = None, "", None
        self._time.forget()
        self._is_fresh = True

    def _to(self, state: DomainState) -> None:
        self._life.to(state)
        self._host.state_changed(self)

    def _let_go(self) -> None:
        if self._vm is not None:
            self._vm.close()
            self._vm = None

    def _end(self, reason: str, exit_code: int | None = None) -> None:
        """Give back everything that the domain has of the host."""
        self.reason, self.exit_code = reason, exit_code
        self._end_move()
        if self._saved is not None:
            self._saved[0].close()
            self._saved = None
        if self.state is not DomainState.SAVED:
            self._to(DomainState.DYING)
        self._let_go()
        self._to(DomainState.DEFINED)

    # -- for the host that it belongs to -------------------------------------------------------

    def execute(self, units: int) -> Outcome:
        """Execute the guest for at most so many units. Exceptions become the outcome's: they are this domain's."""
        host = self._host
        left, memory = self.instructions_left, self._limits.memory
        terms = Terms(units, host.longest_turn_s, not self._is_fresh, host.origin_ns, self._time.ahead, left, memory)
        self._is_fresh = False
        try:
            return self.vm.execute(terms)
        except Exception as error:  # of who carries the machine, which other domains are not to wait for
            return Outcome.failed(f"{type(error).__name__}: {error}", self._now)

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
        if self._host.origin_ns is not None:
            self._time = GuestTime(outcome.ahead)
        self.vm.release_frames()
        return self._go_over(outcome, host_ns)

    def _go_over(self, outcome: Outcome, host_ns: int) -> int | None:
        """Go over to the state that follows from a turn. See :meth:`account`."""
        self._now = outcome.now
        match outcome.reason:
            case None if outcome.error is None:  # else it is the caller's, and the machine can go on
                self._crash(outcome.message)
            case StopReason.FUEL | StopReason.WAITING if self.instructions_left == 0:
                self.reason = NO_INSTRUCTIONS_LEFT
                self._to(DomainState.PAUSED)
            case StopReason.WAITING:
                return self._block(outcome.wait_ns, host_ns)
            case StopReason.EXITED if outcome.resets:
                self._reboot()
            case StopReason.EXITED:
                self._end(outcome.message or "the guest has ended", outcome.exit_code)
            case StopReason.FAULT | StopReason.HALTED:
                self._crash(outcome.message)
        return None

    def _crash(self, reason: str) -> None:
        self.reason = reason
        self._to(DomainState.CRASHED)

    def _block(self, wait_ns: int | None, host_ns: int) -> int | None:
        rate = self.vm.facts.ticks_per_second
        lag = self._time.lag(host_ns, nanoseconds(self._now, rate))
        self._wakes_at = None if wait_ns is None else self._now + ticks_in(wait_ns, rate)
        self._to(DomainState.BLOCKED)
        return None if wait_ns is None else host_ns + max(wait_ns - lag, 0)

    def wake(self, host_ns: int) -> None:
        """Let a blocked domain execute again, at a time of the host's. Its guest's time passes, up to what it waits
        for.
        """
        rate = self.vm.facts.ticks_per_second
        tick = self._now + ticks_in(self._time.lag(host_ns, nanoseconds(self._now, rate)), rate)
        if self._wakes_at is not None:
            tick = min(tick, self._wakes_at)
        try:
            self.vm.wait_until(tick)
        except Exception as failure:  # of a device: it ends this domain and no other
            self._crash(f"{type(failure).__name__}: {failure}")
        else:
            self._to(DomainState.RUNNING)

    @property
    def hears_outside(self) -> bool:
        """Return True if something may come for the guest without anybody's call."""
        return self.vm.facts.hears_outside

    @property
    def has_arrivals(self) -> bool:
        """Return True if something has come for the guest, other than what was typed."""
        return self.vm.has_arrivals

    @property
    def outside_events(self) -> Mapping[int, int]:
        """See :attr:`dbt.hypervisor.carrier.Vm.outside_events`."""
        return self.vm.outside_events

    def _reboot(self) -> None:
        """Boot the machine anew, because the guest has reset it. A machine that cannot be made is a crash."""
        self._let_go()
        try:
            self._vm = self._made()
            self._time.forget()
            self.resets += 1
        except Exception as failure:  # of the function that boots it, which is the user's
            self._crash(f"it cannot be booted again: {failure}")
