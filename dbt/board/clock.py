"""Virtual time: instructions retired, at a nominal rate. It depends on the program alone, not on the host.

A tick is one instruction. How long that is in the guest's time is chosen when the machine is made.
"""

from __future__ import annotations

from typing import Final

#: The guest's time that an instruction takes unless the user chooses another, in nanoseconds.
DEFAULT_INSN_NS = 10
#: The choices, in nanoseconds: each microsecond has a whole number of ticks, because timers count microseconds. With
#: the first one, virtual time is slower than the host's however fast native code is.
INSN_NS_CHOICES: Final[tuple[float, ...]] = (0.1, 0.2, 0.5, *(ns for ns in range(1, 1001) if not 1000 % ns))
_NS: Final = 1_000_000_000
#: The time of day when a guest starts, unless the user chooses another: 2026-01-01 00:00 UTC, in seconds since 1970.
DEFAULT_EPOCH = 1_767_225_600
#: The first time of day after those at which a guest may start, in seconds since 1970: its clocks have 32 bits.
END_OF_EPOCHS = 1 << 32


def ticks_per_second(insn_ns: float) -> int:
    """Return the instructions in one second of virtual time. A guest that measures its own speed sees this figure."""
    return round(_NS / insn_ns)


def nanoseconds(ticks: int, ticks_per_second: int) -> int:
    """Return how long so many ticks take, in whole nanoseconds."""
    return ticks * _NS // ticks_per_second


def least_nanoseconds(ticks: int, ticks_per_second: int) -> int:
    """Return after how many nanoseconds so many ticks have passed."""
    return -(-ticks * _NS // ticks_per_second)


def ticks_in(ns: int, ticks_per_second: int) -> int:
    """Return how many ticks have passed after so many nanoseconds."""
    return ns * ticks_per_second // _NS


def least_ticks_in(ns: int, ticks_per_second: int) -> int:
    """Return after how many ticks so many nanoseconds have passed."""
    return -(-ns * ticks_per_second // _NS)


def plain_insn_ns(insn_ns: float) -> int | str:
    """Return the time of an instruction as a plain value: a whole number, or a decimal fraction as a text."""
    return insn_ns if isinstance(insn_ns, int) else str(insn_ns)


def insn_ns_of(plain: object) -> float:
    """Return what :func:`plain_insn_ns` made a plain value of. Raise ValueError if it is none of the choices."""
    for insn_ns in INSN_NS_CHOICES:
        if type(found := plain_insn_ns(insn_ns)) is type(plain) and found == plain:
            return insn_ns
    raise ValueError(f"{plain!r} is none of the times of an instruction")
