"""The pace of a guest that waits beside somebody who looks on: its time against the host's.

While a guest computes, its time is that of the instructions that it retires. While it waits, virtual time can jump to
the next event, or pass as on the host; this says how far it is to have gone. A guest that was faster than
the host is not held up for it, and one that was slower catches up while it waits, a second at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dbt.board.clock import TICKS_PER_SECOND

#: How long a waiting guest may sleep before the machine looks at interrupts and limits again, in seconds.
TIMEOUT_S = 0.05
_CATCH_UP = 1.0


class RealTime:
    """Of one run: what passes between two runs, in a debugger say, passes on the host alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives the host's seconds."""
        self._clock = clock
        self._ahead: float | None = None  # of the host's clock before virtual time, in seconds

    def lag(self, now: int) -> float:
        """How many seconds virtual time, which is at the tick ``now``, is behind."""
        ahead = self._clock() - now / TICKS_PER_SECOND
        if self._ahead is None or ahead < self._ahead:
            self._ahead = ahead
        self._ahead = max(self._ahead, ahead - _CATCH_UP)
        return ahead - self._ahead
