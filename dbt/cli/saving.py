"""``--save``, ``--save-at`` and Ctrl-A S: writing the state of a machine to a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.cli.report import say
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.cli.values import optional, parse_count
from dbt.vm.machine import Machine
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.memory.epochs import Epoch

#: The reasons for which a run ends that can go on.
_CAN_GO_ON = (StopReason.FUEL, StopReason.TIMEOUT, StopReason.INTERRUPTED)


class Saving:
    """What the options of a run say about saving. CommandError if they cannot be."""

    def __init__(self, options: RunOptions) -> None:
        self._path, self._parent = options.save, options.restore if options.increment else None
        self.at = optional(parse_count, "--save-at", options.save_at)
        if self.at is not None and self._path is None:
            raise CommandError(f"--save-at {self.at}: give the file to save to with --save FILE.", Status.USAGE)
        if options.increment and (options.restore is None or self._path is None):
            message = "--increment: it is for a machine that is restored and saved: give --restore and --save FILE."
            raise CommandError(message, Status.USAGE)
        self._reached = False
        self._epoch: Epoch | None = None  # since the machine was restored
        #: The file that was written last, and the digest of its snapshot.
        self.saved: tuple[str, str] | None = None

    def prepare(self, machine: Machine) -> None:
        """Prepare for the machine to be saved, before it runs. Raise CommandError if it could not be."""
        if self._path is not None:
            from dbt.snapshot.errors import SnapshotError
            from dbt.snapshot.snapshots import check_writable

            try:
                check_writable(self._path, self._parent)
            except SnapshotError as error:
                raise CommandError(f"--save {error}.", Status.USAGE) from None
        if self._parent is not None:
            self._epoch = machine.memory.begin_epoch()
        if self.at is not None and self.at < machine.icount:
            message = f"--save-at {self.at}: the machine that is restored is at instruction {machine.icount} already."
            raise CommandError(message, Status.USAGE)

    def save_there(self, machine: Machine) -> None:
        """Write the state to the file of ``--save``, because the machine is at the icount of ``--save-at``."""
        self._reached = True
        self._save(machine)

    def _save(self, machine: Machine) -> None:
        assert self._path is not None
        try:
            self._write(machine, self._path)
        except _failures() as error:
            raise CommandError(f"--save {_text(error)}", Status.FAILURE) from None

    def save_now(self, machine: Machine) -> None:
        """Write the state because the user has asked for it, to a new file if there is no ``--save``. Report an error,
        and let the guest go on.
        """
        try:
            self._write(machine, self._path or _new_name(machine.icount))
        except _failures() as error:
            say(f"nothing was saved: {_text(error)}")

    def save_as(self, machine: Machine, path: str) -> str:
        """Write the state to this file, and return the digest of the snapshot. Raise what writing it raises."""
        self._write(machine, path)
        assert self.saved is not None
        return self.saved[1]

    def for_debugger(self, machine: Machine) -> Callable[[], str] | None:
        """Return what a debugger can have the machine saved by: to the file of ``--save``, if there is one."""
        if self._path is None:
            return None
        path = self._path

        def save() -> str:
            from dbt.vm.debugger import SaveError

            try:
                self._write(machine, path)
            except _failures() as error:
                raise SaveError(_text(error)) from None
            return path

        return save

    def save_at_end(self, machine: Machine, result: RunResult) -> None:
        """Write the state if ``--save`` wants it at the end of the run, and say so if there is none to go on from."""
        if self._path is None or self._reached:
            return
        if self.at is not None:
            say(f"nothing was saved to {self._path}: the run ended before instruction {self.at}")
        elif result.reason in _CAN_GO_ON:
            self._save(machine)
        elif self.saved is None:
            say(f"nothing was saved to {self._path}: the guest has ended, so there is nothing to go on with")

    def _write(self, machine: Machine, path: str) -> None:
        from dbt.snapshot.snapshots import write_snapshot

        pages = None if self._epoch is None else self._epoch.dirty_pages()
        with machine.save() as state:
            self.saved = path, write_snapshot(state, path, self._parent, pages)
        say(f"saved to {path} at instruction {machine.icount}; go on with `dbt run --restore {path}`")


def _new_name(icount: int) -> str:
    """Return the name of a file in the current directory that does not exist."""
    name, number = f"dbt-{icount}.snapshot", 1
    while os.path.lexists(name):
        number += 1
        name = f"dbt-{icount}-{number}.snapshot"
    return name


def _failures() -> tuple[type[Exception], ...]:
    from dbt.devices.state import StateError
    from dbt.snapshot.errors import SnapshotError

    return SnapshotError, StateError, OSError


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"the host refused: {error.strerror}."
    return f"{str(error).removesuffix('.')}."
