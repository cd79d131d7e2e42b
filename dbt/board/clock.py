"""Virtual time: instructions retired, at a nominal rate. It depends on the program alone, not on the host.

A tick is one instruction. How long that is in the guest's time is chosen when the machine is made.
"""

from __future__ import annotations

#: The guest's time that an instruction takes unless the user chooses another, in nanoseconds.
DEFAULT_INSN_NS = 10
#: The choices, in nanoseconds: each microsecond has a whole number of ticks, because timers count microseconds.
INSN_NS_CHOICES = tuple(ns for ns in range(1, 1001) if not 1000 % ns)
#: The time of day when a guest starts, unless the user chooses another: 2026-01-01 00:00 UTC, in seconds since 1970.
DEFAULT_EPOCH = 1_767_225_600
#: The first time of day after those at which a guest may start, in seconds since 1970: its clocks have 32 bits.
END_OF_EPOCHS = 1 << 32


def ticks_per_second(insn_ns: int) -> int:
    """Return the instructions in one second of virtual time. A guest that measures its own speed sees this figure."""
    return 1_000_000_000 // insn_ns
