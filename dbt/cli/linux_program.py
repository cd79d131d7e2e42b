"""``dbt run PROGRAM`` for a program for Linux: a machine that goes on from the template of the Linux guest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dbt.board.loader import linux_executable
from dbt.cli.options import VIRTIO, host_options, make_console, refuse
from dbt.cli.report import say
from dbt.cli.run_control import Requests
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.cli.values import optional, parse_epoch, parse_rng, parse_size
from dbt.engine.observer import Observer
from dbt.host.console import Console, is_terminal
from dbt.linux import program as linux
from dbt.linux.console import ProgramConsole, exit_status
from dbt.linux.images import LinuxGuestError
from dbt.linux.protocol import RequestError
from dbt.linux.template import DEFAULT_MEMORY, LEAST_MEMORY, Hardware, read_template, shares
from dbt.vm.machine import Machine
from dbt.vm.result import RunResult

#: What a program gets when dbt does.
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
#: After so many of these the run ends, whatever the program does.
_PATIENCE = 3
_ENTROPY_BYTES = 64
#: Linux' clock cannot be set to a time at which it was not running yet, in seconds since 1970.
_EARLIEST = 60


def linux_machine(options: RunOptions, observer: Observer, console: Console | None, requests: Requests) -> Machine:
    """Return a machine whose guest is about to execute the program. Raise CommandError."""
    _check(options)
    path = options.program
    assert path is not None
    root = options.root if options.root is not None else os.environ.get("QEMU_LD_PREFIX") or None
    for option, folder in (("--root", root), ("--files", options.files)):
        if folder is not None and not os.path.isdir(folder):
            raise CommandError(f"{option} {folder}: this is not a directory.", Status.USAGE)
    found = linux_executable(path)
    try:
        linux.check_place(path, root)
        if found is not None:
            linux.check(found, path, root)
    except linux.ProgramError as error:
        raise CommandError(f"{error}.", Status.BAD_INPUT) from None
    memory = DEFAULT_MEMORY if options.memory is None else parse_size("--memory", options.memory)
    if memory < LEAST_MEMORY:
        message = f"--memory {options.memory}: a program for Linux needs at least {LEAST_MEMORY >> 20}M."
        raise CommandError(message, Status.USAGE)
    streams = console or make_console(options, _has_terminal(), lambda: machine, requests)
    port = ProgramConsole(streams, path)
    host = host_options(options, observer, port)
    host["files"] = None  # which semihosting has; the guest mounts it
    if options.realtime is None and options.replay is None:
        host["realtime"] = True
    try:
        plan = _plan(options, path, root)
        with read_template(Hardware(memory), say) as state:
            host["shares"] = shares(plan.folders)
            machine = Machine.restore(state, **host)
    except LinuxGuestError as error:
        raise CommandError(f"{path}: {error}.", Status.FAILURE) from None
    except RequestError as error:
        raise CommandError(f"{path}: {error}.", Status.BAD_INPUT) from None
    port.start(plan.request)
    return machine


def _check(options: RunOptions) -> None:
    """Raise CommandError for options that belong to the guest's machine, which is a fixed one."""
    refuse(
        {
            "--base": options.base,
            "--entry": options.entry,
            "--board": options.board,
            "--cpu": options.cpu,
            "--smp": options.smp,
            "--semihosting": options.semihosting,
            "--drive": " ".join(options.drive) or None,
            "--net": " ".join(options.net) or None,
            "--forward": " ".join(options.forward) or None,
            "--share": " ".join(options.share) or None,
            "--vsock": options.vsock,
            "--balloon": options.balloon,
            "--balloon-size": options.balloon_size,
            "--insn-ns": options.insn_ns,
            "--console": options.console if options.console == VIRTIO else None,
        },
        "the program is one for Linux, and its machine is a fixed one (--os none takes it for a bare-metal program)",
    )
    saving = {"--save": options.save, "--save-at": options.save_at}
    refuse(saving, "a program for Linux cannot be saved: a snapshot does not have the directories that it uses")


def _has_terminal() -> bool:
    return is_terminal() and os.isatty(1)


def _plan(options: RunOptions, path: str, root: str | None) -> linux.Plan:
    epoch = optional(parse_epoch, "--epoch", options.epoch)
    seed = optional(parse_rng, "--rng", options.rng)
    terminal = None
    if _has_terminal():
        size = os.get_terminal_size(1)
        terminal = linux.Terminal(size.lines, size.columns)
    mask = os.umask(0)
    os.umask(mask)
    owner = linux.Owner(os.geteuid(), os.getegid(), tuple(os.getgroups()), mask)
    entropy = os.urandom(_ENTROPY_BYTES)
    if seed is not None:
        from hashlib import sha512

        entropy = sha512(b"dbt rng seed %d" % seed).digest()
    if epoch is not None and epoch < _EARLIEST:
        message = f"--epoch {options.epoch}: Linux takes no time that is before its start; {_EARLIEST} is the first."
        raise CommandError(message, Status.USAGE)
    now = int(time.time()) if epoch is None else epoch
    arguments = (path, *options.args)
    return linux.make_plan(path, arguments, os.environ, root, options.files, owner, terminal, now, entropy)


@contextmanager
def forwarding_signals(machine: Machine, console: ProgramConsole, requests: Requests) -> Iterator[None]:
    """Send the program the signals that dbt gets while the block runs. The third one that would end dbt ends the run,
    and so does the first if the program has not begun.
    """
    ends = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal ends
        ends += number in _ENDING
        if ends >= _PATIENCE or (ends and not console.is_started):
            requests.end(machine)
        console.signal(number)

    def resize(number: int, frame: FrameType | None) -> None:
        size = os.get_terminal_size(1)
        console.resize(size.lines, size.columns)

    handlers = dict.fromkeys((signal.SIGINT, *_FORWARDED), forward)
    if _has_terminal():
        handlers[signal.SIGWINCH] = resize
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def conclude(console: ProgramConsole, result: RunResult) -> RunResult:
    """Return the result of a run with the program's exit status. Raise CommandError if it was not started, or if the
    guest ended without it.
    """
    if console.failure is not None:
        raise CommandError(f"{console.explain_failure()}.", Status.BAD_INPUT)
    if console.status is None:
        if result.exit_code is None:
            return result
        message = f"the Linux guest ended before its program. Its last messages:\n{console.log}"
        raise CommandError(message, Status.FAILURE)
    code, number = exit_status(console.status)
    message = f"the program was ended by {signal.Signals(number).name}" if number in _NAMED else ""
    return result._replace(exit_code=code, message=message)


_NAMED = frozenset(map(int, signal.Signals)) - {signal.SIGINT, signal.SIGPIPE, signal.SIGTERM}
