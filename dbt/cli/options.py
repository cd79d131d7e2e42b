"""The options of ``dbt run``, from which a machine with its guest is made. Wrong options raise CommandError."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dbt.board.boards import BOARDS, CPU_MODELS, BoardModel, default_board
from dbt.board.clock import DEFAULT_EPOCH, DEFAULT_INSN_NS
from dbt.board.loader import is_linux_program
from dbt.cli.report import say
from dbt.cli.run_control import Requests
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.cli.values import (
    check_smp,
    optional,
    parse_choice,
    parse_drive,
    parse_epoch,
    parse_gpa,
    parse_insn_ns,
    parse_optimizations,
    parse_rng,
    parse_share,
    parse_size,
    parse_switch,
    parse_vsock,
)
from dbt.codecache.store import cache_limit
from dbt.engine.observer import NOBODY, Observer
from dbt.frontend.optimizations import ALL
from dbt.host.console import Console, HostConsole, is_terminal
from dbt.vm.machine import JIT_MODES, TIERS, Machine
from dbt.vm.options import HostOptions

if TYPE_CHECKING:
    from dbt.host.net_option import Net
    from dbt.host.ninep.share import Share
    from dbt.host.vsock_option import Vsock
    from dbt.vm.recording import RunIdentity

CONSOLE_MODES = ("raw", "line")
#: Not a mode of the terminal, but the device that gets its input.
VIRTIO = "virtio"
DEFAULT_MEMORY = "128M"


def make_machine(
    options: RunOptions,
    observer: Observer = NOBODY,
    console: Console | None = None,
    requests: Requests | None = None,
) -> Machine:
    """Return the machine that the options describe: with the program or the kernel in its RAM, or restored.

    ``console`` replaces the process's standard streams. ``requests`` are told of the keys of a raw console.
    """
    check_options(options)
    if options.restore is not None:
        from dbt.cli.restoring import restore_machine

        return restore_machine(options, observer, console, requests or Requests())
    if options.program is not None and is_for_linux(options):
        from dbt.cli.linux_program import linux_machine

        return linux_machine(options, observer, console, requests or Requests())
    memory = parse_size("--memory", DEFAULT_MEMORY if options.memory is None else options.memory)
    base = optional(parse_gpa, "--base", options.base)
    entry = optional(parse_gpa, "--entry", options.entry)
    epoch = optional(parse_epoch, "--epoch", options.epoch)
    insn_ns = optional(parse_insn_ns, "--insn-ns", options.insn_ns)
    semihosting = optional(parse_switch, "--semihosting", options.semihosting)
    cpu = None if options.cpu is None else parse_choice("--cpu", options.cpu, CPU_MODELS)
    board = None if options.board is None else parse_choice("--board", options.board, tuple(BOARDS))
    rng_seed = optional(parse_rng, "--rng", options.rng)
    optional(check_smp, "--smp", options.smp)
    _check_devices(options, default_board(cpu) if board is None else BOARDS[board], memory)
    console = console or make_console(options, options.kernel is not None, lambda: machine, requests or Requests())
    host = host_options(options, observer, console)
    default_epoch, default_insn_ns = _default_clock(options)
    machine = Machine(
        memory=memory,
        epoch=default_epoch if epoch is None else epoch,
        cpu=cpu,
        semihosting=semihosting,
        insn_ns=default_insn_ns if insn_ns is None else insn_ns,
        board=board,
        devices=_devices(options),
        rng_seed=0 if rng_seed is None else rng_seed,
        **host,
    )
    if memory > machine.options.board_model.largest_ram:
        say("more than 256M of RAM hides the board's devices: the guest's console is semihosting alone")
    if options.kernel is not None:
        append = options.append or ""
        machine.load_kernel(options.kernel, options.initrd, options.dtb, append, options.atags, base, entry)
    elif options.program is not None:
        machine.load(options.program, base, entry, options.args)
    return machine


def is_for_linux(options: RunOptions) -> bool:
    """Return True if there is a program for Linux: the user says so, or its file."""
    if options.os is not None:
        return options.program is not None and parse_choice("--os", options.os, ("linux", "none")) == "linux"
    if options.program is None or options.base is not None:
        return False
    return is_linux_program(options.program)  # that it cannot be read is said when it is loaded


def check_options(options: RunOptions) -> None:
    """Raise CommandError for options that do not go together."""
    _check_combination(options)
    _check_debugger(options)
    if options.xen and options.board != "xen":
        refuse({"--board": options.board}, "--xen is the board xen")
    if options.replay is not None:
        refuse({"--record": options.record}, "a replay has nothing new to record")
    if options.record_trace is None:
        refuse({"--trace-counts": options.trace_counts}, "it is for a recording: give it with --record-trace FILE")
    if options.serial not in (None, "stdio") and options.console != VIRTIO:
        refuse({"--console": options.console}, "this is for a terminal, and --serial has the console elsewhere")


def _nets(options: RunOptions) -> tuple[Net, ...]:
    if not (options.net or options.forward):
        return ()
    from dbt.cli.net_options import nets_of

    return nets_of(options)


def _vsock(options: RunOptions) -> Vsock | None:
    """Return the socket device. In a replay, what came from the host is in the recording."""
    vsock = optional(parse_vsock, "--vsock", options.vsock)
    return vsock if vsock is None or options.replay is None else vsock._replace(end="none")


def _check_devices(options: RunOptions, board: BoardModel, memory: int) -> None:
    """Raise CommandError for virtio devices on a board with too few slots, or whose slots so much RAM hides, and for
    devices that a domain of Xen cannot have.
    """
    if options.xenstore is not None and not board.is_domain:
        message = f"--xenstore {options.xenstore}: the board {board.name} has no XenStore. Give it --xen."
        raise CommandError(message, Status.USAGE)
    if board.is_domain:
        others = {"--vsock": options.vsock, "--rng, --balloon and --console virtio": _devices(options)}
        for name, wanted in others.items():
            if wanted:
                text = f"{name}: a domain of Xen has --drive, --net and --share alone."
                raise CommandError(text, Status.USAGE)
        return
    count = len(options.drive) + len(_nets(options)) + len(_devices(options)) + len(options.share)
    count += options.vsock is not None
    if count and memory > board.largest_ram:
        text = f"--memory {options.memory}: so much RAM hides the virtio devices of the board {board.name}"
        raise CommandError(f"{text}; give it at most {board.largest_ram >> 20}M.", Status.USAGE)
    if count > board.virtio_slots:
        which = "--drive, --net, --rng, --balloon, --share, --vsock and --console virtio are virtio devices"
        most = f"of which the board {board.name} has at most {board.virtio_slots}, and {count} are wanted"
        raise CommandError(f"{which}, {most}.", Status.USAGE)


def _devices(options: RunOptions) -> tuple[str, ...]:
    """Return the names of the virtio devices that need nothing of the host."""
    has_balloon = options.balloon or options.balloon_size is not None
    wanted = {"rng": options.rng is not None, "balloon": has_balloon, "console": options.console == VIRTIO}
    return tuple(name for name, there in wanted.items() if there)


def host_options(options: RunOptions, observer: Observer, console: Console) -> HostOptions:
    """Return the arguments of a machine that are not of the guest's state."""
    tier = parse_choice("--tier", options.tier, TIERS)
    jit = parse_choice("--jit", options.jit, JIT_MODES)
    optimizations = optional(parse_optimizations, "--without", options.without)
    if optimizations is not None and tier != "auto":
        message = f"--without {options.without}: the tier {tier} has no optimizations, only auto has."
        raise CommandError(message, Status.USAGE)
    if options.dump is not None and tier != "auto":
        raise CommandError(f"--dump {options.dump}: the tier {tier} compiles no regions, only auto does.", Status.USAGE)
    if tier == "auto":
        cache_limit()  # which may be wrong, and that is to be said before anything is built
    if options.files is not None and not os.path.isdir(options.files):
        raise CommandError(f"--files {options.files}: this is not a directory.", Status.USAGE)
    realtime = optional(parse_switch, "--realtime", options.realtime)
    nets = _nets(options)
    if realtime is None:
        realtime = options.replay is None and (_is_interactive(options) or any(net.reaches_outside for net in nets))
    return {
        "tier": tier,
        "files": options.files,
        "console": console,
        "notice": say,
        "jit": jit,
        "optimizations": ALL if optimizations is None else optimizations,
        "dump": options.dump,
        "realtime": realtime,
        "measures": options.stats or options.json,
        "observer": observer,
        "drives": tuple(parse_drive("--drive", text) for text in options.drive),
        "nets": nets,
        "shares": _shares(options),
        "vsock": _vsock(options),
        "xenstore": None if options.replay is not None else options.xenstore,
    }


def _shares(options: RunOptions) -> tuple[Share, ...]:
    """Return the directories to share. A replay has what was recorded of them, and needs none."""
    shares = [parse_share("--share", text) for text in options.share]
    if shares:
        from dbt.host.ninep.share import fault_of

        if fault := fault_of(shares):
            raise CommandError(f"--share: {fault}.", Status.USAGE)
    if options.replay is None:
        for share in shares:
            if share.path is None or not os.path.isdir(share.path):
                raise CommandError(f"--share {share.path}: this is not a directory.", Status.USAGE)
        return tuple(shares)
    from dbt.host.ninep.share import Share

    given = [(share.tag, share.read_only) for share in shares] or _recorded(options.replay).shares
    return tuple(Share(None, tag, read_only) for tag, read_only in given)


def _is_interactive(options: RunOptions) -> bool:
    """Return True if somebody may sit at the guest's console: at a terminal or a socket."""
    return is_terminal() if options.serial is None else options.serial.startswith(("unix:", "tcp:"))


def make_console(
    options: RunOptions, is_kernel: bool, machine: Callable[[], Machine], requests: Requests
) -> HostConsole:
    """Return the console. A kernel has the terminal to itself, and a replay does not read it.

    ``machine`` returns the machine when there is one, which is told of Ctrl-A and X, S or P by the ``requests``.
    """
    raw = is_kernel and options.replay is None and is_terminal()
    if options.console is not None:
        mode = parse_choice("--console", options.console, (*CONSOLE_MODES, VIRTIO))
        raw = raw if mode == VIRTIO else mode == "raw"
        if raw and not is_terminal():
            raise CommandError("--console raw: standard input is not a terminal.", Status.USAGE)
    if not raw:
        return HostConsole()
    from dbt.host.terminal import TerminalConsole

    return TerminalConsole(
        lambda: requests.end(machine()), lambda: requests.save(machine()), lambda: requests.press_power_key(machine())
    )


def _default_clock(options: RunOptions) -> tuple[int, float]:
    """Return the time of day at the start, in seconds since 1970, and the time of an instruction, in nanoseconds, where
    the user says nothing. For a replay that is what the recording has.
    """
    if options.replay is None:
        return DEFAULT_EPOCH, DEFAULT_INSN_NS
    identity = _recorded(options.replay)
    return identity.epoch, identity.insn_ns


def _recorded(path: str) -> RunIdentity:
    from dbt.vm.recording import read_recording

    return read_recording(path).identity


def _check_combination(options: RunOptions) -> None:
    """Raise CommandError unless there is either a program or a kernel, with options that apply to it."""
    if options.incoming is not None:
        others = {"--restore": options.restore, "--record": options.record, "--replay": options.replay}
        refuse(others, "the machine of --incoming has its state from elsewhere, and its input is not recorded")
        return
    refuse({"--tls-creds": options.tls_creds}, "it is for --incoming; the monitor's migrate has its own parameter")
    if options.restore is not None:
        return
    if options.kernel is None:
        if options.program is None:
            raise CommandError(
                "PROGRAM is missing, or --kernel FILE, or --restore SNAPSHOT. See `dbt run --help`.", Status.USAGE
            )
        given = {"--initrd": options.initrd, "--dtb": options.dtb, "--append": options.append, "--atags": options.atags}
        refuse(given, "it is for a kernel: give it with --kernel FILE")
        return
    if options.program is not None:
        message = f"{options.program}: --kernel is given, so there is no program; a kernel's arguments go to --append."
        raise CommandError(message, Status.USAGE)
    if options.atags:
        refuse({"--dtb": options.dtb}, "a kernel is given a device tree or, with --atags, ATAGs")
    if options.semihosting != "on":
        refuse({"--files": options.files}, "a kernel reaches files by semihosting alone: add --semihosting on")


def _check_debugger(options: RunOptions) -> None:
    """Raise CommandError for options that do not go with --gdb, or only with it."""
    if options.gdb is None:
        refuse({"--history": options.history}, "it is for a debugger: give it with --gdb PORT")
        if options.qmp is None:
            refuse(
                {"--wait": options.wait},
                "it is for a debugger or a monitor: give it with --gdb PORT or --qmp unix:PATH",
            )
        return
    from dbt.cli.debugging import check_endpoint

    check_endpoint(options.gdb)
    refuse({"--trace": options.trace}, "with --gdb, the debugger steps; the log of instructions is for other runs")
    refuse(
        {"--save-at": options.save_at},
        "with --gdb, stop the guest there and say `monitor snapshot`, which writes the file of --save",
    )


def refuse(given: Mapping[str, object], why: str) -> None:
    for option, value in given.items():
        if value is not None and value is not False:
            text = "" if value is True else f" {value}"
            raise CommandError(f"{option}{text}: {why}.", Status.USAGE)
