"""The user's terminal in raw mode. Every key goes to the guest, except for a few after Ctrl-A.

Raw mode is that of QEMU (chardev/char-stdio.c): no echo, no line editing and no signals from keys. Output is processed
as usual, so that messages of dbt look right. However the process ends or stops, the terminal is restored. Handlers do
so for signals that end or stop a process. Where no handler can be called, as after SIGKILL or a crash, a process does
so that waits for the end of this one. Only SIGSTOP leaves no time for that.
"""

from __future__ import annotations

import os
import signal
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from dbt.engine.descriptors import is_ready
from dbt.host.console import READ_TIMEOUT_S, HostConsole

_ESCAPE = 0x01  # Ctrl-A
_PIECE = 4096
_HELP = b"""
Ctrl-A X       end the run
Ctrl-A S       save the machine to a file, and go on
Ctrl-A P       press the power key of the board
Ctrl-A H       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest
"""
#: Signals that are a crash: Python would come back to what crashed before it calls a handler.
_CRASHES: set[int] = {
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS),
}
#: Signals that nobody can handle, or that do nothing unless somebody handles them.
_LEFT_ALONE: set[int] = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGTTIN, signal.SIGTTOU),  # for a process in the background, which has no right to the terminal
}

Handler = Callable[[int, FrameType | None], object] | int | None


class TerminalConsole(HostConsole):
    """A console of the standard streams whose standard input is a terminal in raw mode.

    Ctrl-A X calls ``on_end``, Ctrl-A S ``on_save``, and Ctrl-A P ``on_power``. All are called during a run.
    """

    def __init__(
        self,
        on_end: Callable[[], None],
        on_save: Callable[[], None],
        on_power: Callable[[], None],
        stdin: int = 0,
        stdout: int = 1,
        stderr: int = 2,
    ) -> None:
        super().__init__(stdin, stdout, stderr)
        self._on_end = on_end
        self._on_save = on_save
        self._on_power = on_power
        self._keys = bytearray()
        self._escaped = False
        self._ended = False

    def read(self, size: int) -> bytes | None:
        self.flush()
        if not self._keys and not self._ended:
            self._wait(READ_TIMEOUT_S)
            self._take_keys()
        if not self._keys:
            return b"" if self._ended else None
        data = bytes(self._keys[:size])
        del self._keys[:size]
        return data

    def arrived(self) -> bool:
        self._take_keys()
        return bool(self._keys)

    @property
    def ended(self) -> bool:
        return self._ended and not self._keys

    def wait(self, seconds: float) -> None:
        """Wait without reading the keys, so that none is lost if the handler of a signal raises."""
        if not self._keys:
            self._wait(seconds)

    def flush(self) -> None:
        """Show the output, and look for keys: Ctrl-A X must also end a guest that never reads."""
        super().flush()
        self._take_keys()

    def _wait(self, seconds: float) -> None:
        if self._ended:
            time.sleep(seconds)
        else:
            is_ready(self._stdin, seconds)

    def _take_keys(self) -> None:
        while not self._ended:
            try:
                if not is_ready(self._stdin, 0):
                    return
                data = os.read(self._stdin, _PIECE)
            except BlockingIOError:
                return
            except OSError:  # The terminal is gone.
                data = b""
            self._ended = not data
            for key in data:
                self._press(key)

    def _press(self, key: int) -> None:
        if not self._escaped:
            self._escaped = key == _ESCAPE
            if not self._escaped:
                self._keys.append(key)
            return
        self._escaped = False
        match chr(key).lower():
            case "x":
                self._on_end()
            case "s":
                self._on_save()
            case "p":
                self._on_power()
            case "h" | "?":
                self._write_all(self._stderr, bytearray(_HELP))
            case "\x01":
                self._keys.append(key)
            case _:
                pass  # as QEMU does with keys that mean nothing


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Keep the terminal ``fd`` in raw mode while the block runs and the process is in the foreground."""
    terminal = _Terminal(fd)
    before: dict[int, Handler] = {}
    numbers = {int(number) for number in signal.valid_signals()} - _CRASHES - _LEFT_ALONE
    try:
        for number in numbers:
            if signal.getsignal(number) == signal.SIG_DFL:  # else it is ignored, as by nohup, or somebody else's
                before[number] = signal.signal(number, terminal.handle)
        terminal.make_raw()
        with _watched(terminal):
            yield
    finally:
        terminal.restore()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watched(terminal: _Terminal) -> Iterator[None]:
    """Have a process restore the terminal if this one ends within the block, whatever ends it.

    Where the host has no room for a process, a crash leaves the terminal raw.
    """
    process = os.getpid()
    try:
        lifetime = os.pidfd_open(process)  # becomes readable when this process ends
    except OSError:
        yield
        return
    watcher = _fork_watcher(terminal, lifetime)
    os.close(lifetime)
    try:
        yield
    finally:
        if watcher is not None and os.getpid() == process:
            os.kill(watcher, signal.SIGKILL)
            os.waitpid(watcher, 0)


def _fork_watcher(terminal: _Terminal, lifetime: int) -> int | None:
    try:
        watcher = os.fork()
    except OSError:
        return None
    if watcher:
        return watcher
    try:
        os.setsid()  # a signal to all of the job is not for this process
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        first, second = sorted((terminal.fd, lifetime))
        # Whoever waits for the end of the guest's output must not wait for this process.
        for low, high in ((0, first), (first + 1, second), (second + 1, os.sysconf("SC_OPEN_MAX"))):
            if low < high:  # os.closerange(0, 0) closes everything
                os.closerange(low, high)
        is_ready(lifetime, None)
        terminal.restore_after_crash()
    finally:
        os._exit(0)


class _Terminal:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._process = os.getpid()
        self._saved = termios.tcgetattr(fd)
        self._raw = False

    def make_raw(self) -> None:
        """Set raw mode. In the background that would stop the process, so it waits for SIGCONT."""
        if self._in_background():
            return
        with suppress(OSError, termios.error):
            termios.tcsetattr(self.fd, termios.TCSANOW, _raw_mode(termios.tcgetattr(self.fd)))
            self._raw = True

    def _in_background(self) -> bool:
        try:
            return os.tcgetpgrp(self.fd) != os.getpgrp()
        except OSError:  # It is not the terminal that controls this process, and does not stop it.
            return False

    def restore(self) -> None:
        if self._raw and os.getpid() == self._process:
            with suppress(OSError, termios.error):
                termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)
            self._raw = False

    def restore_after_crash(self) -> None:
        """In another process, when this one has ended: restore the terminal if it is still in our raw mode."""
        with suppress(OSError, termios.error):
            if termios.tcgetattr(self.fd) == _raw_mode(self._saved):
                termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Restore the terminal and do what the signal does by default. A forked process only does the latter."""
        if number == signal.SIGCONT:
            if os.getpid() == self._process:
                self.make_raw()
            return
        self.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Only a stop comes here, when the process goes on. SIGCONT has its own handler for the rest.
        signal.signal(number, self.handle)


def _raw_mode(mode: list[Any]) -> list[Any]:
    """The raw mode that goes with a mode, both as termios has them."""
    mode = [*mode[:6], list(mode[6])]
    mode[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    mode[1] |= termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    return mode
