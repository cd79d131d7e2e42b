"""How time passes for a host: by what its domains use, or by the host's clock. Each way decides when turns begin.

All times are ticks, of which a core that executes at its nominal rate has one for each instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol

from dbt.hypervisor.credit import CreditScheduler, Turn
from dbt.hypervisor.waits import Waits

_NS = 1_000_000_000


class Pace(Protocol):
    """What the host's loop asks for. ``wake`` and ``end_period``, which it gives, wake the domains whose waits are over
    at a tick, and begin the next period.
    """

    def begin(self) -> None:
        """Hear that a run begins."""

    def end(self) -> None:
        """Hear that the run is over. Time stands still until the next one."""

    def dispatch(self, periods: int | None) -> list[Turn]:
        """Decide whose turn it is on the cores that are free. Decide nothing after so many periods more."""

    def tick(self, core: int) -> int:
        """Return the time at which a turn on a core, which has just ended, did so."""

    def seconds_left(self, is_bounded: bool) -> float | None:
        """Return how long nothing happens by itself, or None if nothing does ever. Nobody has a turn, nor can have one.

        ``is_bounded``: the run is over after some periods.
        """


class _Pace:
    """What every pace knows. ``wake`` is called with a tick, for the domains whose waits have ended by then."""

    def __init__(
        self,
        scheduler: CreditScheduler,
        waits: Waits,
        wake: Callable[[int], None],
        end_period: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._waits = waits
        self._wake = wake
        self._end_period = end_period


class VirtualPace(_Pace):
    """Time passes by what domains use, and jumps where all of them wait.

    ``in_order``: nothing is decided for a core before all turns are over that began earlier, because what becomes of
    them may have a part in it.
    """

    def __init__(
        self,
        scheduler: CreditScheduler,
        waits: Waits,
        wake: Callable[[int], None],
        end_period: Callable[[], None],
        in_order: bool,
    ) -> None:
        super().__init__(scheduler, waits, wake, end_period)
        self._in_order = in_order

    def begin(self) -> None:
        """Time does not pass by itself."""

    def end(self) -> None:
        """Time does not pass by itself."""

    def dispatch(self, periods: int | None) -> list[Turn]:
        """See :class:`Pace`. The core whose clock is behind the others' is first."""
        scheduler, turns = self._scheduler, list[Turn]()
        last = None if periods is None else scheduler.period_end + periods * scheduler.period
        skipped: set[int] = set()  # the cores that nobody can use before a turn is over
        ended = 0
        while periods is None or ended < periods:
            busy = scheduler.running.keys() | skipped
            free = [(clock, core) for core, clock in enumerate(scheduler.clocks) if core not in busy]
            if not free:
                break
            clock, core = min(free)
            earliest = min((turn.start for turn in scheduler.running.values()), default=None)
            if self._in_order and earliest is not None and earliest < clock:
                break
            self._wake(clock)
            turn = scheduler.choose(core)
            if turn is not None:
                turns.append(turn)
            elif self._idle(core, earliest, last is not None):
                continue
            elif self._may_end_period(earliest, last is not None):
                self._end_period()
                ended += 1
            else:
                skipped.add(core)
        return turns

    def _may_happen(self, earliest: int | None, is_bounded: bool) -> bool:
        """Return True if anything is known that could still happen."""
        return self._waits.next_end() is not None or earliest is not None or is_bounded or self._scheduler.has_ready

    def _idle(self, core: int, earliest: int | None, is_bounded: bool) -> bool:
        """Let time pass on a core that nobody can use now, up to the next event. Return False if it is not known, or
        not before one of the present turns is over; ``earliest`` is when the first of these began.
        """
        scheduler, clock = self._scheduler, self._scheduler.clocks[core]
        if not self._may_happen(earliest, is_bounded):
            return False
        next_free = scheduler.next_free()
        ends = [tick for tick in (self._waits.next_end(), next_free) if tick is not None and tick > clock]
        if clock < scheduler.period_end:
            ends.append(scheduler.period_end)
        until = min([*ends, *(() if earliest is None else (earliest,))], default=clock)
        if until <= clock or (clock >= scheduler.period_end and next_free is None):
            return False
        scheduler.idle(core, until)
        return True

    def _may_end_period(self, earliest: int | None, is_bounded: bool) -> bool:
        return self._may_happen(earliest, is_bounded) and self._scheduler.period_is_over()

    def tick(self, core: int) -> int:
        """See :class:`Pace`. The clock of the core has it."""
        return self._scheduler.clocks[core]

    def seconds_left(self, is_bounded: bool) -> float | None:
        """See :class:`Pace`."""
        return None


class RealPace(_Pace):
    """Time is that of the host's clock, which stands still between runs. A period is over when its time is, so a cap
    holds for each 100 ms of the host.
    """

    def __init__(
        self,
        scheduler: CreditScheduler,
        waits: Waits,
        wake: Callable[[int], None],
        end_period: Callable[[], None],
        rate: int,
    ) -> None:
        super().__init__(scheduler, waits, wake, end_period)
        self._rate = rate
        self._passed_ns = 0  # in the runs before
        self._began_ns: int | None = None

    def begin(self) -> None:
        """Let time pass."""
        self._began_ns = monotonic_ns()

    def end(self) -> None:
        """Let time stand still."""
        self._passed_ns, self._began_ns = self.host_ns(), None

    def host_ns(self) -> int:
        """Return how long the host has run, in nanoseconds."""
        return self._passed_ns + (0 if self._began_ns is None else monotonic_ns() - self._began_ns)

    @property
    def origin_ns(self) -> int:
        """When the host's time began, by the clock ``monotonic_ns``, if it had never stood still. The host runs."""
        return monotonic_ns() - self.host_ns() if self._began_ns is None else self._began_ns - self._passed_ns

    def _now(self) -> int:
        return self.host_ns() * self._rate // _NS

    def dispatch(self, periods: int | None) -> list[Turn]:
        """See :class:`Pace`."""
        scheduler, turns, now = self._scheduler, list[Turn](), self._now()
        scheduler.set_time(now)
        if now >= scheduler.period_end:
            self._end_period()
            scheduler.skip_periods(now)
            if periods == 1:
                return turns
        self._wake(now)
        for core in range(len(scheduler.clocks)):
            if core not in scheduler.running and (turn := scheduler.choose(core)) is not None:
                turns.append(turn)
        return turns

    def tick(self, core: int) -> int:
        """See :class:`Pace`."""
        return self._now()

    def seconds_left(self, is_bounded: bool) -> float | None:
        """See :class:`Pace`. Domains that are ready have used their caps, and wait for the next period."""
        next_end = self._waits.next_end()
        ends = [] if next_end is None else [next_end]
        if is_bounded or self._scheduler.has_ready:
            ends.append(self._scheduler.period_end)
        return (min(ends) - self._now()) / self._rate if ends else None
