"""Real time: how far virtual time is behind the host's clock.

While a guest waits, virtual time can jump to the next event, or pass in real time; for that, this module compares both
clocks. A guest that was faster than the host is not delayed for it. The time of a guest that is slower is raised to the
host's, by one second at most, while it waits and after each slice.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_CATCH_UP = 1.0
#: A guest that computes is not told of less, in seconds: each time is a line of a recording.
_LEAST_CATCH_UP = 0.001


class RealTime:
    """The comparison for one run. Time that passes between two runs, as in a debugger, is not the guest's."""

    def __init__(self, ticks_per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns the host's time in seconds. Virtual time has ``ticks_per_second``."""
        self._ticks_per_second = ticks_per_second
        self._clock = clock
        self._ahead: float | None = None  # of the host's clock before virtual time, in seconds

    def lag(self, now: int) -> float:
        """Return the number of seconds that virtual time, which is at the tick ``now``, is behind the host's clock."""
        ahead = self._clock() - now / self._ticks_per_second
        if self._ahead is None or ahead < self._ahead:
            self._ahead = ahead
        self._ahead = max(self._ahead, ahead - _CATCH_UP)
        return ahead - self._ahead

    def ticks_behind(self, now: int) -> int:
        """Return how many ticks a guest that computes has to catch up with at the tick ``now``, or 0 if few."""
        lag = self.lag(now)
        return int(lag * self._ticks_per_second) if lag >= _LEAST_CATCH_UP else 0
