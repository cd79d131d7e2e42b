"""Exceptions without end: a guest whose handlers raise exceptions again and again, and get nowhere.

What comes out here is a proof, and no guess from how many exceptions there were. Between device accesses, registers and
RAM alone decide what a guest does, unless something interrupts it. So a guest goes on for ever if all of this holds:

- Registers, RAM and interrupt lines are what they were at an earlier exception.
- In between, the guest accessed no device, called no host and took no interrupt.
- No event of a device is pending and no input is expected (``is_alone``), so nothing can change that.
- All of it happened in one run, so that no user has changed the guest.

A guest that is caught while a timer runs is therefore not reported, even if it masks the timer's interrupt: the event
may be that of a watchdog.

Undefined instructions and prefetch aborts are looked at one by one, because every tier leaves them to the machine.
Native code takes data aborts by itself, so only one in :data:`ABORTS_PER_LOOK` is looked at, in every tier the same
one. Therefore each tier reports the same instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

#: Exceptions before the first look: what a guest does at its start is no storm, and to look costs little.
FIRST_LOOK = 1 << 13
#: A data abort is looked at if its number since the reset is a multiple of this. A look takes some microseconds.
ABORTS_PER_LOOK = 1 << 13


class Situation(NamedTuple):
    """``registers`` is the architectural state, ``lines`` the interrupt inputs. ``disturbances`` counts what came from
    outside or went there.
    """

    registers: bytes
    lines: int
    disturbances: int


class ExceptionStorm:
    """Compares the situation at each look with a mark, an earlier one. Marks are made at distances that double.

    This finds a cycle of any length (Brent's algorithm). RAM is hashed when registers recur, and not before.

    ``situation`` returns the present one. ``is_alone`` returns True if nothing that is pending can interrupt the guest.
    ``hash_ram`` returns a value that is equal for equal RAM.
    """

    def __init__(
        self, situation: Callable[[], Situation], is_alone: Callable[[], bool], hash_ram: Callable[[], str]
    ) -> None:
        self._situation = situation
        self._is_alone = is_alone
        self._hash_ram = hash_ram
        self.reset()

    def reset(self) -> None:
        """The machine has been reset."""
        self._proved: tuple[bytes, int, str] | None = None  # registers, lines and RAM from which there is no way out
        self.begin_run()

    @property
    def proved(self) -> tuple[bytes, int, str] | None:
        """The registers, the lines and the hash of RAM from which it has been proved that there is no way out."""
        return self._proved

    def restore(self, proved: tuple[bytes, int, str] | None) -> None:
        """Take over :attr:`proved` of another machine."""
        self.reset()
        self._proved = proved

    def begin_run(self) -> None:
        """A run begins, before which a user may have changed the guest."""
        self._mark: Situation | None = None
        self._ram_at_mark = ""  # which is hashed when the registers have recurred
        self._looks = self._patience = FIRST_LOOK // 2  # so many looks after a mark, another one is made

    def is_endless(self) -> bool:
        """Look at an exception that is about to be taken. Return True if it comes again and again for ever."""
        if not self._is_alone():
            self.begin_run()
            return False
        now = self._situation()
        if self._proved is not None and self._proved[:2] == now[:2] and self._proved[2] == self._hash_ram():
            return True
        self._looks += 1
        if now == self._mark:
            ram = self._hash_ram()
            if ram == self._ram_at_mark:
                self._proved = now.registers, now.lines, ram
                return True
            if self._ram_at_mark:
                self._mark = None  # it counts in memory, so it gets somewhere
            self._ram_at_mark = ram
        elif self._looks > self._patience:
            self._mark, self._ram_at_mark = now, ""
            self._looks = 0
            self._patience *= 2
        return False
