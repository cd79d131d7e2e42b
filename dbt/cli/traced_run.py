"""The run of a translation trace, made again from the command in the trace's header.

Whoever made the trace chose that command, so only those options count that say what the machine is. Each file that they
name is only read, and only if the trace has its checksum and the file still has it. A directory that the guest may
write to comes from the user alone.
"""

from __future__ import annotations

import os
from typing import Any

from dbt.cli.options import make_machine
from dbt.cli.recordings import attach_input, file_sum
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.host.console import CaptureConsole
from dbt.inspector.symbols import printable
from dbt.trace.model import Trace
from dbt.vm.machine import Machine

#: The options that name a file which the guest is made from.
_FILES = ("program", "kernel", "initrd", "dtb", "restore")
#: The other options whose value is a text, and those that are flags. All others are left out: what they write, limit or
#: show is not the machine.
_TEXTS = ("append", "cpu", "semihosting", "memory", "tier", "jit", "without", "base", "entry", "epoch", "insn_ns")
_FLAGS = ("atags",)


def start_again(trace: Trace, files: str | None, without: tuple[str, ...] = ()) -> Machine:
    """Return the machine of a trace before its first instruction. Its regions do without these optimizations.

    ``files`` is the directory that the user gives the guest, if its run had one. The input is that which ``--record``
    wrote or ``--replay`` read, if any. Raise CommandError if the run cannot be made again.
    """
    options = options_of(trace, files, without)
    machine = make_machine(options, console=CaptureConsole())
    attach_input(machine, options)
    return machine


def options_of(trace: Trace, files: str | None, without: tuple[str, ...] = ()) -> RunOptions:
    """Return the options with which a run is made again; see :func:`start_again`."""
    command = trace.header["command"]
    chosen: dict[str, Any] = {name: _value(trace, name, str) for name in _TEXTS if command.get(name) is not None}
    chosen |= {name: _value(trace, name, bool) for name in _FLAGS if name in command}
    chosen |= {name: _guest_file(trace, name) for name in _FILES if command.get(name) is not None}
    arguments = command.get("args", [])
    if type(arguments) is not list or not all(type(argument) is str for argument in arguments):
        raise _wrong(trace, "args")
    for name in ("replay", "record"):
        if command.get(name) is not None and "replay" not in chosen:
            chosen["replay"] = _path(trace, name)
    if chosen.get("jit", "async") == "async":
        chosen["jit"] = "sync"
    if chosen.get("tier", "auto") == "auto":
        chosen["without"] = ",".join(filter(None, (chosen.get("without"), *without))) or None
    return RunOptions(**chosen, args=tuple(arguments), files=_directory(trace, files), realtime="off")


def _wrong(trace: Trace, name: str) -> CommandError:
    message = f"{trace.path}: the value of {name} in its command cannot be understood. Record it again."
    return CommandError(message, Status.BAD_INPUT)


def _value(trace: Trace, name: str, kind: type) -> object:
    value = trace.header["command"][name]
    if type(value) is not kind:
        raise _wrong(trace, name)
    return value


def _path(trace: Trace, name: str) -> str:
    """Return the absolute path of a file that an option names."""
    return os.path.abspath(os.path.join(trace.header["directory"], str(_value(trace, name, str))))


def _guest_file(trace: Trace, name: str) -> str:
    path = _path(trace, name)
    checksum = trace.header["files"].get(path)
    if checksum is None:
        raise CommandError(f"{trace.path}: it has no checksum of {path}. Record it again.", Status.BAD_INPUT)
    if file_sum(path) != checksum:
        raise CommandError(f"{path}: it has changed since it was recorded.", Status.BAD_INPUT)
    return path


def _directory(trace: Trace, files: str | None) -> str | None:
    """Return the directory whose files the guest may open: the user's, if the run had one."""
    recorded = trace.header["command"].get("files")
    if recorded is None:
        return None
    if files is None:
        message = (
            f"{trace.path}: its guest could open, change and remove files in {printable(str(recorded))}, which a trace "
            "cannot allow. Run `dbt trace diff --files DIR` with that directory or a copy, if you trust the guest."
        )
        raise CommandError(message, Status.USAGE)
    return files
