"""Serving debuggers while a machine runs: the remote protocol's server, joined to a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.gdb.server import End, GdbServer
from dbt.host.endpoint import Endpoint
from dbt.vm.debugger import Debugger
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.vm.controlled_machine import ControlledMachine
    from dbt.vm.debugged_run import RunPartner
    from dbt.vm.history import History


def serve_gdb(
    machine: ControlledMachine,
    endpoint: str,
    wait: bool,
    fuel: int | None,
    timeout: float | None,
    history: bool | History,
    announce: Callable[[str], None],
    save: Callable[[], str] | None,
    monitor: RunPartner | None,
) -> RunResult:
    """See :meth:`dbt.vm.controlled_machine.ControlledMachine.serve_gdb`."""
    listener = Endpoint.parse(endpoint).listen()
    own = machine.begin_history() if history is True else None
    debugger = Debugger(machine, fuel, timeout, own if isinstance(history, bool) else history, save, monitor)
    if wait and monitor is not None:
        monitor.note_debugger(holds=True)
    server = GdbServer(debugger, listener, wait)
    try:
        announce(server.address)
        end = server.serve()
    finally:
        server.close()
        if own is not None:
            own.close()
    result = _result(machine, end, debugger)
    if monitor is not None:
        monitor.note_end(result)
    return result


def _result(machine: ControlledMachine, end: End, debugger: Debugger) -> RunResult:
    icount, pc = machine.icount, machine.cpu.pc
    if end is End.KILLED:
        message = f"killed by the debugger after {icount} instructions"
    elif debugger.result is not None and (end is End.GUEST or debugger.is_over):
        return debugger.result
    else:
        message = f"interrupted after {icount} instructions"
    return RunResult(StopReason.INTERRUPTED, None, icount, pc, message)
