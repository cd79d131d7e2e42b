"""``--record`` and ``--replay``: the source of a run's input, and what is done at the end of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dbt
from dbt.board.loader import read_file
from dbt.cli.report import say
from dbt.cli.run_options import RunOptions
from dbt.vm.machine import Machine
from dbt.vm.result import RunResult

if TYPE_CHECKING:
    from dbt.vm.recording import Recorder
    from dbt.vm.replay import Replay


def file_sum(path: str) -> str:
    """Return the SHA-256 of a file that a guest is made from, in hexadecimal. Raise ImageError if it cannot be read."""
    import hashlib

    return hashlib.sha256(read_file(path)).hexdigest()


def file_sums(options: RunOptions) -> dict[str, str]:
    """Return the SHA-256 of the files that the guest is made from, by absolute path."""
    given = (options.program, options.kernel, options.initrd, options.dtb, options.restore)
    return {os.path.abspath(path): file_sum(path) for path in given if path is not None}


class Session:
    """A run that is neither recorded nor replayed. Other sessions derive from it."""

    def fuel(self, wanted: int | None) -> int | None:
        """Return how many instructions to execute, given the number that the user wants."""
        return wanted

    def end(self, result: RunResult) -> RunResult:
        """Return the result to report."""
        return result


class RecordedSession(Session):
    def __init__(self, machine: Machine, recorder: Recorder) -> None:
        self._machine, self._recorder = machine, recorder

    def end(self, result: RunResult) -> RunResult:
        self._recorder.end(self._machine, result)
        return result


class ReplayedSession(Session):
    def __init__(self, machine: Machine, replay: Replay) -> None:
        self._machine, self._replay = machine, replay

    def fuel(self, wanted: int | None) -> int | None:
        return self._replay.fuel(self._machine.icount, wanted)

    def end(self, result: RunResult) -> RunResult:
        return self._replay.compare(self._machine, result, say)


def attach_input(machine: Machine, options: RunOptions) -> Replay | None:
    """Attach the input of ``--replay``, if there is any, to a loaded machine. Raise RecordingError if it cannot be
    used.
    """
    if options.replay is None:
        return None
    from dbt.vm.recording import identify, read_recording
    from dbt.vm.replay import Replay

    replay = Replay(read_recording(options.replay), identify(machine, dbt.__version__))
    machine.attach_input(replay)
    return replay


@contextmanager
def session(machine: Machine, options: RunOptions) -> Iterator[Session]:
    """Attach the input source to a loaded machine, and return the session. Raise RecordingError if it cannot be
    used.
    """
    if options.record is None and options.replay is None:
        yield Session()
        return
    from dbt.cli.outputs import cannot_write
    from dbt.vm.recording import Recorder, RecordingNotWritten, identify

    if options.files is not None:
        say("what the guest reads of files is not recorded: a replay needs them as they are now")
    replay = attach_input(machine, options)
    if replay is not None:
        yield ReplayedSession(machine, replay)
    elif options.record is not None:
        try:
            origin = {"command": options._asdict(), "directory": os.getcwd(), "files": file_sums(options)}
            recorder = Recorder(machine.input_source, options.record, identify(machine, dbt.__version__), origin)
            machine.attach_input(recorder)
            try:
                yield RecordedSession(machine, recorder)
            finally:
                recorder.close()
        except RecordingNotWritten as error:
            raise cannot_write("--record", options.record, error.cause) from None
