"""The host: it runs many domains on a few cores, each in its share.

One thread decides (:meth:`Host.run`). With several cores, each turn is executed by a thread of its own, because native
code runs without Python's lock. What is decided is in :mod:`dbt.hypervisor.credit`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from threading import Condition, get_ident
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from dbt.hypervisor.bell import Bell
from dbt.hypervisor.carrier import Boot, Carrier, Conduct, Outcome
from dbt.hypervisor.console_ring import ConsoleRing, default_ring
from dbt.hypervisor.core_time import CoreTime
from dbt.hypervisor.credit import CreditScheduler, LatencyClass, Precedence, Turn
from dbt.hypervisor.domain import Domain
from dbt.hypervisor.host_time import HostTimeGuard
from dbt.hypervisor.lifecycle import SOUND, DomainState
from dbt.hypervisor.limits import LimitChanges, Limits
from dbt.hypervisor.pace import Pace, RealPace, VirtualPace
from dbt.hypervisor.reports import Clock, DomainPeriod, LogEntry, PeriodReport
from dbt.hypervisor.threads import ThreadCarrier
from dbt.hypervisor.turns import Turns
from dbt.hypervisor.waits import Waits
from dbt.memory.closing import Closing
from dbt.vm.identity import Identity
from dbt.vm.signal_deferral import SignalDeferral

if TYPE_CHECKING:
    from typing import Unpack

    from dbt.memory.sharing import SharingReport

#: Instructions that a core executes in a second, if nothing else is said.
DEFAULT_RATE = 1_000_000_000
_NS = 1_000_000_000
#: How many reports of periods are kept.
_REPORTS = 64
#: How long a host does not listen to what is outside, in seconds, when it has heard something that is for nobody.
_LOOK_S = 0.002
#: The longest turn in milliseconds of a core at its nominal rate. In lockstep nothing else ends a turn. Otherwise the
#: host's time does as well, and turns may be longer by this measure, because compiled code is some times faster: so its
#: turns are not a few milliseconds by the host's clock, of which what is done between them would be a large part.
_LOCKSTEP_SLICE_MS, _SLICE_MS = 10, 40
#: When a turn is ended although it has not used what it may, in seconds.
_LONGEST_TURN_S = 0.01


class Host(Closing):
    """Runs domains on ``cores`` cores.

    - ``clock``: see :class:`Clock`.
    - ``rate``: how many instructions a core is taken to execute in a second. It gives caps and waits their meaning.
    - ``period_ms``: the accounting period, in milliseconds of a core at that rate.
    - ``slice_ms``: the longest turn, likewise. The default is 10 in lockstep, and 40 otherwise, where a turn also ends
      after 10 ms of the host's time.
    - ``seed``: what the identities of clones follow from, in [0, 2^63).
    - ``log``: whether :attr:`log` is kept.
    - ``listener``: is called with a domain that has come into another state, by the thread that has changed it. It must
      not call the host or a domain back.
    - ``carrier``: where the machines execute. By default that is this process. A :class:`ProcessCarrier` is closed by
      who has made it, after the host.

    :meth:`close`, or the end of a ``with`` block, ends all domains.
    """

    def __init__(
        self,
        cores: int = 1,
        clock: Clock = Clock.FREE,
        rate: int = DEFAULT_RATE,
        period_ms: int = 100,
        slice_ms: int | None = None,
        seed: int = 0,
        log: bool = False,
        listener: Callable[[Domain], None] | None = None,
        carrier: Carrier | None = None,
    ) -> None:
        self.clock = Clock(clock)
        for what, value in (("cores", cores), ("rate", rate), ("period_ms", period_ms), ("slice_ms", slice_ms)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{what} is a whole number, 1 or more, and {value!r} is none")
        if slice_ms is None:
            slice_ms = min(_LOCKSTEP_SLICE_MS if self.clock is Clock.LOCKSTEP else _SLICE_MS, period_ms)
        if slice_ms > period_ms or rate * slice_ms < 1000:
            raise ValueError(
                f"slice_ms={slice_ms} is longer than period_ms={period_ms}, or shorter than an instruction"
            )
        if not 0 <= seed < 1 << 63:
            raise ValueError(f"seed={seed!r} is no whole number in [0, 2^63)")
        self.cores, self.rate = cores, rate
        self.seed, self._period_ms = seed, period_ms
        self.carrier = carrier or ThreadCarrier()
        #: The turns so far, if they are logged. Two runs in lockstep have the same log.
        self.log: list[LogEntry] | None = [] if log else None
        #: The last periods.
        self.reports: deque[PeriodReport] = deque(maxlen=_REPORTS)
        self._scheduler = CreditScheduler(
            cores,
            rate * period_ms // 1000,
            rate * slice_ms // 1000,
            in_order=self.clock is Clock.LOCKSTEP,
            paced=self.clock is Clock.REAL,
        )
        self._guard = None if self.clock is Clock.LOCKSTEP else HostTimeGuard()
        self._core_time = CoreTime(period_ms * _NS // 1000)  # of domains that follow the host's clock
        self._listener = listener
        self._domains: dict[str, Domain] = {}
        self._in_flight: dict[str, int] = {}  # the domains that have a turn, with their cores
        self._changed = Condition()
        self._holding = 0  # how many threads hold a domain, or wait for its turn to end
        self._typed: deque[Domain] = deque()
        self._called = Bell()  # somebody has typed, or wants the run to stop
        self._has_heard = False  # something outside has ended the last wait, and nobody has had a turn since
        self._waits = Waits()
        self._pace: Pace
        if self.clock is Clock.REAL:
            self._pace = RealPace(self._scheduler, self._waits, self._wake, self._end_period, rate)
        else:
            in_order = self.clock is Clock.LOCKSTEP
            self._pace = VirtualPace(self._scheduler, self._waits, self._wake, self._end_period, in_order)
        self._networked: set[str] = set()  # the blocked domains for which something may come from a network
        self._by_input: set[str] = set()  # domains for which something has come, and which are to wake for it
        self._precedence = Precedence.NONE  # of what is woken now
        self._turns = Turns(cores, self._execute)
        self._signals = SignalDeferral()
        self._is_stopping = False
        self._runner: int | None = None
        self._clones = self._periods = 0
        self._period_began_ns = 0  # by the pace's clock, if that is the host's
        self._marks: dict[str, tuple[int, int, int]] = {}  # what each domain had used when the period began

    def close(self) -> None:
        """End all domains, and forget them. The host must not be running."""
        for name in list(self._domains):
            self.undefine(name, destroy=True)
        self._called.close()

    # -- domains -------------------------------------------------------------------------------

    @property
    def period_units(self) -> int:
        """How many instructions one core executes in a period, at its nominal rate."""
        return self._scheduler.period

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The domains by name, in the order in which they were defined."""
        return MappingProxyType(self._domains)

    def define(
        self,
        name: str,
        boot: Boot,
        uuid: UUID | None = None,
        ring: Callable[[Callable[[], None]], ConsoleRing] = default_ring,
        **limits: Unpack[LimitChanges],
    ) -> Domain:
        """Return a new domain, which is not started yet.

        ``boot`` is given the domain's console, makes a machine with it, loads it and returns it. It is called at each
        start. ``limits`` are the fields of :class:`dbt.hypervisor.limits.Limits`. ``ring`` makes the console, which
        calls what it is given after each input.

        Raise ValueError for values that make no sense, or if there is a domain of that name.
        """
        domain = Domain(self, name, uuid or uuid4(), boot, Limits.of(name, limits), self._hear, ring)
        with self._changed:
            self.adopt(domain)
        return domain

    def undefine(self, name: str, destroy: bool = False) -> None:
        """Forget a domain. If it has a machine, it has to be destroyed before, or with ``destroy``."""
        domain = self._domains[name]
        with self.held(domain):
            if domain.state is not DomainState.DEFINED:
                if not destroy:
                    raise ValueError(f"the domain {name} is {domain.state.value}: destroy it before")
                domain.destroy()
            self._scheduler.remove(name)
            self._by_input.discard(name)
            del self._domains[name]
            self._core_time.forget(name)
            if self._guard is not None:
                self._guard.forget(name)

    # -- implements dbt.hypervisor.domain.DomainHost -------------------------------------------------

    @contextmanager
    def held(self, domain: Domain) -> Iterator[None]:
        """See :class:`dbt.hypervisor.domain.DomainHost`."""
        with self._changed:
            self._holding += 1
            try:
                while domain.name in self._in_flight:
                    if self._runner == get_ident():
                        raise RuntimeError(
                            f"the domain {domain.name} executes, and this is a callback of it or of its host"
                        )
                    domain.vm.interrupt()
                    self._changed.wait()
                yield
            finally:
                self._holding -= 1
                # Something may have come for the domain, or at other descriptors. It is rung first: whoever is notified
                # would have the interpreter meanwhile, and somebody may wait for this thread.
                self._called.ring()
                self._changed.notify_all()

    def adopt(self, domain: Domain) -> None:
        """See :class:`dbt.hypervisor.domain.DomainHost`."""
        if not domain.name or domain.name in self._domains:
            raise ValueError(f"there is a domain {domain.name} already" if domain.name else "a domain has a name")
        self._domains[domain.name] = domain
        self._scheduler.add(domain.name, *self._share(domain.share))
        self._marks[domain.name] = 0, 0, 0
        self._set_core_time(domain)

    def _share(self, limits: Limits) -> tuple[int, int | None, LatencyClass]:
        parts = [limits.cap, None if self.clock is Clock.REAL else limits.core_time]
        part = min((part for part in parts if part is not None), default=None)
        return limits.weight, None if part is None else max(int(part * self._scheduler.period), 1), limits.latency

    def _set_core_time(self, domain: Domain) -> None:
        part = domain.share.core_time if self.clock is Clock.REAL else None
        units = self._core_time.set_part(domain.name, None if part == 1 else part)
        self._scheduler.set_time_cap(domain.name, units)

    def limits_changed(self, domain: Domain) -> None:
        """See :class:`dbt.hypervisor.domain.DomainHost`."""
        if self._domains.get(domain.name) is domain:  # it may have been forgotten meanwhile
            self._scheduler.change(domain.name, *self._share(domain.share))
            self._set_core_time(domain)

    def state_changed(self, domain: Domain) -> None:
        """See :class:`dbt.hypervisor.domain.DomainHost`."""
        self._waits.remove(domain.name)
        self._networked.discard(domain.name)
        if domain.state is DomainState.RUNNING:
            self._scheduler.ready(domain.name, self._precedence)
        else:
            self._scheduler.unready(domain.name)
        self._called.ring()
        if self._listener is not None:
            self._listener(domain)

    def identity(self, nets: int, wall_clock: int | None) -> Identity:
        """See :class:`dbt.hypervisor.domain.DomainHost`."""
        self._clones += 1
        return Identity.of(self.seed, self._clones, nets, wall_clock)

    @property
    def origin_ns(self) -> int | None:
        """See :class:`dbt.hypervisor.domain.DomainHost`."""
        return self._pace.origin_ns if isinstance(self._pace, RealPace) else None

    @property
    def longest_turn_s(self) -> float:
        """See :class:`dbt.hypervisor.domain.DomainHost`. In lockstep, nothing ends a turn but what is charged."""
        return inf if self.clock is Clock.LOCKSTEP else _LONGEST_TURN_S

    def conduct(self, domain: Domain) -> Conduct:
        """See :class:`dbt.hypervisor.domain.DomainHost`. In lockstep, frames come when turns are accounted for, and no
        machine goes on alone.
        """
        _, cap, _ = self._share(domain.share)
        is_lockstep = self.clock is Clock.LOCKSTEP
        goes_on = domain.state is not DomainState.PAUSED and not is_lockstep
        period = self._scheduler.period
        time = domain.share.core_time if self.clock is Clock.REAL else None
        return Conduct(self.rate, period if cap is None else cap, time, self._period_ms, goes_on, is_lockstep)

    def _hear(self, domain: Domain) -> None:
        self._typed.append(domain)
        self._called.ring()

    def share_memory(self) -> SharingReport:
        """Let domains share what is equal in their RAM, in runs of 64 KiB, until one of them stores to it. Raise
        RuntimeError while the host runs or if machines are in other processes, and OSError if there is no room.
        """
        from dbt.memory.sharing import share_equal_runs

        with self._changed:
            if self._runner is not None:
                raise RuntimeError("memory is shared between two runs of a host, and this one is running")
            return share_equal_runs([one.machine.ram for one in self._domains.values() if one.state in SOUND])

    # -- running -------------------------------------------------------------------------------

    def run(self, periods: int | None = None, timeout: float | None = None) -> None:
        """Run the domains, for a number of ``periods``, or until none of them can run any more.

        ``timeout`` is in seconds of the host's time. A domain that waits for input keeps the host waiting, unless
        ``periods`` are given: then time passes. A domain that crashes does not end the run.

        The Python handlers of signals are called between turns, and while nobody has one. What they raise ends the run.
        """
        if self._runner is not None:
            raise RuntimeError("this host is running already")
        self._runner, self._is_stopping = get_ident(), False
        self._pace.begin()
        last = None if periods is None else self._periods + periods
        deadline = None if timeout is None else monotonic() + timeout
        self._signals.begin()
        self._turns.begin()
        try:
            while not self._is_over(last, deadline):
                self._signals.release()  # which may raise, as for Ctrl-C: no turn is half begun or accounted for
                self._signals.hold()
                with self._changed:
                    turns = self._dispatch(None if last is None else last - self._periods)
                    self._in_flight.update({turn.name: turn.core for turn in turns})
                if not turns and not self._in_flight:
                    if not self._await_call(last, deadline):
                        return
                    continue
                self._has_heard = False
                for turn in turns:
                    self._turns.launch(turn)
                self._account(self._turns.take(len(self._in_flight), everything=self.clock is Clock.LOCKSTEP))
        finally:
            self._signals.hold()
            try:
                self._account(self._turns.end(), is_end=True)
            finally:
                self._pace.end()
                self._runner = None
                self._signals.end()

    def _dispatch(self, periods: int | None) -> list[Turn]:
        """Return the turns that begin now: none as long as somebody holds a domain, or that would have its next turn
        before its holder is awake.
        """
        while self._holding and not self._in_flight:
            self._changed.wait()
        return [] if self._holding else self._pace.dispatch(periods)

    def stop(self) -> None:
        """Let :meth:`run` return, when the present turns are over. Any thread may call it."""
        self._is_stopping = True
        self._called.ring()

    def _is_over(self, last: int | None, deadline: float | None) -> bool:
        return self._is_stopping or self._periods == last or (deadline is not None and monotonic() >= deadline)

    def _end_period(self) -> None:
        scheduler, report = self._scheduler, dict[str, DomainPeriod]()
        measured: dict[str, tuple[int, int]] = {}
        for name, domain in self._domains.items():
            account, usage = scheduler.accounts[name], domain.usage
            total, instructions, host_ns = self._marks[name]
            report[name] = DomainPeriod(
                account.used,
                account.extra,
                usage.instructions - instructions,
                usage.host_ns - host_ns,
                account.time_cap,
            )
            measured[name] = account.total - total, usage.host_ns - host_ns
            self._marks[name] = account.total, usage.instructions, usage.host_ns
        self.reports.append(PeriodReport(self._periods, MappingProxyType(report)))
        self._periods += 1
        if self._guard is not None:
            self._guard.correct(scheduler.accounts.values(), measured)
        if isinstance(self._pace, RealPace):
            began, self._period_began_ns = self._period_began_ns, self._pace.host_ns()
            for name, account in scheduler.accounts.items():
                units = account.used + account.extra
                account.time_cap = self._core_time.next_cap(name, units, self._period_began_ns - began)
        scheduler.begin_period()

    # -- turns ---------------------------------------------------------------------------------

    def _execute(self, turn: Turn) -> Outcome:
        return self._domains[turn.name].execute(turn.units)

    def _account(self, over: list[tuple[Turn, Outcome]], is_end: bool = False) -> None:
        """Take account of turns that are over, in this order. At the end of a run, those of which nothing is known are
        over, too: the run has been broken off where they were not executed, or their outcome is lost.
        """
        errors = []
        with self._changed:
            while over:
                turn, outcome = over.pop(0)
                self._land(turn, outcome)
                if outcome.error is not None and not isinstance(outcome.error, Exception):
                    errors.append(outcome.error)
            if is_end:
                for core in list(self._scheduler.running):
                    self._scheduler.finish(core, 0)
                self._in_flight.clear()
            self._changed.notify_all()
        if errors:
            raise errors[0]

    def _land(self, turn: Turn, outcome: Outcome) -> None:
        domain = self._domains[turn.name]
        del self._in_flight[turn.name]
        self._scheduler.finish(turn.core, outcome.used)
        account = self._scheduler.accounts[turn.name]
        cap = self._core_time.revised_cap(turn.name, account.used + account.extra, outcome.host_ns)
        if cap is not None:
            self._scheduler.set_time_cap(turn.name, cap)
        tick = self._pace.tick(turn.core)
        until = domain.account(outcome, tick * _NS // self.rate)
        if domain.state is DomainState.BLOCKED:
            self._waits.add(turn.name, None if until is None else -(-until * self.rate // _NS))
            if turn.name in self._by_input:  # it came while the guest executed, which may have looked before
                self._waits.shorten(turn.name, tick)
            if domain.hears_outside:
                self._networked.add(turn.name)
        self._look_at_networks(tick)
        if self.log is not None:
            entry = LogEntry(*turn[:4], outcome.instructions, outcome.charged, domain.state)
            self.log.append(entry)

    # -- waiting -------------------------------------------------------------------------------

    def _wake(self, clock: int) -> None:
        """Wake the domains whose wait is over by ``clock``, and those for which something has come."""
        self._look_at_networks(clock)
        while self._typed:
            name = self._typed.popleft().name
            self._by_input.add(name)
            if name in self._waits:
                self._waits.shorten(name, clock)
        while (due := self._waits.take_due(clock)) is not None:
            by_input = due in self._by_input
            self._by_input.discard(due)
            self._wake_domain(due, clock, by_input)

    def _look_at_networks(self, clock: int) -> None:
        """Let the waits end at ``clock`` of the domains for which something has come from a network, and of those whose
        processes are gone, which they notice then.
        """
        for name in self.carrier.stirring():
            if name in self._waits:
                self._waits.shorten(name, clock)
                self._by_input.add(name)
        for name in sorted(self._networked):
            if self._domains[name].has_arrivals:
                self._networked.remove(name)
                self._waits.shorten(name, clock)
                self._by_input.add(name)

    def _wake_domain(self, name: str, clock: int, by_input: bool) -> None:
        domain = self._domains[name]
        self._precedence = domain.limits.latency.precedence(by_input)
        try:
            domain.wake(clock * _NS // self.rate)
        finally:
            self._precedence = Precedence.NONE

    def _await_call(self, last: int | None, deadline: float | None) -> bool:
        """Sleep until something happens, or may come from outside. Return False if nothing can happen any more."""
        left = self._pace.seconds_left(is_bounded=last is not None)
        if left is None and not len(self._waits):
            return False
        look = _LOOK_S if self._has_heard else None
        until = None if deadline is None else deadline - monotonic()
        seconds = min((end for end in (look, left, until) if end is not None), default=None)
        events = {} if self._has_heard else self._outside_events()
        self._signals.release()
        self._has_heard = self._called.wait(None if seconds is None else max(seconds, 0), events)
        self._signals.hold()
        return True

    def _outside_events(self) -> dict[int, int]:
        """Return the descriptors at which something may come for domains that wait, as poll(2) has it."""
        events = dict(self.carrier.outside_events)
        for name in self._networked:
            events.update(self._domains[name].outside_events)
        return events
