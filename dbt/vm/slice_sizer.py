"""The length of a slice: the number of instructions between two looks at the clock."""

from __future__ import annotations

#: The intended duration of a slice in seconds. Ctrl-C, time limits and the console are served between slices.
TARGET = 0.004
_FIRST, _LEAST, _MOST = 1 << 10, 1 << 6, 1 << 21
_GROWTH = 4


class SliceSizer:
    """Adapts the length of the next slice to the time that the last ones took.

    ``budget``, in instructions, grows slowly and is at most ``most``. At any time the guest may change from compiled
    code to code that does nothing but access devices, of which native code executes 50 million instructions a second or
    more. The usual bound is not lower, because what is done between two slices takes as long as 50,000 instructions of
    compiled code. It can be higher where device accesses are charged.
    """

    def __init__(self, most: int = _MOST) -> None:
        self.budget = _FIRST
        self._most = most

    @property
    def is_longest(self) -> bool:
        """Return True if a slice of the greatest length takes less time than is intended: it may go on."""
        return self.budget == self._most

    def begin_run(self) -> None:
        """Begin another run, whose slices are as long as the last ones, unless these were cut short."""
        self.budget = max(self.budget, _FIRST)

    def learn(self, budget: int, used: int, seconds: float) -> None:
        """Take account of a slice that was to have ``budget`` instructions, and used so many in so many seconds.

        One that ended before says nothing. One that was to be short says that it took long, if it did, and not that a
        long one would: what is done between slices is a part of the time.
        """
        if used < budget or (used < self.budget and seconds < TARGET / 4):
            return
        fitting = int(used * TARGET / seconds) if seconds > 0 else self._most
        self.budget = max(_LEAST, min(fitting, self.budget * _GROWTH, self._most))
