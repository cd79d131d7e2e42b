"""``dbt replay``: a recorded run again, up to an instruction: its state there, or a debugger that begins there."""

from __future__ import annotations

import gc
import json
import os
from typing import Any

from dbt.cli.debugging import check_endpoint, serve_debuggers
from dbt.cli.options import make_machine
from dbt.cli.origin import Origin, is_recording, options_of
from dbt.cli.recordings import Session, session
from dbt.cli.report import print_table, say
from dbt.cli.run import JSON_SCHEMA, register_rows, status_of, stopping_on_ctrl_c
from dbt.cli.run_control import Requests
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.cli.trace import open_trace
from dbt.cli.values import parse_count
from dbt.host.console import HostConsole
from dbt.vm.machine import Machine
from dbt.vm.result import RunResult, StopReason
from isa.arm.state import Mode


def replay(path: str, at: str, gdb: str | None, files: str | None, as_json: bool) -> int:
    """Run the guest of a recording or a trace again up to the icount ``at``. Return the exit status.

    With ``gdb``, debuggers can connect there, and the status is that of the run. Otherwise the state is printed.
    ``files`` is the directory for a guest that had one.
    """
    icount = parse_count("--at", at)
    if gdb is not None:
        check_endpoint(gdb)
    origin = Origin.of_recording(path) if is_recording(path) else Origin.of_trace(open_trace(path))
    options = options_of(origin, files)
    requests = Requests(can_save=False)
    with open(os.devnull, "rb") as nothing:  # the input is that of the recording
        machine = make_machine(options, console=HostConsole(nothing.fileno()), requests=requests)
        return _repeat(machine, options, requests, icount, path, gdb, as_json)


def _repeat(
    machine: Machine, options: RunOptions, requests: Requests, icount: int, path: str, gdb: str | None, as_json: bool
) -> int:
    with session(machine, options) as here:
        gc.enable()
        with stopping_on_ctrl_c(machine, requests):
            return visit(machine, here, icount, path, gdb, as_json)


def visit(machine: Machine, here: Session, icount: int, path: str, gdb: str | None, as_json: bool) -> int:
    """Run up to an icount, and print the state there; or let debuggers connect at ``gdb``, and return the status of the
    run.
    """
    if gdb is None:
        return _show(machine, _run_up_to(machine, icount), icount, path, as_json)
    return _debug(machine, here, icount, path, gdb)


def _run_up_to(machine: Machine, icount: int) -> RunResult:
    return machine.run(_distance(machine, icount))


def _distance(machine: Machine, icount: int) -> int:
    if icount < machine.icount:
        message = f"--at {icount}: the run begins at instruction {machine.icount}, with a snapshot."
        raise CommandError(message, Status.USAGE)
    return icount - machine.icount


def _debug(machine: Machine, here: Session, icount: int, path: str, gdb: str) -> int:
    history = machine.begin_history()
    try:
        _check_arrival(path, icount, history.run(_distance(machine, icount)))
        say(f"at instruction {icount}, {machine.describe_pc(machine.pc)}")
        result = serve_debuggers(machine, gdb, True, here.fuel(None), None, history)
    finally:
        history.close()
    if result.message:
        say(result.message)
    return status_of(here.end(result))


def _check_arrival(path: str, icount: int, result: RunResult) -> None:
    if result.reason is StopReason.INTERRUPTED:
        raise KeyboardInterrupt
    if result.icount != icount:
        ended = (result.message or result.reason.value).removesuffix(".")
        message = f"--at {icount}: the run of {path} ends before, after {result.icount} instructions: {ended}."
        raise CommandError(message, Status.USAGE)


def _show(machine: Machine, result: RunResult, icount: int, path: str, as_json: bool) -> int:
    _check_arrival(path, icount, result)
    nanoseconds = machine.timeline.nanoseconds
    if as_json:
        answer: dict[str, Any] = {
            "schema": JSON_SCHEMA,
            "icount": icount,
            "nanoseconds": nanoseconds,
            "pc": machine.pc,
            "location": machine.describe_pc(machine.pc),
            "registers": dict(machine.cpu.describe()),
        }
        say(json.dumps(answer), prefix="")
        return Status.DONE
    mode = Mode(machine.cpu.mode).name.lower()
    say(f"at instruction {icount}, {nanoseconds / 1e9:.9f} s, in {mode} mode, {machine.describe_pc(machine.pc)}")
    print_table("registers", register_rows(machine))
    return Status.DONE
