"""The options of ``dbt run``, from which a machine with its guest is made. Wrong options raise CommandError."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dbt.board.clock import DEFAULT_EPOCH, DEFAULT_INSN_NS
from dbt.board.cpu_models import CPU_MODELS
from dbt.board.versatile import BOARD_MEMORY
from dbt.cli.report import say
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.cli.values import (
    optional,
    parse_choice,
    parse_epoch,
    parse_gpa,
    parse_insn_ns,
    parse_optimizations,
    parse_size,
    parse_switch,
)
from dbt.codecache.store import cache_limit
from dbt.engine.observer import NOBODY, Observer
from dbt.frontend.optimizations import ALL
from dbt.host.console import Console, HostConsole, is_terminal
from dbt.vm.machine import JIT_MODES, TIERS, Machine

CONSOLE_MODES = ("raw", "line")


def make_machine(options: RunOptions, observer: Observer = NOBODY, console: Console | None = None) -> Machine:
    """Return the machine that the options describe, with the program or the kernel in its RAM.

    ``console`` replaces the process's standard streams.
    """
    _check_combination(options)
    _check_debugger(options)
    if options.replay is not None:
        _refuse({"--record": options.record}, "a replay has nothing new to record")
    memory = parse_size("--memory", options.memory)
    base = optional(parse_gpa, "--base", options.base)
    entry = optional(parse_gpa, "--entry", options.entry)
    epoch = optional(parse_epoch, "--epoch", options.epoch)
    insn_ns = optional(parse_insn_ns, "--insn-ns", options.insn_ns)
    tier = parse_choice("--tier", options.tier, TIERS)
    jit = parse_choice("--jit", options.jit, JIT_MODES)
    semihosting = optional(parse_switch, "--semihosting", options.semihosting)
    cpu = None if options.cpu is None else parse_choice("--cpu", options.cpu, CPU_MODELS)
    optimizations = optional(parse_optimizations, "--without", options.without)
    if optimizations is not None and tier != "auto":
        message = f"--without {options.without}: the tier {tier} has no optimizations, only auto has."
        raise CommandError(message, Status.USAGE)
    if options.dump is not None and tier != "auto":
        raise CommandError(f"--dump {options.dump}: the tier {tier} compiles no regions, only auto does.", Status.USAGE)
    if options.record_trace is None:
        _refuse({"--trace-counts": options.trace_counts}, "it is for a recording: give it with --record-trace FILE")
    if tier == "auto":
        cache_limit()  # which may be wrong, and that is to be said before anything is built
    if options.files is not None and not os.path.isdir(options.files):
        raise CommandError(f"--files {options.files}: this is not a directory.", Status.USAGE)
    if memory > BOARD_MEMORY:
        say("more than 256M of RAM hides the board's devices: the guest's console is semihosting alone")
    default = _default_clock(options)
    realtime = optional(parse_switch, "--realtime", options.realtime)
    console = console or _make_console(options, lambda: machine.interrupt())  # noqa: PLW0108 - it is made below
    machine = Machine(
        memory=memory,
        tier=tier,
        files=options.files,
        console=console,
        epoch=default.epoch if epoch is None else epoch,
        notice=say,
        jit=jit,
        optimizations=ALL if optimizations is None else optimizations,
        dump=options.dump,
        cpu=cpu,
        semihosting=semihosting,
        realtime=options.replay is None and is_terminal() if realtime is None else realtime,
        insn_ns=default.insn_ns if insn_ns is None else insn_ns,
        measures=options.stats or options.json,
        observer=observer,
    )
    if options.kernel is not None:
        append = options.append or ""
        machine.load_kernel(options.kernel, options.initrd, options.dtb, append, options.atags, base, entry)
    elif options.program is not None:
        machine.load(options.program, base, entry, options.args)
    return machine


def _make_console(options: RunOptions, on_end: Callable[[], None]) -> HostConsole:
    """Return the console. A kernel has the terminal to itself, and a replay does not read it. Ctrl-A X calls
    ``on_end``.
    """
    raw = options.kernel is not None and options.replay is None and is_terminal()
    if options.console is not None:
        raw = parse_choice("--console", options.console, CONSOLE_MODES) == "raw"
        if raw and not is_terminal():
            raise CommandError("--console raw: standard input is not a terminal.", Status.USAGE)
    if not raw:
        return HostConsole()
    from dbt.host.terminal import TerminalConsole

    return TerminalConsole(on_end)


class _Clock(NamedTuple):
    """The time of day at the start, in seconds since 1970, and the time of an instruction, in nanoseconds."""

    epoch: int
    insn_ns: int


def _default_clock(options: RunOptions) -> _Clock:
    """Return what holds where the user says nothing. For a replay that is what the recording has."""
    if options.replay is None:
        return _Clock(DEFAULT_EPOCH, DEFAULT_INSN_NS)
    from dbt.vm.recording import read_recording

    identity = read_recording(options.replay).identity
    return _Clock(identity.epoch, identity.insn_ns)


def _check_combination(options: RunOptions) -> None:
    """Raise CommandError unless there is either a program or a kernel, with options that apply to it."""
    if options.kernel is None:
        if options.program is None:
            raise CommandError("PROGRAM is missing, or --kernel FILE. See `dbt run --help`.", Status.USAGE)
        given = {"--initrd": options.initrd, "--dtb": options.dtb, "--append": options.append, "--atags": options.atags}
        _refuse(given, "it is for a kernel: give it with --kernel FILE")
        return
    if options.program is not None:
        message = f"{options.program}: --kernel is given, so there is no program; a kernel's arguments go to --append."
        raise CommandError(message, Status.USAGE)
    if options.atags:
        _refuse({"--dtb": options.dtb}, "a kernel is given a device tree or, with --atags, ATAGs")
    if options.semihosting != "on":
        _refuse({"--files": options.files}, "a kernel reaches files by semihosting alone: add --semihosting on")


def _check_debugger(options: RunOptions) -> None:
    """Raise CommandError for options that do not go with --gdb, or only with it."""
    if options.gdb is None:
        _refuse({"--wait": options.wait}, "it is for a debugger: give it with --gdb PORT")
        return
    from dbt.cli.debugging import check_endpoint

    check_endpoint(options.gdb)
    _refuse({"--trace": options.trace}, "with --gdb, the debugger steps; the log of instructions is for other runs")


def _refuse(given: Mapping[str, object], why: str) -> None:
    for option, value in given.items():
        if value is not None and value is not False:
            text = "" if value is True else f" {value}"
            raise CommandError(f"{option}{text}: {why}.", Status.USAGE)
