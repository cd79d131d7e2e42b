"""Exceptions without end: a guest whose handlers raise exceptions again and again, and get nowhere.

A machine is a function of its state. If registers and RAM are what they were at an earlier exception, and neither an
interrupt nor a call of the host came between, then what happened since will happen again for ever. So this is a proof,
and no guess from how many exceptions there were. Devices are left out: a guest that waits for a timer in that way, with
equal registers at 8192 exceptions, would be taken for an endless one.

The count is of exceptions that every tier gives to the machine, so each tier reports the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

#: Exceptions before the first look: what a guest does at its start is no storm, and to look costs little.
FIRST_LOOK = 1 << 13


class Situation(NamedTuple):
    """``registers`` is the architectural state. ``disturbances`` counts what came from outside."""

    registers: bytes
    disturbances: int


class ExceptionStorm:
    """Compares the situation at each exception with that at the last one whose number was a power of two.

    This finds a cycle of any length (Brent's algorithm). ``hash_ram`` gives a value that is equal for equal RAM.
    """

    def __init__(self, situation: Callable[[], Situation], hash_ram: Callable[[], str]) -> None:
        self._situation = situation
        self._hash_ram = hash_ram
        self.reset()

    def reset(self) -> None:
        """No exception has been taken."""
        self.count = 0
        self._mark: tuple[Situation, str] | None = None

    def is_endless(self) -> bool:
        """Count an exception that is about to be taken. Return True if it comes again and again for ever."""
        self.count += 1
        if self.count < FIRST_LOOK:
            return False
        now = self._situation()
        if self.count & self.count - 1 == 0:
            self._mark = now, self._hash_ram()
        elif self._mark is not None and self._mark[0] == now:
            if self._mark[1] == self._hash_ram():
                return True
            self._mark = None  # it counts in memory, so it gets somewhere
        return False
