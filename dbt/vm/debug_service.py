"""Serving debuggers while a machine runs: the remote protocol's server, joined to a machine."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident, main_thread
from types import FrameType
from typing import TYPE_CHECKING

from dbt.gdb.endpoint import Endpoint
from dbt.gdb.server import End, GdbServer
from dbt.vm.debugger import Debugger
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.vm.machine import Machine


def serve_gdb(
    machine: Machine,
    endpoint: str,
    wait: bool,
    fuel: int | None,
    timeout: float | None,
    announce: Callable[[str], None],
) -> RunResult:
    """See :meth:`dbt.vm.machine.Machine.serve_gdb`."""
    listener = Endpoint.parse(endpoint).listen()
    debugger = Debugger(machine, fuel, timeout)
    server = GdbServer(debugger, listener, wait)
    try:
        announce(server.address)
        with _woken_by_ctrl_c(server):
            end = server.serve()
    finally:
        server.close()
    icount, pc = machine.icount, machine.cpu.pc
    if end is End.KILLED:
        return RunResult(
            StopReason.INTERRUPTED, None, icount, pc, f"killed by the debugger after {icount} instructions"
        )
    if end is End.INTERRUPTED or debugger.result is None:
        return RunResult(StopReason.INTERRUPTED, None, icount, pc, f"interrupted after {icount} instructions")
    return debugger.result


@contextmanager
def _woken_by_ctrl_c(server: GdbServer) -> Iterator[None]:
    """Let Ctrl-C end a wait for the debugger too, besides what its present handler does. Only the main thread can."""
    before = signal.getsignal(signal.SIGINT)
    if get_ident() != main_thread().ident or not callable(before):
        yield
        return

    def wake(number: int, frame: FrameType | None) -> None:
        server.interrupt()
        before(number, frame)

    signal.signal(signal.SIGINT, wake)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is wake:
            signal.signal(signal.SIGINT, before)
