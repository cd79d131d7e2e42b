"""``dbt run --qmp``: a run with a monitor, by which others look at the machine and control it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from dbt.cli.report import say
from dbt.cli.run_options import RunOptions
from dbt.cli.saving import Saving
from dbt.cli.status import CommandError, Status
from dbt.host.endpoint import WrongEndpoint
from dbt.host.serial import socket_options
from dbt.qmp.monitor import QmpMonitor
from dbt.vm.machine import Machine

if TYPE_CHECKING:
    from dbt.cli.incoming import Arrival


def open_monitor(
    options: RunOptions, machine: Machine, saving: Saving, opened: ExitStack, arrival: Arrival | None
) -> QmpMonitor:
    """Return the monitor of ``--qmp``, which ``opened`` closes. Raise CommandError if there can be none.

    ``arrival`` says how the machine has come, if it was moved here.
    """
    assert options.qmp is not None
    no_reset = "the machine is to be saved at an instruction of this run (--save-at)" if saving.at is not None else ""
    place, _ = _parse(options.qmp)
    waits = (options.wait and options.gdb is None) or (arrival is not None and arrival.is_paused)
    try:
        monitor = QmpMonitor(machine, place, waits, lambda path: saving.save_as(machine, path), no_reset)
    except WrongEndpoint as error:
        raise CommandError(f"--qmp {error}.", Status.USAGE) from None
    except OSError as error:
        message = f"--qmp {options.qmp}: cannot listen there: {error.strerror or error}."
        raise CommandError(message, Status.FAILURE) from None
    if arrival is not None and arrival.doubts:
        monitor.move.wait_undecided(arrival.doubts)
    return opened.enter_context(monitor)


def await_client(options: RunOptions, machine: Machine, monitor: QmpMonitor) -> None:
    """Wait until a client has connected, if the option says so, or until the user ends the run."""
    place, waits = _parse(options.qmp or "")
    if waits:
        say(f"the monitor is at {place}, and the guest waits for somebody to connect")
        monitor.await_client(lambda: machine.is_interrupted)


def _parse(text: str) -> tuple[str, bool]:
    """Return the endpoint, and whether the guest waits for a client. A socket is always a server here."""
    try:
        place, server, waits = socket_options(text)
    except WrongEndpoint as error:
        raise CommandError(f"--qmp {error}.", Status.USAGE) from None
    if server is False:
        message = f"--qmp {text}: a monitor is a server: others connect to it. Leave server=off out."
        raise CommandError(message, Status.USAGE)
    return place, bool(server) if waits is None else waits
