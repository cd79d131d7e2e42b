"""The length of a slice: the number of instructions between two looks at the clock."""

from __future__ import annotations

#: The intended duration of a slice in seconds. Ctrl-C, time limits and the console are served between slices.
TARGET = 0.004
_FIRST, _LEAST, _MOST = 1 << 10, 1 << 6, 1 << 21
_GROWTH = 4


class SliceSizer:
    """Adapts the length of the next slice to the time that the last ones took.

    ``budget``, in instructions, grows slowly and is bounded. At any time the guest may change from compiled code to
    code that does nothing but access devices, of which native code executes 50 million instructions a second or more.
    The bound is not lower, because what is done between two slices takes as long as 50,000 instructions of compiled
    code.
    """

    def __init__(self) -> None:
        self.budget = _FIRST

    def begin_run(self) -> None:
        """Begin another run, whose slices are as long as the last ones, unless these were cut short."""
        self.budget = max(self.budget, _FIRST)

    def learn(self, retired: int, seconds: float) -> None:
        """Take account of a slice that retired so many instructions in so many seconds."""
        fitting = int(retired * TARGET / seconds) if seconds > 0 else _MOST
        self.budget = max(_LEAST, min(fitting, self.budget * _GROWTH, _MOST))
