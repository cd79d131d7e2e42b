"""``dbt run --gdb``: a run to which debuggers can connect."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.cli.report import say
from dbt.cli.status import CommandError, Status
from dbt.vm.machine import Machine
from dbt.vm.result import RunResult

if TYPE_CHECKING:
    from dbt.qmp.monitor import QmpMonitor
    from dbt.vm.history import History


def check_endpoint(text: str) -> None:
    """Raise CommandError unless the text says where a debugger can connect."""
    from dbt.host.endpoint import Endpoint, WrongEndpoint

    try:
        Endpoint.parse(text)
    except WrongEndpoint as error:
        raise CommandError(f"--gdb {error}.", Status.USAGE) from None


def serve_debuggers(
    machine: Machine,
    endpoint: str,
    wait: bool,
    fuel: int | None,
    timeout: float | None,
    history: bool | History,
    save: Callable[[], str] | None = None,
    monitor: QmpMonitor | None = None,
) -> RunResult:
    """Run the guest, let debuggers connect, and return the result. ``save`` and ``monitor`` are as for
    Machine.serve_gdb(). Raise CommandError if none could.
    """
    listening: list[str] = []

    def announce(place: str) -> None:
        listening.append(place)
        say(f"gdb can connect: target remote {place}")

    try:
        return machine.serve_gdb(endpoint, wait, fuel, timeout, announce, history, save, monitor)
    except OSError as error:
        if listening:
            raise
        message = f"--gdb {endpoint}: cannot listen there: {error.strerror or error}."
        raise CommandError(message, Status.FAILURE) from None
