"""Consoles: where the bytes go that a guest writes to its UART or by semihosting, and where its input comes from.

A read never waits. If nothing has arrived it says so, and the machine reads again between two slices. Therefore an
interrupt or a time limit takes effect while a guest waits for input.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import termios
import time
from typing import Protocol

#: The longest time that a read waits, in seconds.
READ_TIMEOUT_S = 0.01
_BUFFER_SIZE = 1 << 14


class Console(Protocol):
    """The other end of a guest's console. An object with these methods can be given to a machine."""

    def write(self, data: bytes) -> None:
        """Take what the guest wrote to its UART or to standard output."""

    def write_error(self, data: bytes) -> None:
        """Take what the guest wrote to standard error, by semihosting."""

    def read(self, size: int) -> bytes | None:
        """Return up to ``size`` bytes, ``b""`` at the end of the input, or None if nothing has arrived yet."""

    def arrived(self) -> bool:
        """Return True if a read would give at least one byte. Do not wait."""

    @property
    def ended(self) -> bool:
        """True if it is certain that nothing more will arrive."""

    def wait(self, seconds: float) -> None:
        """Return when something has arrived, or after ``seconds``."""

    def flush(self) -> None:
        """Make everything that was written visible. The machine calls it between slices and when it stops."""


def _is_ready(descriptor: int, seconds: float | None, event: int = select.POLLIN) -> bool:
    from dbt.engine.descriptors import is_ready  # a run without input does not ask

    return is_ready(descriptor, seconds, event)


def is_terminal() -> bool:
    """Return True if standard input is a terminal."""
    try:
        return sys.stdin is not None and os.isatty(0)
    except OSError:
        return False


class ConsoleError(Exception):
    """Raised if the host's side of a console fails. The message says how."""


class CaptureConsole:
    """A console in memory, for tests and embedding.

    ``input`` is what the guest has not read yet, ``output`` what it wrote, and ``errors`` what it wrote to standard
    error.
    """

    def __init__(self, input: bytes = b"") -> None:
        self.input = input
        self.output, self.errors = bytearray(), bytearray()

    def write(self, data: bytes) -> None:
        self.output += data

    def write_error(self, data: bytes) -> None:
        self.errors += data

    def read(self, size: int) -> bytes | None:
        data, self.input = self.input[:size], self.input[size:]
        return data

    def arrived(self) -> bool:
        return bool(self.input)

    @property
    def ended(self) -> bool:
        return not self.input

    def wait(self, seconds: float) -> None:
        if not self.input:
            time.sleep(seconds)

    def flush(self) -> None:
        pass


class HostConsole:
    """A console that is the process's own standard streams, byte for byte. The arguments are file descriptors.

    Output is collected and written in large pieces. The machine flushes every few milliseconds, so a terminal shows the
    output without a visible delay.
    """

    def __init__(self, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> None:
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        """Collect ``data``. If an earlier output cannot be written, ConsoleError is raised and ``data`` is not
        taken.
        """
        if len(self._pending) >= _BUFFER_SIZE:
            self.flush()
        self._pending += data

    def write_error(self, data: bytes) -> None:
        self.flush()
        self._write_all(self._stderr, bytearray(data))

    def read(self, size: int) -> bytes | None:
        self.flush()
        try:
            return os.read(self._stdin, size) if _is_ready(self._stdin, READ_TIMEOUT_S) else None
        except BlockingIOError:
            return None
        except OSError:  # Closed: there is no more input.
            return b""

    def arrived(self) -> bool:
        """Return True if there is at least one byte. The end of the input does not count."""
        count = bytearray(4)
        try:
            fcntl.ioctl(self._stdin, termios.FIONREAD, count)
        except (OSError, ValueError):
            return False
        return any(count)

    def wait(self, seconds: float) -> None:
        """Wait for input. At its end, wait all the ``seconds``, although the host reports that a read is possible."""
        if _is_ready(self._stdin, seconds) and not self.arrived():
            time.sleep(seconds)

    @property
    def ended(self) -> bool:
        return _is_ready(self._stdin, 0) and not self.arrived()

    def flush(self) -> None:
        """Write what was collected. What the host does not take is kept for the next time."""
        self._write_all(self._stdout, self._pending)

    def _write_all(self, fd: int, data: bytearray) -> None:
        """Write ``data``, and remove from it what has been written."""
        while data:
            try:
                del data[: os.write(fd, data)]
            except BlockingIOError:
                _is_ready(fd, None, select.POLLOUT)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise ConsoleError(f"the console output cannot be written: {error.strerror}") from None
