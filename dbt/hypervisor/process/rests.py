"""When the process of a machine gives memory back: when its guest comes to rest, and then more and more seldom.

A Linux that waits for input executes a little, twice a second. So a guest is at rest if it *uses* little, and not only
if it does nothing. What it uses again is made again, and takes some milliseconds of CPU time. Therefore each rest of a
guest that stays idle is followed by one after twice the time.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

#: A guest has to do nothing for so many seconds, before its process does something else.
QUIET_S: Final = 0.25
#: How long after the first, shallow rest the first deep one is, and the longest time between two, in seconds.
FIRST_S: Final = 1.25
LONGEST_S: Final = 64.0
#: A guest is not idle that has used more than this share of the CPU time since the last rest, and so many seconds more.
_IDLE_SHARE: Final = 0.02
_IDLE_S: Final = 0.02


class Rests:
    """Says when the next rest is, and which one. ``clock`` tells the time in seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last: float | None = None  # when the last rest was, while the guest is idle
        self._distance = FIRST_S
        self._used = 0.0  # CPU time since then, in seconds
        self._has_executed = True

    def executed(self, seconds: float) -> None:
        """The guest has executed, and used so many seconds of CPU time."""
        self._used += seconds
        self._has_executed = True

    def next(self) -> tuple[float, bool] | None:
        """Return in how many seconds the next rest is, if the guest does nothing until then, and whether it is a deep
        one; or None if there is nothing to give back.
        """
        if not self._has_executed:
            return None
        if self._is_busy:
            return QUIET_S, False
        assert self._last is not None
        return max(self._last + self._distance - self._clock(), QUIET_S), True

    def rested(self, deep: bool) -> None:
        """A rest is over. After a shallow one there is a deep one, even if the guest executes nothing."""
        self._distance = min(2 * self._distance, LONGEST_S) if deep else FIRST_S
        self._last, self._used = self._clock(), 0.0
        self._has_executed = not deep

    @property
    def _is_busy(self) -> bool:
        return self._last is None or self._used > _IDLE_S + _IDLE_SHARE * (self._clock() - self._last)
