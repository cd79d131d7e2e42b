"""How a recorded run was made, and the run made again: from the command in the header of a translation trace, or in the
first line of a recording of input.

Whoever made the file chose that command, so only those options count that say what the machine is. Each file that they
name is only read, and only if its checksum is there and it still has it. A directory that the guest may write to comes
from the user alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from dbt.cli.options import VIRTIO, make_machine
from dbt.cli.recordings import attach_input, file_sum
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.host.console import CaptureConsole
from dbt.inspector.symbols import printable
from dbt.trace.log import MAGIC
from dbt.trace.model import Trace
from dbt.vm.machine import Machine
from dbt.vm.recording import read_recording

#: The options that name a file which the guest is made from.
_FILES = ("program", "kernel", "initrd", "dtb", "restore")
#: The other options whose value is a text, and those that are flags. All others are left out: what they write, limit or
#: show is not the machine.
_TEXTS = (
    *("append", "board", "cpu", "smp", "rng", "semihosting", "memory", "base", "entry", "epoch", "insn_ns"),
    *("tier", "jit", "without", "vsock"),
)
_FLAGS = ("atags", "balloon")
_RECORDING = b'{"dbt-recording"'


class Origin(NamedTuple):
    """How the run of the file at ``path`` was made: its options by their names in :class:`RunOptions`, the working
    directory, and the SHA-256 of the files that it read, by absolute path. ``recording`` is that of its input.
    """

    path: str
    command: Mapping[str, Any]
    directory: str
    files: Mapping[str, str]
    recording: str | None = None

    @classmethod
    def of_trace(cls, trace: Trace) -> Origin:
        header = trace.header
        return cls(trace.path, header["command"], header["directory"], header["files"])

    @classmethod
    def of_recording(cls, path: str) -> Origin:
        """Raise RecordingError if the file is no recording, and CommandError if it does not say how it was made."""
        match read_recording(path).origin:
            case {"command": dict(command), "directory": str(directory), "files": dict(files)}:
                return cls(path, command, directory, files, path)
        message = f"{path}: it does not say how its run was made: give it to `dbt run --replay` with the same options."
        raise CommandError(message, Status.BAD_INPUT)

    def option(self, name: str, kind: type) -> Any:
        """Return the value of an option. Raise CommandError if it is not of this type."""
        value = self.command[name]
        if type(value) is not kind:
            raise self.wrong(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the value of an option that may be given several times. Raise CommandError if it is no list of
        texts.
        """
        values = self.command.get(name, [])
        if type(values) is not list or not all(type(value) is str for value in values):
            raise self.wrong(name)
        return tuple(values)

    def wrong(self, name: str) -> CommandError:
        message = f"{self.path}: the value of {name} in its command cannot be understood. Record it again."
        return CommandError(message, Status.BAD_INPUT)

    def file(self, name: str) -> str:
        """Return the absolute path of the file that an option names."""
        return os.path.abspath(os.path.join(self.directory, self.option(name, str)))

    def guest_file(self, name: str) -> str:
        """Return it for a file that the guest is made from. Raise CommandError if it has changed."""
        path = self.file(name)
        checksum = self.files.get(path)
        if checksum is None:
            raise CommandError(f"{self.path}: it has no checksum of {path}. Record it again.", Status.BAD_INPUT)
        if file_sum(path) != checksum:
            raise CommandError(f"{path}: it has changed since it was recorded.", Status.BAD_INPUT)
        return path

    def guest_directory(self, given: str | None) -> str | None:
        """Return the directory whose files the guest may open: the user's, if the run had one."""
        recorded = self.command.get("files")
        if recorded is None:
            return None
        if given is None:
            message = (
                f"{self.path}: its guest could open, change and remove files in {printable(str(recorded))}, which a "
                "recording cannot allow. Give that directory or a copy with --files DIR, if you trust the guest."
            )
            raise CommandError(message, Status.USAGE)
        return given


def options_of(origin: Origin, files: str | None, without: tuple[str, ...] = ()) -> RunOptions:
    """Return the options with which a run is made again. Its regions do without these optimizations.

    ``files`` is the directory that the user gives the guest, if its run had one. The input is that which ``--record``
    wrote or ``--replay`` read, if any. Raise CommandError if the run cannot be made again.
    """
    command = origin.command
    chosen: dict[str, Any] = {name: origin.option(name, str) for name in _TEXTS if command.get(name) is not None}
    chosen |= {name: origin.option(name, bool) for name in _FLAGS if name in command}
    chosen |= {name: origin.guest_file(name) for name in _FILES if command.get(name) is not None}
    if command.get("console") == VIRTIO:  # the other consoles are not the machine
        chosen["console"] = VIRTIO
    chosen["net"] = tuple(text for text in origin.texts("net") if text != "none")
    if command.get("drive"):
        message = f"{origin.path}: its guest had disks (--drive), which may have changed. It cannot be run again."
        raise CommandError(message, Status.BAD_INPUT)
    if origin.recording is not None:
        chosen["replay"] = origin.recording
    for name in ("replay", "record"):
        if command.get(name) is not None and "replay" not in chosen:
            chosen["replay"] = origin.file(name)
    for name, what, given in (
        ("share", "shared directories", command.get("share")),
        ("vsock", "sockets", command.get("vsock")),
        ("net", "networks", chosen["net"]),
    ):
        if given and "replay" not in chosen:
            message = (
                f"{origin.path}: its guest had {what} (--{name}), and what came from there may have changed. It cannot "
                "be run again without a recording (--record)."
            )
            raise CommandError(message, Status.BAD_INPUT)
    if chosen.get("jit", "async") == "async":
        chosen["jit"] = "sync"
    if chosen.get("tier", "auto") == "auto":
        chosen["without"] = ",".join(filter(None, (chosen.get("without"), *without))) or None
    return RunOptions(**chosen, args=origin.texts("args"), files=origin.guest_directory(files), realtime="off")


def start_again(trace: Trace, files: str | None, without: tuple[str, ...] = ()) -> Machine:
    """Return the machine of a trace before its first instruction, as :func:`options_of` says."""
    options = options_of(Origin.of_trace(trace), files, without)
    machine = make_machine(options, console=CaptureConsole())
    attach_input(machine, options)
    return machine


def is_recording(path: str) -> bool:
    """Return True if a file begins as recordings of input do, and False if it begins as translation traces do.

    Raise CommandError if it is neither, or if it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a pipe that nobody writes to
        try:
            begins = os.read(handle, len(_RECORDING)) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CommandError(f"{path}: it cannot be read: {reason}.", Status.BAD_INPUT) from None
    if begins != _RECORDING and not begins.startswith(MAGIC):
        message = (
            f"{path}: this is neither a recording nor a translation trace, as `dbt run --record FILE` and "
            "`--record-trace FILE` write them."
        )
        raise CommandError(message, Status.BAD_INPUT)
    return begins == _RECORDING
