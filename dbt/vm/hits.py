"""What a search in the history of a run looks for: debug points that stop nothing, but note where they would."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gva
from dbt.engine.debug_points import DebugPoints, Watchpoint
from dbt.vm.run_watcher import LookWithinSlice
from isa.arm.vectors import ExceptionKind

if TYPE_CHECKING:
    from dbt.vm.controlled_machine import ControlledMachine


class Access(NamedTuple):
    """An access to ``size`` bytes of memory at ``gva``."""

    gva: Gva
    size: int
    write: bool


class Hit(NamedTuple):
    """A breakpoint or watchpoint that was hit in front of the instruction at ``pc``, after ``icount`` instructions; or
    an exception whose handler was ``entered`` there.
    """

    icount: int
    pc: Gva
    access: Access | None = None
    entered: ExceptionKind | None = None


def never() -> bool:
    return False


class EveryHandler:
    """A watcher that stops a run at the handler of each exception."""

    hears_exceptions = True
    goes_on = False

    def wants_stop(self) -> bool:
        return False

    def stops_in_handler(self, kind: ExceptionKind) -> bool:
        return True


class Hits:
    """Debug points that stop nothing, but note where they would, before the icount ``end``. It watches the run, too,
    for an interrupt, within slices as well, and notes entries into the handlers of exceptions that are ``caught``.
    """

    goes_on = False

    def __init__(
        self,
        points: DebugPoints,
        machine: ControlledMachine,
        interrupted: Callable[[], bool],
        end: int = 0,
        caught: Collection[ExceptionKind] = (),
    ) -> None:
        self._points, self._machine, self._interrupted = points, machine, interrupted
        self.end, self._caught = end, caught
        self.last: Hit | None = None
        self.hears_exceptions = bool(caught)
        self._look: LookWithinSlice | None = LookWithinSlice(machine, interrupted)

    def finish(self) -> None:
        """Note nothing any more, and let nothing interrupt the run."""
        self.end, self._look = 0, None

    @property
    def breakpoints(self) -> Collection[Gva]:
        return self._points.breakpoints

    @property
    def watchpoints(self) -> Collection[Watchpoint]:
        return self._points.watchpoints

    def stops_at(self, pc: Gva) -> bool:
        if self._points.stops_at(pc) and (icount := self._machine.progress) < self.end:
            self.last = Hit(icount, pc)
        return self._look is not None and self._look.is_to_stop()

    def stops_for(self, gva: Gva, size: int, write: bool) -> bool:
        if self._points.stops_for(gva, size, write) and (icount := self._machine.progress) < self.end:
            self.last = Hit(icount, Gva(self._machine.cpu.pc), Access(gva, size, write))
        return self._look is not None and self._look.is_to_stop()

    def wants_stop(self) -> bool:
        return self._interrupted()

    def stops_in_handler(self, kind: ExceptionKind) -> bool:
        if self._machine.icount < self.end and kind in self._caught:
            self.last = Hit(self._machine.icount, Gva(self._machine.cpu.pc), entered=kind)
        return False


class NoPoints:
    """Debug points at which nothing ever stops."""

    breakpoints: Collection[Gva] = ()
    watchpoints: Collection[Watchpoint] = ()

    def stops_at(self, pc: Gva) -> bool:
        return False

    def stops_for(self, gva: Gva, size: int, write: bool) -> bool:
        return False


class WritesTo(NoPoints):
    """One write watchpoint."""

    def __init__(self, gva: Gva, size: int) -> None:
        self._watchpoint = Watchpoint(gva, size, loads=False, stores=True)
        self.watchpoints = (self._watchpoint,)

    def stops_for(self, gva: Gva, size: int, write: bool) -> bool:
        return self._watchpoint.touches(gva, size, write)
