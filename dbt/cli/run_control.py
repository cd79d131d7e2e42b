"""A run in stretches: what stops it for good, and what stops it only to save the machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dbt.cli.report import say
from dbt.vm.machine import Machine, StepObserver
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.cli.saving import Saving
    from dbt.qmp.monitor import QmpMonitor


class Requests:
    """What the user asks for during a run, by a key or a signal. Each request interrupts the machine.

    ``can_save``: whether the run goes on after it was interrupted to save. One for a debugger does not.
    """

    def __init__(self, can_save: bool = True) -> None:
        self._can_save = can_save
        self.wants_end = False
        self.wants_save = False

    def end(self, machine: Machine) -> None:
        """End the run."""
        self.wants_end = True
        machine.interrupt()

    def save(self, machine: Machine) -> None:
        """Save the machine, and go on."""
        if not self._can_save:
            say("nothing is saved while a debugger can connect (--gdb)")
            return
        self.wants_save = True
        machine.interrupt()

    def press_power_key(self, machine: Machine) -> None:
        """Press the power key of the board."""
        try:
            machine.press_power_key()
        except ValueError as error:
            say(str(error))


class RunControl:
    """Runs a machine, and saves it on the way: where ``--save-at`` says, and when the user asks.

    With a ``monitor`` it is run for the monitor's clients, who may reset it, unless it is saved where ``--save-at``
    says.
    """

    def __init__(self, machine: Machine, requests: Requests, saving: Saving, monitor: QmpMonitor | None = None) -> None:
        self._machine = machine
        self._monitor = monitor
        self._requests = requests
        self._saving = saving
        self._save_at = saving.at

    def run(self, fuel: int | None, timeout: float | None, trace: StepObserver | None) -> RunResult:
        """Do as :meth:`dbt.vm.machine.Machine.run`. What is saved on the way does not change what the guest sees."""
        machine, requests = self._machine, self._requests
        run = machine.run if self._monitor is None else self._monitor.run
        end = None if fuel is None else self._executed + fuel
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            stops = [stop for stop in (end, self._save_at) if stop is not None]
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            result = run(max(0, min(stops) - self._executed) if stops else None, left, trace)
            is_interim = False
            if self._save_at is not None and result.reason is StopReason.FUEL and machine.icount == self._save_at:
                self._save_at = None
                self._saving.save_there(machine)
                is_interim = self._executed != end
            if requests.wants_save:
                requests.wants_save = False
                self._saving.save_now(machine)
                is_interim = is_interim or result.reason is StopReason.INTERRUPTED
            if not is_interim or requests.wants_end:
                return result

    @property
    def _executed(self) -> int:
        """The instructions that have retired, including those before a client has reset the machine."""
        return self._machine.icount if self._monitor is None else self._monitor.executed
