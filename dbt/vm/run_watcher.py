"""What a debugger or a monitor is for the loop that runs the machine."""

from __future__ import annotations

from typing import Protocol

from isa.arm.vectors import ExceptionKind


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
