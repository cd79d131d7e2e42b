"""The length of a slice: how many instructions to run before looking at the clock again."""

from __future__ import annotations

#: How long a slice is to take, in seconds: Ctrl-C, time limits and the console are served in between.
TARGET = 0.004
_FIRST, _LEAST, _MOST = 1 << 10, 1 << 6, 1 << 19
_GROWTH = 4


class SliceSizer:
    """Learns from each finished slice how long the next one may be.

    ``budget`` grows slowly and is bounded, because the guest may turn from plain code to device
    accesses, which take a thousand times longer, at any time.
    """

    def __init__(self) -> None:
        self.budget = _FIRST

    def learn(self, retired: int, seconds: float) -> None:
        """A slice retired so many instructions in that time."""
        fitting = int(retired * TARGET / seconds) if seconds > 0 else _MOST
        self.budget = max(_LEAST, min(fitting, self.budget * _GROWTH, _MOST))
