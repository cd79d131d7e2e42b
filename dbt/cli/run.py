"""``dbt run``: runs a guest according to the options."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING

import dbt
from dbt.cli.options import check_options, make_machine
from dbt.cli.outputs import cannot_write, check_outputs, open_output
from dbt.cli.recordings import file_sums, session
from dbt.cli.report import guarded, print_table, say
from dbt.cli.run_control import Requests, RunControl
from dbt.cli.run_options import RunOptions
from dbt.cli.saving import Saving
from dbt.cli.status import CommandError, Status
from dbt.cli.values import optional, parse_count, parse_seconds, parse_size
from dbt.engine.observer import NOBODY, Observer, Several
from dbt.host.console import Console, HostConsole, is_terminal
from dbt.vm.machine import Machine, StepObserver
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.cli.incoming import Arrival
    from dbt.debug.instruction_log import InstructionTrace
    from dbt.linux.console import ProgramConsole
    from dbt.qmp.monitor import QmpMonitor
    from dbt.trace.perfmap import PerfMap
    from dbt.trace.recorder import TraceRecorder

_STATUS: Mapping[StopReason, Status] = {
    StopReason.FUEL: Status.FUEL,
    StopReason.TIMEOUT: Status.TIMEOUT,
    StopReason.FAULT: Status.GUEST_FAULT,
    StopReason.HALTED: Status.HALTED,
    StopReason.INTERRUPTED: Status.INTERRUPTED,
    StopReason.STOPPED: Status.INTERRUPTED,
}
#: The version of the object that --json prints.
JSON_SCHEMA = 1


def run_program(options: RunOptions) -> int:
    """Run the guest and report. Return the exit status."""
    if options.json:
        return _run_for_json(options)
    machine, result, seconds, _ = _run(options)
    if result.message:
        say(_message(machine, result))
    if options.registers:
        print_table("registers", register_rows(machine))
    if options.stats:
        from dbt.cli.statistics import statistics_lines

        say("\n".join(["statistics", *statistics_lines(machine, seconds)]), prefix="")
    return status_of(result)


def _run(options: RunOptions) -> tuple[Machine, RunResult, float, tuple[str, str] | None]:
    """Return the machine, the result, the seconds that the run took, without the building of the tier, and the file and
    digest of the last snapshot that was written.
    """
    _check_files(options)
    recorder = _recorder(options.record_trace, options.trace_counts)
    perf_map = _perf_map() if options.perf_map else None
    observers = [observer for observer in (recorder, perf_map) if observer is not None]
    requests, saving = Requests(can_save=options.gdb is None), Saving(options)
    observer = Several(*observers) if len(observers) > 1 else (*observers, NOBODY)[0]
    check_options(options)
    with ExitStack() as opened:
        console, arrival = _console(options, opened), None
        if options.incoming is None:
            machine = make_machine(options, observer, console, requests)
        else:
            arrival = _receive(options, observer, console, requests)
            machine = arrival.machine
        opened.callback(machine.attachments.close)  # or sockets would stay where they listen
        saving.prepare(machine)
        monitor = _monitor(options, machine, saving, opened, arrival)
        fuel = optional(parse_count, "--fuel", options.fuel)
        timeout = optional(parse_seconds, "--timeout", options.timeout)
        with _trace(options.trace) as trace, session(machine, options) as here:
            _ = machine.tier
            if recorder is not None:
                recorder.begin(machine, dbt.__version__, options._asdict(), file_sums(options))
            if perf_map is not None:
                perf_map.begin(machine)
            if options.balloon_size is not None and options.replay is None:
                _ask_for_memory(machine, options.balloon_size)
            result, seconds = _execute(machine, options, requests, saving, monitor, here.fuel(fuel), timeout, trace)
            result = here.end(result)
            if (program := _program_console(machine)) is not None:
                from dbt.cli.linux_program import conclude

                result = conclude(program, result)
            saving.save_at_end(machine, result)
    if perf_map is not None:
        perf_map.end()
    if recorder is not None:
        from dbt.cli.statistics import statistics

        recorder.end(result, seconds, statistics(machine))
        if recorder.error:
            say(f"the trace is not complete: {recorder.error}")
    _report_dump(machine)
    return machine, result, seconds, saving.saved


def _ask_for_memory(machine: Machine, text: str) -> None:
    """Ask the guest for the memory of ``--balloon-size``. In a replay, that is in the recording."""
    try:
        machine.ask_for_memory(parse_size("--balloon-size", text))
    except ValueError as error:
        raise CommandError(f"--balloon-size {text}: {error}.", Status.USAGE) from None


def _console(options: RunOptions, opened: ExitStack) -> Console | None:
    """Return the console of ``--serial``, which ``opened`` closes, or None for the standard streams."""
    if options.serial is None:
        return None
    from dbt.cli.serial import open_serial

    return open_serial(options.serial, opened)


def _receive(options: RunOptions, observer: Observer, console: Console | None, requests: Requests) -> Arrival:
    """Return the machine that comes to ``--incoming``."""
    from dbt.cli.incoming import receive_machine

    return receive_machine(options, observer, console, requests)


def _monitor(
    options: RunOptions, machine: Machine, saving: Saving, opened: ExitStack, arrival: Arrival | None
) -> QmpMonitor | None:
    """Return the monitor of ``--qmp``, which ``opened`` closes, or None."""
    if options.qmp is None:
        return None
    from dbt.cli.monitoring import open_monitor

    return open_monitor(options, machine, saving, opened, arrival)


def _execute(
    machine: Machine,
    options: RunOptions,
    requests: Requests,
    saving: Saving,
    monitor: QmpMonitor | None,
    fuel: int | None,
    timeout: float | None,
    trace: StepObserver | None,
) -> tuple[RunResult, float]:
    """Run the guest. Return the result, and the seconds that it took."""
    gc.freeze()  # what exists now stays, so that the collector, which a command starts without, need not visit it
    gc.enable()
    with _minding_signals(machine, requests), _terminal(machine):
        if options.serial is not None:
            from dbt.cli.serial import await_client

            await_client(options.serial, machine)
        if monitor is not None:
            from dbt.cli import monitoring

            monitoring.await_client(options, machine, monitor)
        started = time.monotonic()
        if options.gdb is None:
            result = RunControl(machine, requests, saving, monitor).run(fuel, timeout, trace)
        else:
            from dbt.cli.debugging import serve_debuggers

            save = saving.for_debugger(machine)
            result = serve_debuggers(machine, options.gdb, options.wait, fuel, timeout, options.history, save, monitor)
        return result, time.monotonic() - started


def _check_files(options: RunOptions) -> None:
    """Raise CommandError if a file to be written is one that the run reads, or is given twice."""
    outputs = (
        ("--record", options.record if options.replay is None else None),  # else it is refused anyway
        ("--trace", options.trace),
        ("--record-trace", options.record_trace),
        ("--serial", None if options.serial is None else _serial_file(options.serial)),
    )
    saved = (("--save", options.save),)
    inputs = (
        ("the program", options.program),
        ("the kernel", options.kernel),
        ("the initial RAM disk", options.initrd),
        ("the device tree", options.dtb),
        ("the recording to replay", options.replay),
    )
    check_outputs((*outputs, *saved), inputs)
    if options.restore is not None:  # --save may replace it
        check_outputs(outputs, (("the snapshot to restore", options.restore),))


def _serial_file(text: str) -> str | None:
    return text.removeprefix("file:") if text.startswith("file:") else None


def _recorder(path: str | None, block_counters: bool) -> TraceRecorder | None:
    if path is None:
        return None
    from dbt.trace.recorder import TraceRecorder

    try:
        return TraceRecorder(path, block_counters)
    except (OSError, ValueError) as error:
        raise cannot_write("--record-trace", path, error) from None


def _perf_map() -> PerfMap:
    from dbt.trace.perfmap import PerfMap

    try:
        return PerfMap()
    except OSError as error:
        message = f"--perf-map: {error.filename} cannot be written: {error.strerror}."
        raise CommandError(message, Status.FAILURE) from None


def _report_dump(machine: Machine) -> None:
    """Tell the user what to know about the dump, if one was requested."""
    if machine.options.dump is None:
        return
    activity = machine.tier.regions
    counts = None if activity is None else activity.dump
    if counts is not None and counts.failed:
        failed = f"{counts.failed} of {counts.written + counts.failed} regions"
        say(f"cannot write {failed} to {machine.options.dump}: {counts.reason}")
    elif counts is not None and not counts.written:
        hurry = "; with --jit sync the guest waits for them" if machine.jit == "async" else ""
        say(f"no region was compiled, so there is none in {machine.options.dump}{hurry}")


@contextmanager
def _trace(path: str | None) -> Iterator[InstructionTrace | None]:
    if path is None:
        yield None
        return
    from dbt.debug.instruction_log import InstructionTrace

    with TextIOWrapper(open_output("--trace", path), encoding="utf-8") as file:
        yield InstructionTrace(file)


@contextmanager
def stopping_on_ctrl_c(machine: Machine, requests: Requests) -> Iterator[None]:
    """Let Ctrl-C stop the guest between two instructions while the block runs. A second Ctrl-C stops it at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        requests.end(machine)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _minding_signals(machine: Machine, requests: Requests) -> AbstractContextManager[None]:
    """Return a context in which Ctrl-C stops the guest, or goes to a program for Linux."""
    if (console := _program_console(machine)) is None:
        return stopping_on_ctrl_c(machine, requests)
    from dbt.cli.linux_program import forwarding_signals

    return forwarding_signals(machine, console, requests)


def _program_console(machine: Machine) -> ProgramConsole | None:
    """Return the console of a program for Linux, if the guest has one."""
    if isinstance(machine.console, HostConsole):
        return None
    from dbt.linux.console import ProgramConsole

    return machine.console if isinstance(machine.console, ProgramConsole) else None


@contextmanager
def _terminal(machine: Machine) -> Iterator[None]:
    """Keep the terminal in raw mode while the block runs, for a guest that has it to itself."""
    if not is_terminal():
        yield
        return
    from dbt.host.terminal import TerminalConsole, raw_terminal

    console = machine.console if (program := _program_console(machine)) is None else program.streams
    if not isinstance(console, TerminalConsole):
        yield
        return
    with raw_terminal(0):
        yield


def status_of(result: RunResult) -> int:
    """Return the exit status of a run."""
    if result.exit_code is not None:
        return result.exit_code
    return _STATUS[result.reason]


def _message(machine: Machine, result: RunResult) -> str:
    """Return the result's message and advice."""
    message = _with_place(machine, result)
    return f"{message.removesuffix('.')}. {result.advice}" if result.advice else message


def _with_place(machine: Machine, result: RunResult) -> str:
    """Return the result's message, to which the place is added if it is missing."""
    match result.reason:
        case StopReason.INTERRUPTED:  # Who presses Ctrl-C does not want to wait for the disassembler.
            address, symbol = f"{result.pc:#010x}", machine.symbolize(result.pc)
            return f"{result.message}, at {address}" + (f" ({symbol})" if symbol != address else "")
        case StopReason.FUEL | StopReason.TIMEOUT:
            return f"{result.message}, at {machine.describe_pc(result.pc)}"
        case _:
            return result.message


# -- registers -----------------------------------------------------------------------------------


def register_rows(machine: Machine) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table of the registers of the current mode."""
    names = [*(f"r{n}" for n in range(13)), "sp", "lr", "pc"]
    cells = [f"{name:>4} {value:08x}" for name, value in zip(names, machine.r, strict=True)]
    for row in range(4):
        yield tuple(cells[row * 4 : row * 4 + 4])
    yield (f"cpsr {machine.cpsr:08x}",)


# -- --json --------------------------------------------------------------------------------------


def _run_for_json(options: RunOptions) -> int:
    """Do what :func:`run_program` does, and print one JSON object in place of text."""
    from dbt.cli.statistics import statistics

    answer: dict[str, object] = {}

    def attempt() -> int:
        machine, result, seconds, saved = _run(options)
        answer.update(
            reason=result.reason.value,
            exit_code=result.exit_code,
            message=_message(machine, result),
            icount=result.icount,
            pc=result.pc,
            location=machine.symbolize(result.pc),
            registers=dict(machine.cpu.describe()),
            seconds=round(seconds, 6),
            tier=machine.tier_name,
            exits=dict(machine.event_counts),
            statistics=statistics(machine),
            saved=None if saved is None else {"path": saved[0], "digest": saved[1]},
        )
        return status_of(result)

    status = _collecting_failure(attempt, answer)
    _print_json({"schema": JSON_SCHEMA, "status": int(status), **answer})
    return status


def _collecting_failure(attempt: Callable[[], int], answer: dict[str, object]) -> int:
    """Return the status of an attempt. If it fails, set the fields of ``answer`` that say why."""
    lines: list[str] = []
    status = guarded(attempt, lines.append)
    if not answer:
        reasons = {Status.USAGE: "usage", Status.BAD_INPUT: "bad image", Status.INTERRUPTED: "interrupted"}
        reasons[Status.DIVERGED] = "diverged"
        reason = reasons.get(Status(status), "failure")
        answer.update(reason=reason, exit_code=None, message=" ".join(lines), icount=0, pc=None, location=None)
        answer.update(registers={}, seconds=0.0, tier=None, exits={}, statistics={}, saved=None)
    return status


def _print_json(answer: Mapping[str, object]) -> None:
    import json

    say(json.dumps(answer), prefix="")
