"""Real time: how far virtual time is behind the host's clock while a guest waits.

While a guest computes, its time is that of the instructions that it retires. While it waits, virtual time can jump to
the next event, or pass in real time; for that, this module compares both clocks. A guest that was faster than the host
is not delayed for it. A guest that was slower catches up while it waits, by one second at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: The longest sleep of a waiting guest, in seconds. Afterwards the machine checks for Ctrl-C and for limits.
TIMEOUT_S = 0.05
_CATCH_UP = 1.0


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
