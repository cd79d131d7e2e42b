"""What a debugger or a monitor is for the loop that runs the machine, and what it asks within a slice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from isa.arm.vectors import ExceptionKind

if TYPE_CHECKING:
    from dbt.vm.controlled_machine import ControlledMachine

#: The seconds between two looks within a slice.
_LOOK_S = 0.004


class RunWatcher(Protocol):
    """A debugger or a monitor, which may stop the run between two instructions."""

    @property
    def goes_on(self) -> bool:
        """Return True if nobody has changed the guest since the last run, so that this one is the same run for it."""

    @property
    def hears_exceptions(self) -> bool:
        """Return True if the watcher is to be asked at each exception that is entered. The guest is slower then."""

    def wants_stop(self) -> bool:
        """Return True if the run is to stop. It is asked between two slices, some hundred times a second or more."""

    def stops_in_handler(self, kind: ExceptionKind) -> bool:
        """Return True if the run is to stop at the first instruction of the handler of an exception."""


class LookWithinSlice:
    """Says whether a run is to stop, to whoever does not stop it where it could.

    To find out that the condition of a breakpoint is false may take milliseconds, and a slice may have a thousand of
    them. So whoever refuses to stop asks this each time, which looks from time to time only.
    """

    def __init__(self, machine: ControlledMachine, interrupted: Callable[[], bool]) -> None:
        self._machine, self._interrupted = machine, interrupted
        self._next = time.monotonic() + _LOOK_S

    def is_to_stop(self) -> bool:
        """Return True if the machine's user or the debugger's wants the run to stop."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _LOOK_S
        return self._machine.is_interrupted or self._interrupted()
