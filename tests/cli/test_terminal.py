"""The terminal in raw mode: what reaches the guest, and that it is given back, through a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dbt.host.terminal import TerminalConsole, raw_terminal
from tests.assembler import assemble
from tests.cli.command import COMMAND, environment
from tests.qmp.client import QmpClient
from tests.vm.programs import EXIT
from tests.waiting import BOUND_S, wait_until

#: An uncompressed kernel that sends back what it reads by semihosting, each character in brackets; 'q' ends it.
ECHO = assemble(
    f"""
        mov r5, #0x5b ; bl put
        loop: mov r0, #7 ; svc 0x123456
        mov r5, r0 ; bl put
        cmp r5, #0x71 ; bne loop
        mov r2, #7
        {EXIT}
        put: sub r1, sp, #16 ; str r5, [r1] ; mov r0, #3 ; svc 0x123456 ; bx lr
    """
)


@dataclass
class Terminal:
    """Both ends of a pseudo-terminal."""

    keyboard: int
    line: int

    def __post_init__(self) -> None:
        self.before = termios.tcgetattr(self.line)

    def press(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    def expect(self, text: bytes) -> bytes:
        seen, deadline = b"", time.monotonic() + BOUND_S
        while text not in seen:
            ready, _, _ = select.select([self.keyboard], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} was to come, and there was {seen!r}"
            seen += os.read(self.keyboard, 4096)
        return seen

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self.line)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def as_before(self) -> bool:
        return termios.tcgetattr(self.line) == self.before


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    keyboard, line = pty.openpty()
    yield Terminal(keyboard, line)
    os.close(keyboard)
    os.close(line)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "Image"
    path.write_bytes(ECHO)
    return path


def start(terminal: Terminal, *arguments: object, directory: Path | None = None) -> subprocess.Popen[bytes]:
    # Who runs the tests under nohup ignores SIGHUP, and every process hands that on.
    plain = ["env", "--default-signal=HUP"]
    size = () if "--restore" in arguments else ("--memory", "16M")
    command = [*plain, *COMMAND, "run", *size, "--tier", "reference", *map(str, arguments)]
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.line)
    return subprocess.Popen(command, env=environment(), cwd=directory, start_new_session=True, **streams)


def test_keys_go_to_the_kernel(terminal: Terminal, kernel: Path) -> None:
    with start(terminal, "--kernel", kernel, "--semihosting", "on") as process:
        terminal.expect(b"[")
        assert terminal.raw
        terminal.press(b"a\x03\x1a\x04\r\x01\x01\x01z-")
        assert terminal.expect(b"-") == b"a\x03\x1a\x04\r\x01-"
        terminal.press(b"\x01h")
        terminal.expect(b"Ctrl-A X       end the run\r\n")
        terminal.press(b"q")
        assert process.wait(BOUND_S) == 7
    assert terminal.as_before


def test_ctrl_a_x_ends_the_run(terminal: Terminal, kernel: Path) -> None:
    kernel.write_bytes(assemble("mov r0, #3 ; adr r1, word ; svc 0x123456 ; b . ; word: .word 0x5b"))
    with start(terminal, "--kernel", kernel, "--semihosting", "on") as process:
        terminal.expect(b"[")
        terminal.press(b"xyz\x01")
        terminal.press(b"x")
        terminal.expect(b"interrupted after")
        assert process.wait(BOUND_S) == 130
    assert terminal.as_before


def test_ctrl_a_x_ends_a_run_that_waits_for_a_debugger(terminal: Terminal, kernel: Path) -> None:
    with start(terminal, "--kernel", kernel, "--gdb", "0", "--wait") as process:
        terminal.expect(b"target remote")
        terminal.press(b"\x01x")
        terminal.expect(b"interrupted after 0 instructions")
        assert process.wait(BOUND_S) == 130
    assert terminal.as_before


def test_the_keys_of_a_run_that_a_monitor_has_paused(terminal: Terminal, kernel: Path, tmp_path: Path) -> None:
    with start(
        terminal, "--kernel", kernel, "--qmp", f"unix:{tmp_path}/m", "--wait", "--save", tmp_path / "a"
    ) as process:
        with QmpClient(f"{tmp_path}/m") as client:
            terminal.press(b"\x01s")
            terminal.expect(b"at instruction 0")
            assert client.ask("query-status")["status"] == "prelaunch"
            terminal.press(b"\x01x")
            terminal.expect(b"interrupted after 0 instructions")
            assert client.receive() is None
        assert process.wait(BOUND_S) == 130
    assert terminal.as_before


def test_ctrl_a_s_saves_and_goes_on(terminal: Terminal, kernel: Path, tmp_path: Path) -> None:
    semihosting = ("--kernel", kernel, "--semihosting", "on")
    with start(terminal, *semihosting, "--save", tmp_path / "a") as process:
        terminal.expect(b"[")
        terminal.press(b"\x01s")
        terminal.expect(b"saved to ")
        terminal.press(b"xq")
        assert terminal.expect(b"q").endswith(b"xq")
        assert process.wait(BOUND_S) == 7
    with start(terminal, "--restore", tmp_path / "a") as process:  # a kernel, so its console is raw
        wait_until(lambda: terminal.raw, "the terminal is raw")
        terminal.press(b"yq")
        assert terminal.expect(b"q").endswith(b"yq")
        assert process.wait(BOUND_S) == 7
    assert terminal.as_before


def test_ctrl_a_s_without_a_name_makes_one_up(terminal: Terminal, kernel: Path, tmp_path: Path) -> None:
    with start(terminal, "--kernel", kernel, "--semihosting", "on", directory=tmp_path) as process:
        terminal.expect(b"[")
        for _ in range(2):
            terminal.press(b"\x01S")
            terminal.expect(b"go on with `dbt run --restore dbt-")
        terminal.press(b"q")
        assert process.wait(BOUND_S) == 7
    names = [path.name for path in tmp_path.iterdir() if path.name.startswith("dbt-")]
    assert len(names) == 2
    assert all(name.endswith(".snapshot") for name in names)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(terminal: Terminal, kernel: Path, number: signal.Signals) -> None:
    with start(terminal, "--kernel", kernel, "--semihosting", "on") as process:
        terminal.expect(b"[")
        assert terminal.raw
        process.send_signal(number)
        assert process.wait(BOUND_S) == (130 if number == signal.SIGINT else -number)
    assert terminal.as_before


@pytest.mark.parametrize(
    "number",
    [
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGRTMIN),
        *(signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL),
    ],
)
def test_a_process_that_dies_leaves_the_terminal_as_it_was(
    terminal: Terminal, kernel: Path, number: signal.Signals
) -> None:
    with start(terminal, "--kernel", kernel, "--semihosting", "on") as process:
        terminal.expect(b"[")
        assert terminal.raw
        process.send_signal(number)
        assert process.wait(30) == -number
    deadline = time.monotonic() + 30
    while not terminal.as_before:  # by a process that has seen this one die
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_line_console_is_asked_for(terminal: Terminal, kernel: Path) -> None:
    with start(terminal, "--kernel", kernel, "--semihosting", "on", "--console", "line") as process:
        terminal.expect(b"[")
        assert terminal.as_before
        terminal.press(b"q\n")
        assert process.wait(BOUND_S) == 7


def test_a_program_has_lines_unless_asked(terminal: Terminal, echo: Path) -> None:
    with start(terminal, "--console", "raw", echo) as process:
        wait_until(lambda: terminal.raw, "the terminal to be raw")
        assert process.poll() is None
        terminal.press(b"\x03")
        terminal.expect(b"\x03")
        terminal.press(b"\x01X")
        assert process.wait(BOUND_S) == 130
    with start(terminal, echo) as process:
        terminal.press(b"words\n\x04")
        assert process.wait(BOUND_S) == 0
    assert terminal.as_before


#: A shell with one job: it reports each time that the job stops, and goes on with it.
SHELL = """
import fcntl, os, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, job.pid)
print(job.pid, file=sys.stderr, flush=True)
while True:
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break
    os.tcsetpgrp(0, os.getpgrp())
    print("stopped", file=sys.stderr, flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, job.pid)
    os.kill(job.pid, signal.SIGCONT)
print("status", os.waitstatus_to_exitcode(status), file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_a_stop_gives_the_terminal_back_for_its_time(terminal: Terminal, kernel: Path, number: signal.Signals) -> None:
    command = [
        *COMMAND,
        "run",
        "--memory",
        "16M",
        "--tier",
        "reference",
        "--kernel",
        str(kernel),
        "--semihosting",
        "on",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", SHELL, *command],
        stdin=terminal.line,
        stdout=terminal.line,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    ) as shell:
        assert shell.stderr is not None
        job = int(shell.stderr.readline())
        terminal.expect(b"[")
        assert terminal.raw
        os.kill(job, number)
        assert shell.stderr.readline() == b"stopped\n"
        if number == signal.SIGTSTP:
            assert terminal.as_before
        else:  # nobody could do anything, but a shell may
            termios.tcsetattr(terminal.line, termios.TCSANOW, terminal.before)
        terminal.press(b"\n")
        wait_until(lambda: terminal.raw, "the terminal to be raw")
        terminal.press(b"\x03q")
        terminal.expect(b"\x03q")
        assert shell.stderr.readline() == b"status 7\n"
    assert terminal.as_before


def test_raw_needs_a_terminal(kernel: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run", "--console", "raw", "--kernel", str(kernel)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 120 and b"not a terminal" in done.stderr


# -- in this process -----------------------------------------------------------------------------


def test_an_exception_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP, signal.SIGCONT)]
    with pytest.raises(RuntimeError), raw_terminal(terminal.line):
        assert terminal.raw and termios.tcgetattr(terminal.line)[1] & termios.OPOST
        raise RuntimeError
    assert terminal.as_before
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP, signal.SIGCONT)]


def test_a_forked_process_leaves_the_terminal_alone(terminal: Terminal) -> None:
    with raw_terminal(terminal.line):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert terminal.raw


def test_the_console_of_keys(terminal: Terminal) -> None:
    ended: list[bool] = []
    console = TerminalConsole(
        lambda: ended.append(True), lambda: None, lambda: None, terminal.line, terminal.line, terminal.line
    )
    with raw_terminal(terminal.line):
        assert not console.arrived() and console.read(5) is None
        console.wait(0.001)
        terminal.press(b"\x01")
        console.wait(0.05)
        assert not console.arrived() and console.read(5) is None  # an escape is nothing for the guest
        terminal.press(b"\x01abc")
        console.wait(10)
        assert console.arrived() and console.read(2) == b"\x01a" and console.read(5) == b"bc"
        terminal.press(b"\x01x")
        while not ended:
            console.flush()
    hung = TerminalConsole(lambda: None, lambda: None, lambda: None, os.open(os.devnull, os.O_RDONLY))
    assert hung.read(1) == b"" and not hung.arrived()
    hung.wait(0.001)


# -- what a guest waits ----------------------------------------------------------------------------


def alarm(microseconds: int) -> bytes:
    """A kernel that waits for a timer, and ends."""
    return assemble(
        f"""
        ldr r6, =0x101e2000 ; ldr r0, ={microseconds} ; str r0, [r6] ; mov r1, #0xa3 ; str r1, [r6, #8]
        ldr r5, =0x10140000 ; mov r1, #0x10 ; str r1, [r5, #0x10]
        mcr p15, #0, r0, c7, c0, #4 ; mov r2, #5
        {EXIT}
    """
    )


@pytest.mark.parametrize("options", [(), ("--realtime", "on")])
def test_on_a_terminal_time_passes(terminal: Terminal, tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "Image"
    path.write_bytes(alarm(500_000))
    started = time.monotonic()
    assert start(terminal, "--kernel", path, "--semihosting", "on", *options).wait(BOUND_S) == 5
    assert time.monotonic() - started >= 0.5


def test_on_a_terminal_time_jumps_when_it_is_told_to(terminal: Terminal, tmp_path: Path) -> None:
    """An hour ends before the test does."""
    path = tmp_path / "Image"
    path.write_bytes(alarm(3_600_000_000))
    assert start(terminal, "--kernel", path, "--semihosting", "on", "--realtime", "off").wait(BOUND_S) == 5
    assert terminal.as_before
