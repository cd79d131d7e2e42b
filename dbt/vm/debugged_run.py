"""The runs of a machine that is debugged: within its limits, in its history, and beside a monitor.

A guest goes on while neither its debugger nor its monitor holds it. The monitor's clients are served wherever the guest
is, and what they want is no stop for the debugger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from dbt.vm.result import RunResult, StopReason
from dbt.vm.run_watcher import LookWithinSlice, RunWatcher

if TYPE_CHECKING:
    from dbt.vm.controlled_machine import ControlledMachine
    from dbt.vm.history import History

#: The seconds for which the monitor waits for its clients while it holds the guest.
_PAUSE_S = 0.1


class RunPartner(Protocol):
    """Who else controls a run that a debugger controls. :class:`dbt.qmp.monitor.QmpMonitor` is one."""

    @property
    def is_holding(self) -> bool:
        """Return True while the guest must not go on."""

    def wants_stop(self) -> bool:
        """Do what can be done at once. Return True if the machine must not be running for the rest."""

    def attend(self, restart: Callable[[], None], seconds: float = 0.0) -> RunResult | None:
        """Do the rest, and what comes within some seconds. Return the result if that ends the run.

        ``restart`` loads the guest again. It raises TargetError if it cannot.
        """

    def note_debugger(self, holds: bool) -> None:
        """The debugger holds the guest from now on, or lets it go on."""

    def note_end(self, result: RunResult) -> None:
        """The run is over."""


class NoPartner:
    """Nobody."""

    is_holding = False

    def wants_stop(self) -> bool:
        return False

    def attend(self, restart: Callable[[], None], seconds: float = 0.0) -> RunResult | None:
        return None

    def note_debugger(self, holds: bool) -> None:
        pass

    def note_end(self, result: RunResult) -> None:
        pass


class DebuggedRun:
    """Runs ``machine`` for a debugger.

    ``fuel`` is the number of instructions after which it stops for good, and ``timeout`` that of seconds for which it
    may run. ``restart`` loads the guest again for the ``partner``.
    """

    def __init__(
        self,
        machine: ControlledMachine,
        fuel: int | None,
        timeout: float | None,
        history: History | None,
        partner: RunPartner,
        restart: Callable[[], None],
    ) -> None:
        self._machine, self._history, self._partner = machine, history, partner
        self._end = None if fuel is None else machine.icount + fuel
        self._seconds_left = timeout
        self._restart = restart
        self._interrupted: Callable[[], bool] = lambda: False
        self._look: LookWithinSlice | None = None  # while the machine runs
        self._partner_asked = False  # the run stops for the partner
        self.is_cut = False  # it has been stopped where a debug point refused to
        self.ended: RunResult | None = None  # by the partner
        self.result: RunResult | None = None  # of the last run

    @property
    def is_at_end(self) -> bool:
        """Return True if the fuel is used up."""
        return self._end is not None and self._machine.icount >= self._end

    def note_restart(self) -> None:
        """The machine is about to be loaded again, so its instructions are counted from zero."""
        if self._end is not None:
            self._end -= self._machine.icount

    # -- running -------------------------------------------------------------------------------

    def run(self, fuel: int | None, interrupted: Callable[[], bool], watcher: RunWatcher) -> RunResult:
        """Run the guest until something stops it for the debugger. ``interrupted`` is asked again and again."""
        self._interrupted = interrupted
        try:
            self.result = self._run(fuel, watcher)
        finally:
            self._interrupted = lambda: False
        return self.result

    def _run(self, fuel: int | None, watcher: RunWatcher) -> RunResult:
        machine = self._machine
        while True:
            if (result := self._hold()) is not None:
                return result
            before = machine.icount
            result = self._run_on(fuel, watcher)
            if not self._partner_asked or (result.reason is not StopReason.INTERRUPTED and not self.is_cut):
                return result
            if fuel is not None:
                fuel = max(fuel - (machine.icount - before), 0)
            self.ended = self._partner.attend(self._restart)
            if self.ended is not None or self._interrupted():
                return self.ended or result

    def _hold(self) -> RunResult | None:
        """Wait while the partner holds the guest. Return the result of the run if it ends meanwhile."""
        machine = self._machine
        while self._partner.is_holding:
            machine.console.flush()
            if machine.is_interrupted:
                return machine.run(0)
            if self._interrupted():
                message = f"interrupted after {machine.icount} instructions"
                return RunResult(StopReason.INTERRUPTED, None, machine.icount, machine.cpu.pc, message)
            if (ended := self._partner.attend(self._restart, _PAUSE_S)) is not None:
                self.ended = ended
                return ended
        return None

    def _run_on(self, fuel: int | None, watcher: RunWatcher) -> RunResult:
        left = None if self._end is None else max(self._end - self._machine.icount, 0)
        fuel = min((number for number in (fuel, left) if number is not None), default=None)
        self._partner_asked = self.is_cut = False
        self._look = LookWithinSlice(self._machine, self.wants_stop)
        started = time.monotonic()
        try:
            return self._run_machine(fuel, watcher)
        finally:
            self._look = None
            if self._seconds_left is not None:
                self._seconds_left = max(self._seconds_left - (time.monotonic() - started), 0.0)

    def _run_machine(self, fuel: int | None, watcher: RunWatcher) -> RunResult:
        history = self._history
        if history is None:
            return self._machine.run(fuel, self._seconds_left, watcher=watcher)
        if history.is_past:
            to_newest = history.newest - self._machine.icount
            fuel = to_newest if fuel is None else min(fuel, to_newest)
        return history.run(fuel, self._seconds_left, watcher=watcher)

    def wants_stop(self) -> bool:
        """See :class:`dbt.vm.run_watcher.RunWatcher`."""
        self._partner_asked = self._partner.wants_stop()
        return self._partner_asked or self._interrupted()

    def cuts(self) -> bool:
        """A debug point refuses to stop the guest. Return True if it is to stop nevertheless."""
        self.is_cut = self._look is not None and self._look.is_to_stop()
        return self.is_cut

    # -- while the guest is stopped ----------------------------------------------------------------

    def is_ended(self) -> bool:
        """Look after the console and the partner. Return True if somebody wants the run to end."""
        self._machine.console.flush()
        if self._partner.wants_stop():
            self.ended = self._partner.attend(self._restart)
        return self._machine.is_interrupted or self.ended is not None
