"""When a guest is stopped: when what is left can be sent in time, and how it is slowed down if that does not come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.abi.layout import PAGE_SHIFT

if TYPE_CHECKING:
    from dbt.hypervisor.migration.settings import Progress, Settings
    from dbt.hypervisor.migration.subject import Subject

#: The rounds that a guest has before it is slowed down.
_PATIENCE: Final = 2
#: By what the part of a core is multiplied each time, and the smallest part.
_SLOWER: Final = 0.5
_LEAST: Final = 0.01
#: A guest that is about to be stopped has so many more rounds at most. So few pages are not worth another one: the
#: guest has little to do, or waits.
_LAST_ROUNDS: Final = 12
_FEWEST: Final = 32
#: So few pages are always sent in time: a guest that does anything at all changes some dozens in each round. Rounds of
#: so few do not tell how fast the line is, either.
_FEW: Final = 128


class Convergence:
    """Watches the rounds of one migration, and slows the guest down if the changed pages do not become fewer."""

    def __init__(self, subject: Subject, settings: Settings, progress: Progress) -> None:
        self._subject, self._settings, self._progress = subject, settings, progress
        self._before: int | None = None  # what was left after the last round
        self._impatience = self._rounds = self._last_rounds = 0

    def _fits(self, sent: int, left: int, seconds: float) -> bool:
        """Return True if what is left after a round can be sent in time."""
        progress = self._progress
        progress.dirty_pages = left
        progress.dirty_rate = (left << PAGE_SHIFT) / max(seconds, 1e-6)
        if sent > _FEW:
            progress.bandwidth = (sent << PAGE_SHIFT) / max(seconds, 1e-6)
        budget = int(progress.bandwidth * self._settings.downtime_s) >> PAGE_SHIFT
        return left <= max(budget, _FEW)

    def is_enough(self, sent: int, left: int, seconds: float) -> bool:
        """Return True if the guest can be stopped soon, after a round that has sent so many pages in so many seconds
        and left others changed.
        """
        progress, settings = self._progress, self._settings
        self._rounds += 1
        if self._fits(sent, left, seconds):
            return True
        shrinks = self._before is None or left < self._before * _SLOWER
        self._before = left
        self._impatience = 0 if shrinks else self._impatience + 1
        if settings.throttles and self._impatience >= _PATIENCE and progress.part > _LEAST:
            self._impatience = 0
            progress.part = max(progress.part * _SLOWER, _LEAST)
            self._subject.throttle(progress.part)
        return self._is_exhausted

    @property
    def _is_exhausted(self) -> bool:
        """True if the guest had its rounds, and cannot be slowed down any more."""
        settings = self._settings
        can_slow = settings.throttles and self._progress.part > _LEAST
        return self._rounds >= settings.rounds and not can_slow

    def is_least(self, sent: int, left: int, seconds: float) -> bool:
        """Return True if the guest is to be stopped at once: for rounds after :meth:`is_enough` has returned True.

        What is left is hashed and sent while the guest stands still, so some short rounds before are well spent: nearly
        every guest waits for something now and then, and is stopped best when it does.
        """
        if not self._fits(sent, left, seconds):
            return self._is_exhausted
        self._last_rounds += 1
        return left <= _FEWEST or self._last_rounds >= _LAST_ROUNDS
