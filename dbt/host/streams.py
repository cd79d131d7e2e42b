"""The streams behind semihosting handles: the console, a file in the jail, and the feature bytes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from dbt.host.journal import HostJournal

#: The last position in a file that the host can name.
_LAST_POSITION = (1 << 63) - 1


class InputPending(Exception):
    """Raised if the console has no input yet. The operation must be repeated."""


class Opened(NamedTuple):
    """What the guest opened: the name and SYS_OPEN's mode."""

    name: bytes
    mode: int


class Stream(Protocol):
    """The stream behind an open handle. Each failure is an OSError with its errno. Sizes and positions are in bytes."""

    tty: bool
    opened: Opened

    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> int: ...
    def seek(self, position: int) -> None: ...
    def length(self) -> int: ...
    def version(self) -> int: ...
    @property
    def position(self) -> int:
        """Where the next read or write is, in bytes from the beginning; 0 for what has no positions."""
        ...

    def hold(self) -> None:
        """Let one more :meth:`close` be needed to close it."""

    def close(self) -> None: ...


def _unsupported() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


class ConsoleStream:
    """The file ``:tt``. To the guest it is a terminal, whatever the host has connected."""

    tty = True
    position = 0

    def __init__(
        self, opened: Opened, receive: Callable[[int], bytes | None], transmit: Callable[[bytes], None] | None
    ) -> None:
        """``receive`` returns input as :meth:`dbt.vm.input.InputSource.read` does. Without ``transmit`` it is for
        reading.
        """
        self.opened = opened
        self._receive = receive
        self._transmit = transmit

    def read(self, size: int) -> bytes:
        if self._transmit is not None:
            raise _unsupported()
        data = self._receive(size)
        if data is None:
            raise InputPending
        return data

    def write(self, data: bytes) -> int:
        if self._transmit is None:
            raise _unsupported()
        self._transmit(data)
        return len(data)

    def seek(self, position: int) -> None:
        raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))

    def length(self) -> int:
        return 0

    def version(self) -> int:
        return 0

    def hold(self) -> None:
        pass

    def close(self) -> None:
        pass


class HostFile:
    """A file of the host, by its descriptor. It is closed when each holder has closed it; :meth:`hold` adds one."""

    def __init__(self, descriptor: int, appends: bool = False) -> None:
        """``appends``: whether what is written goes to the end."""
        self._descriptor, self._appends = descriptor, appends
        self._holders = 1

    def hold(self) -> None:
        """Let one more :meth:`close` be needed. A file that is closed stays closed."""
        if self._holders:
            self._holders += 1

    @property
    def is_closed(self) -> bool:
        return not self._holders

    def read(self, position: int, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (piece := os.pread(self._descriptor, size - len(data), position + len(data))):
            data += piece
        return bytes(data)

    def write(self, position: int, data: memoryview) -> tuple[int, int]:
        """Write the beginning of ``data``. Return how many bytes that is, and where the file's position is then."""
        count = os.pwrite(self._descriptor, data, position)
        return count, self.length() if self._appends else position + count

    def length(self) -> int:
        return os.fstat(self._descriptor).st_size

    def version(self) -> int:
        return os.fstat(self._descriptor).st_mtime_ns

    def close(self) -> None:
        if self._holders:
            self._holders -= 1
            if not self._holders:
                os.close(self._descriptor)
                self._descriptor = -1


class FileStream:
    """A file of the host. What the guest learns of it is noted in the journal.

    The position is kept here, and not by the host, so that it goes back with the machine.
    """

    tty = False

    def __init__(self, opened: Opened, file: HostFile, journal: HostJournal) -> None:
        """Take over a holding of ``file``."""
        self.opened = opened
        self.file = file
        self._journal = journal
        self.position = 0

    def hold(self) -> None:
        self.file.hold()

    def read(self, size: int) -> bytes:
        data = self._journal.ask("a read", lambda: self.file.read(self.position, size))
        self.position += len(data)
        return data

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._write(view) :]
        return len(data)

    def _write(self, data: memoryview) -> int:
        count, self.position = self._journal.ask("a write", lambda: self.file.write(self.position, data))
        return count

    def seek(self, position: int) -> None:
        if not 0 <= position <= _LAST_POSITION:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.position = position

    def length(self) -> int:
        return self._journal.ask("a look at a length", self.file.length)

    def version(self) -> int:
        """Return a number that is another one when the content has changed: when it was changed last, in
        nanoseconds.
        """
        return self.file.version()

    def close(self) -> None:
        self.file.close()


class FixedStream:
    """The file ``:semihosting-features``, whose bytes can only be read."""

    tty = False

    def __init__(self, opened: Opened, data: bytes) -> None:
        self.opened = opened
        self.data = data
        self.position = 0

    def read(self, size: int) -> bytes:
        piece = self.data[self.position : self.position + size]
        self.position += len(piece)
        return piece

    def write(self, data: bytes) -> int:
        raise _unsupported()

    def seek(self, position: int) -> None:
        self.position = position

    def length(self) -> int:
        return len(self.data)

    def version(self) -> int:
        return 0

    def hold(self) -> None:
        pass

    def close(self) -> None:
        pass
