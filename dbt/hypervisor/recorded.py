"""The recording of a domain's machine, from its first instruction to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.abi.version import VERSION
from dbt.hypervisor.carrier import Outcome
from dbt.vm.input import RecordingError
from dbt.vm.recording import Recorder, identify
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.hypervisor.carrier import RecordingFile
    from dbt.vm.machine import Machine

#: The reasons after which a guest can go on: it has not ended by itself.
_GOING_ON = frozenset({StopReason.FUEL, StopReason.INTERRUPTED, StopReason.WAITING, None})


class RecordedMachine:
    """Records the input of a machine in a file, whose descriptor becomes its own. Raise RecordingError."""

    def __init__(self, machine: Machine, recording: RecordingFile) -> None:
        self._machine = machine
        identity = identify(machine, VERSION)
        self._recorder = Recorder(machine.input_source, recording.path, identity, recording.origin, recording.file)
        machine.attach_input(self._recorder)
        self._last: Outcome | None = None
        self._marked = machine.icount

    def note(self, outcome: Outcome) -> Outcome:
        """Hear how a turn has ended, and record how far the guest has got. Return the outcome, which is a failure if
        that cannot be written.
        """
        self._last = outcome
        if outcome.reason is not None and self._machine.icount != self._marked:
            self._marked = self._machine.icount
            try:
                self._recorder.mark(self._marked)
            except RecordingError as error:
                return Outcome.failed(str(error), outcome.now)
        return outcome

    def end(self) -> None:
        """Record where the machine is, as its end. Raise RecordingError."""
        machine, last = self._machine, self._last
        reason, code = StopReason.INTERRUPTED, None
        if last is not None and last.reason is not None and last.reason not in _GOING_ON:
            reason, code = last.reason, last.exit_code
        self._recorder.end(machine, RunResult(reason, code, machine.icount, machine.cpu.pc, ""))

    def close(self) -> None:
        """Give the file back. Without :meth:`end`, the recording says that it is not complete."""
        self._recorder.close()
