"""``--serial``: a run whose console is a file or a socket, or nothing."""

from __future__ import annotations

from contextlib import ExitStack

from dbt.cli.outputs import cannot_write
from dbt.cli.report import say
from dbt.cli.status import CommandError, Status
from dbt.host.console import Console
from dbt.host.endpoint import WrongEndpoint
from dbt.host.output_console import FileConsole, NullConsole
from dbt.host.serial import SerialLine
from dbt.host.socket_console import SocketConsole
from dbt.vm.machine import Machine


def open_serial(text: str, opened: ExitStack) -> Console | None:
    """Return the console that the option names, which ``opened`` closes; None for the standard streams. Raise
    CommandError if there can be none.
    """
    line = _parse(text)
    match line.kind:
        case "stdio":
            return None
        case "null":
            return NullConsole()
        case "file":
            try:
                return opened.enter_context(FileConsole(line.place))
            except (OSError, ValueError) as error:
                raise cannot_write("--serial", text, error) from None
    try:
        console = opened.enter_context(SocketConsole(line.place, line.server, say))
    except OSError as error:
        what = "cannot listen there" if line.server else "nobody can be reached there"
        message = f"--serial {text}: {what}: {error.strerror or error}."
        raise CommandError(message, Status.FAILURE) from None
    if line.server:
        kind = "" if line.place.startswith("unix:") else "tcp:"
        here = f"{kind or 'unix:'}{console.address}"
        say(f"the console is at {here}" + (", and the guest waits for somebody to connect" if line.waits else ""))
    return console


def await_client(text: str, machine: Machine) -> None:
    """Wait until somebody has connected, if the option says so, or until the user ends the run."""
    if _parse(text).waits and isinstance(machine.console, SocketConsole):
        machine.console.await_client(lambda: machine.is_interrupted)


def _parse(text: str) -> SerialLine:
    try:
        return SerialLine.parse(text)
    except WrongEndpoint as error:
        raise CommandError(f"--serial {error}.", Status.USAGE) from None
