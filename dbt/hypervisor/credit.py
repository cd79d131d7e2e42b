"""The credit scheduler: which domain executes next on which core, and how much. It executes nothing itself.

All amounts are in *units*: an instruction is one, and other events are charged a number of them
(:class:`dbt.vm.meter.Charges`). Each core has a clock in units, too, so what is decided depends on nothing but what the
domains have used. A *period* gives each core the same number of units. At its beginning, and when domains have begun or
ceased to be ready, what is left of it is divided among those that are ready, by weight. No domain can use more than one
core, nor more than its cap. A domain that is not ready has no share, and gathers none.

An event may be charged more than the domain has left. The rest is a *debt*, which its next shares pay first. So what a
domain has used in a period is never more than its share, and never less if it was ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

from dbt.hypervisor.shares import Claim, fair_shares

DEFAULT_WEIGHT = 256
MAX_WEIGHT = 65_535


class Precedence(IntEnum):
    """Who has a turn first. A domain has a precedence when it wakes, for one turn."""

    INPUT, TIMER, NONE = range(3)


class LatencyClass(Enum):
    """When a domain that wakes goes before those that compute. It never gets more than its share for it."""

    #: Never. It is for domains whose answers nobody waits for.
    BATCH = "batch"
    #: When input has woken it, before all others; when a timer has, before those that compute.
    NORMAL = "normal"
    #: Before all others, whatever has woken it.
    INTERACTIVE = "interactive"

    def precedence(self, by_input: bool) -> Precedence:
        """Return the precedence of a domain of this class that wakes."""
        if self is LatencyClass.BATCH:
            return Precedence.NONE
        return Precedence.INPUT if by_input or self is LatencyClass.INTERACTIVE else Precedence.TIMER


class Turn(NamedTuple):
    """A decision: the domain ``name`` may use ``units`` on ``core``, from the tick ``start`` of the core's clock on.

    ``is_extra``: it is not part of its share, but the core would be idle otherwise.
    """

    core: int
    start: int
    name: str
    units: int
    is_extra: bool = False


@dataclass
class Account:
    """What the scheduler knows of a domain.

    - ``weight``, ``latency``; ``cap``: the units of a period that it may use at most.
    - ``time_cap``: the units of the present period that it may use at most, extra turns included, or None.
    - ``target``: what it may have used in the present period. ``used``: what it has. ``debt``: see the module.
    - ``offset``: what it counts as having used besides, because it was not ready when others did.
    - ``extra``: what it has used in the present period besides its share.
    - ``total``: what it has been charged in all periods, debts and extra turns included.
    """

    name: str
    weight: int
    cap: int
    latency: LatencyClass
    time_cap: int | None = None
    target: int = 0
    used: int = 0
    debt: int = 0
    offset: int = 0
    extra: int = 0
    total: int = 0
    is_ready: bool = False
    precedence: Precedence = Precedence.NONE
    factor: int = 1  # by which the weight is multiplied: see dbt.hypervisor.host_time
    free_at: int = 0  # the end of its last turn, by the clock of its core
    planned: int = 0  # units of the turn that it executes
    last: int = 0  # the number of its last turn, by which equal domains take turns

    @property
    def left(self) -> int:
        """What it may still use in this period."""
        return self.target - self.used

    @property
    def most(self) -> int:
        """What its share in this period may be at most."""
        return self.cap if self.time_cap is None else min(self.cap, self.time_cap - self.extra)


class CreditScheduler:
    """The scheduler of ``cores`` cores with ``period`` units each. A turn has at most ``slice_units``.

    ``paced``: its clocks are the host's (:meth:`set_time`), and a period is over when the caller says so.

    ``in_order``: a domain's turns never overlap by the cores' clocks, and a core may be idle for it. Otherwise cores
    whose units take less time of the host are ahead of others, and one that has nothing to do while others are busy
    gives extra turns.
    """

    def __init__(self, cores: int, period: int, slice_units: int, in_order: bool, paced: bool = False) -> None:
        self.period = period
        self._in_order = in_order
        self._paced = paced
        self.slice_units = slice_units
        self.accounts: dict[str, Account] = {}
        #: The clock of each core, in units, from the beginning on.
        self.clocks = [0] * cores
        self.period_end = period
        self._running: dict[int, Turn] = {}
        self._ready: dict[str, Account] = {}  # those that wait for something cost nothing, not even a look
        self._debts = 0  # of all domains together
        self._is_divided = True  # nothing has changed since the period was divided
        self._turns = 0

    # -- domains -------------------------------------------------------------------------------

    def add(self, name: str, weight: int, cap: int | None, latency: LatencyClass) -> None:
        """Add a domain, which is not ready. ``cap`` is in units of a period."""
        self.accounts[name] = Account(name, weight, self._limit(cap), latency)

    def change(self, name: str, weight: int, cap: int | None, latency: LatencyClass) -> None:
        """Change what was said of a domain. It holds from now on; what it has used of its cap counts."""
        account = self.accounts[name]
        account.weight, account.cap, account.latency = weight, self._limit(cap), latency
        self._is_divided = False

    def set_time_cap(self, name: str, units: int | None) -> None:
        """Say what a domain may use of the present period or, before :meth:`begin_period`, of the next one: ``units``,
        which may be more than a period has, as extra turns count.
        """
        self.accounts[name].time_cap = units
        self._is_divided = False

    def _limit(self, cap: int | None) -> int:
        return self.period if cap is None else min(cap, self.period)

    def remove(self, name: str) -> None:
        """Forget a domain, which does not execute."""
        self.unready(name)
        self._debts -= self.accounts.pop(name).debt

    def ready(self, name: str, precedence: Precedence = Precedence.NONE) -> None:
        """Note that a domain can execute."""
        account = self.accounts[name]
        account.precedence = precedence
        if not account.is_ready:
            others = self._ready.values()
            weight = sum(other.weight * other.factor for other in others)
            others_used = sum(other.used + other.offset for other in others)
            level = others_used * account.weight * account.factor // weight if weight else 0
            account.offset = max(level - account.used, account.offset)
            account.is_ready = True
            self._ready[name] = account
            self._is_divided = False

    def unready(self, name: str) -> None:
        """Note that a domain cannot execute. What is left of its share is for the others."""
        account = self.accounts[name]
        account.precedence = Precedence.NONE
        if account.is_ready:
            account.is_ready = False
            del self._ready[name]
            account.target = account.used
            self._is_divided = False

    # -- shares --------------------------------------------------------------------------------

    def _divide(self) -> None:
        """Divide what is left of the period among the domains that are ready. Many may have changed since it was done
        last: it is done when somebody wants to know.
        """
        self._is_divided = True
        ready = list(self._ready.values())
        time_left = 0
        longest = 0
        for core, clock in enumerate(self.clocks):
            turn = self._running.get(core)
            left = self.period_end - clock - (0 if turn is None or turn.is_extra else turn.units)
            time_left += left
            longest = max(longest, left)
        claims, debts = [], self._debts
        for account in ready:
            reserved = account.used + account.planned
            counted = reserved + account.offset
            most = min(account.most - reserved, longest + debts)
            claims.append(Claim(account.weight * account.factor, counted, counted + max(most, 0)))
        capacity = time_left + debts + sum(claim.least for claim in claims)
        for account, share in zip(ready, fair_shares(capacity, claims), strict=True):
            account.target = share - account.offset
            if account.debt and not account.planned:
                self._pay(account, 0)

    def begin_period(self) -> None:
        """Begin the next period. Precondition: :meth:`period_is_over`."""
        self._settle_clocks()
        self.period_end += self.period
        for account in self.accounts.values():
            account.used = account.offset = account.target = account.extra = 0
        self._divide()

    def _settle_clocks(self) -> None:
        """Let the next period have as many units as any other, whatever happened in this one.

        A core whose clock is ahead has executed what its domain still owes, and which the debt's payment gives back.
        """
        debts = self._debts
        if self._paced:
            return
        if not self._in_order:
            self.clocks = [self.period_end] * len(self.clocks)
            self.clocks[0] += debts
            return
        cores = len(self.clocks)
        late = sum(self.clocks) - debts - cores * self.period_end  # because cores were idle while others were behind
        self.period_end += max(-(-late // cores), 0)
        unused = cores * self.period_end + debts - sum(self.clocks)
        core = min(range(cores), key=self.clocks.__getitem__)
        self.clocks[core] += unused

    def period_is_over(self) -> bool:
        """Return True if every core's time is over, and no domain that is ready has something left."""
        ahead = [clock - self.period_end for clock in self.clocks]
        is_over = min(ahead) >= 0 if self._in_order else sum(ahead) >= 0
        return is_over and not self._running and not self._claimants()

    def _claimants(self) -> list[Account]:
        """Return the domains that could have a turn, and have something left of their share."""
        if not self._is_divided:
            self._divide()
        busy = {turn.name for turn in self._running.values()}
        return [one for name, one in self._ready.items() if one.used < one.target and name not in busy]

    def _pay(self, account: Account, charged: int) -> None:
        """Take ``charged`` units from the share of a domain, and what it owes, or make them a debt."""
        owed = account.debt + charged
        paid = min(owed, max(account.left, 0))
        account.used += paid
        self._debts += owed - paid - account.debt
        account.debt = owed - paid

    # -- turns ---------------------------------------------------------------------------------

    def choose(self, core: int) -> Turn | None:
        """Return whose turn it is on a core, and reserve it; or None if no domain can use the core now.

        It is the one that has used the smallest part of its share. Those with a precedence go first, and then those
        that need a core for all the rest of the period.
        """
        clock = self.clocks[core]
        claimants = self._claimants()
        if self._in_order:
            claimants = [one for one in claimants if one.free_at <= clock]
        elif not claimants:
            return self._choose_extra(core)
        if not claimants:
            return None
        time_left = self.period_end - clock

        def order(one: Account) -> tuple[int, bool, int, int, int]:
            progress = ((one.used + one.offset) << 40) // (one.target + one.offset)
            return one.precedence, one.left < time_left, progress, -one.target, one.last

        account = min(claimants, key=order)
        account.planned = min(self.slice_units, account.left)
        return self._begin(Turn(core, clock, account.name, account.planned))

    def _choose_extra(self, core: int) -> Turn | None:
        """Return an extra turn, if the period lasts because others execute what is left of their shares."""
        if not self._paced and all(turn.is_extra for turn in self._running.values()):
            return None
        busy = {turn.name for turn in self._running.values()}
        idle = [one for one in self._ready.values() if one.name not in busy and self._most_extra(one) > 0]
        if not idle:
            return None
        account = min(idle, key=lambda one: ((one.extra << 20) // (one.weight * one.factor), one.last))
        return self._begin(Turn(core, self.clocks[core], account.name, self._most_extra(account), is_extra=True))

    def _most_extra(self, account: Account) -> int:
        """Return how long an extra turn of a domain may be: 0 if it has a cap, and has used it."""
        if account.cap < self.period:
            return 0
        left = self.slice_units if account.time_cap is None else account.time_cap - account.used - account.extra
        return min(left, self.slice_units)

    def _begin(self, turn: Turn) -> Turn:
        self._turns += 1
        self.accounts[turn.name].last = self._turns
        self._running[turn.core] = turn
        return turn

    def finish(self, core: int, charged: int) -> Turn:
        """Note what the domain that had its turn on a core was charged. Return the turn."""
        turn = self._running.pop(core)
        account = self.accounts[turn.name]
        account.precedence = Precedence.NONE
        account.total += charged
        if turn.is_extra:
            account.extra += charged
            return turn
        account.planned = 0
        self._pay(account, charged)
        if self._paced:
            return turn
        self.clocks[core] += charged
        account.free_at = self.clocks[core]
        return turn

    def set_time(self, now: int) -> None:
        """Set the clocks of all cores."""
        self.clocks = [now] * len(self.clocks)

    def skip_periods(self, now: int) -> None:
        """Let periods pass whose time is over already, because the host was asleep."""
        self.period_end += max(now - self.period_end + self.period, 0) // self.period * self.period
        self._is_divided = False

    def next_free(self) -> int | None:
        """Return the earliest tick at which a domain that is ready, and does not execute, can have its next turn."""
        return min((one.free_at for one in self._claimants()), default=None)

    def idle(self, core: int, until: int) -> None:
        """Let the time of a core pass in which it executes nothing."""
        self.clocks[core] = max(self.clocks[core], until)

    @property
    def has_ready(self) -> bool:
        """True if a domain is ready, whether it has something left of its share or not."""
        return bool(self._ready)

    @property
    def running(self) -> Mapping[int, Turn]:
        """The turns that are being executed, by their cores."""
        return self._running
