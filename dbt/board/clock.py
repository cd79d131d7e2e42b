"""Virtual time: instructions retired, at a nominal rate. It depends on the program alone, not on the host."""

from __future__ import annotations

#: The instructions in one second of virtual time. A guest that measures its own speed sees this figure.
TICKS_PER_SECOND = 100_000_000
#: The time of day when a guest starts, unless the user chooses another: 2026-01-01 00:00 UTC, in seconds since 1970.
DEFAULT_EPOCH = 1_767_225_600
#: The first time of day after those at which a guest may start, in seconds since 1970: its clocks have 32 bits.
END_OF_EPOCHS = 1 << 32


def centiseconds(icount: int) -> int:
    return icount * 100 // TICKS_PER_SECOND


def seconds(icount: int) -> int:
    return icount // TICKS_PER_SECOND
