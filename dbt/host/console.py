"""Consoles: the bytes that a guest writes to its UART or by semihosting, and those that it reads.

A console never waits: a read that finds nothing yet says so, and the machine asks again between two
slices, so that an interrupt or a time limit is answered while a guest waits for input.
"""

from __future__ import annotations

import fcntl
import os
import select
import termios
import time
from dataclasses import dataclass, field
from typing import Protocol

#: How long a read may hold up the machine, in seconds.
READ_TIMEOUT_S = 0.01
_BUFFER_SIZE = 1 << 14


class Console(Protocol):
    """Where a guest's characters go and come from."""

    def write(self, data: bytes) -> None: ...
    def write_error(self, data: bytes) -> None: ...

    def read(self, size: int) -> bytes | None:
        """Up to ``size`` bytes, ``b""`` at the end of the input, None if there is nothing yet."""

    def arrived(self) -> bool:
        """Whether a read would give at least a byte, without waiting."""

    @property
    def ended(self) -> bool:
        """Whether it is certain that nothing arrives any more."""

    def wait(self, seconds: float) -> None:
        """Return when something has arrived, or after so long."""

    def flush(self) -> None:
        """Make everything visible. The machine calls it between slices and when it stops."""


class ConsoleError(Exception):
    """The host's side of a console failed."""


@dataclass
class CaptureConsole:
    """Keeps what the guest writes; answers reads from ``input``. For tests and embedding."""

    input: bytes = b""
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)

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
    """The process's own standard streams, byte for byte.

    Output is collected and written in large pieces; as the machine flushes every few milliseconds,
    a terminal shows it at once.
    """

    def __init__(self, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> None:
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        """If the host refuses what was written before, ``data`` has not been taken."""
        if len(self._pending) >= _BUFFER_SIZE:
            self.flush()
        self._pending += data

    def write_error(self, data: bytes) -> None:
        self.flush()
        self._write_all(self._stderr, bytearray(data))

    def read(self, size: int) -> bytes | None:
        self.flush()
        try:
            ready, _, _ = select.select([self._stdin], [], [], READ_TIMEOUT_S)
            return os.read(self._stdin, size) if ready else None
        except BlockingIOError:
            return None
        except (OSError, ValueError):  # Closed: there is no more input.
            return b""

    def arrived(self) -> bool:
        """The end of the input, unlike a byte, is nothing that arrives."""
        count = bytearray(4)
        try:
            fcntl.ioctl(self._stdin, termios.FIONREAD, count)
        except (OSError, ValueError):
            return False
        return any(count)

    def wait(self, seconds: float) -> None:
        """At the end of the input nothing arrives any more, though the host says that there is something to read."""
        if self._readable(seconds) and not self.arrived():
            time.sleep(seconds)

    @property
    def ended(self) -> bool:
        return self._readable(0) and not self.arrived()

    def _readable(self, seconds: float) -> bool:
        """Whether a read would not wait, after so long at most: there is something, or the end."""
        try:
            return bool(select.select([self._stdin], [], [], seconds)[0])
        except (OSError, ValueError):
            return True

    def flush(self) -> None:
        """What the host does not take stays for the next time."""
        self._write_all(self._stdout, self._pending)

    def _write_all(self, fd: int, data: bytearray) -> None:
        """Take from ``data`` what has been written."""
        while data:
            try:
                del data[: os.write(fd, data)]
            except BlockingIOError:
                select.select([], [fd], [])
            except BrokenPipeError:
                raise
            except OSError as error:
                raise ConsoleError(f"the console output cannot be written: {error.strerror}") from None
