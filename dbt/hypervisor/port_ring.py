"""The console of a domain whose guest has a port in place of one: a stream of which no byte may be missing.

What the kernel of the guest says at its UART is no part of the stream. The two ends of the stream agree on how much may
be on its way, so that the rings never overflow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from dbt.hypervisor.console_ring import ConsoleFull, ConsoleRing

#: How many bytes from the guest may be on their way.
PORT_RING: Final = 8 << 20
#: How many bytes for the guest may wait, and how many of the kernel's messages are kept.
_MOST_WAITING: Final = 4 << 20
_LOG: Final = 4096


class PortRing(ConsoleRing):
    """The ring of the process that executes the guest."""

    def __init__(self, typed: Callable[[], None] | None = None) -> None:
        super().__init__(PORT_RING, typed)
        self._log = bytearray()

    @property
    def log(self) -> str:
        """The last messages of the guest's kernel."""
        return self._log.decode("ascii", "replace")

    def write_error(self, data: bytes) -> None:
        self._log += data
        del self._log[:-_LOG]

    def forget(self, position: int) -> None:
        """Keep nothing that was written before ``position``. Somebody has it."""
        with self._changed:
            kept_from = self._written - len(self._output)
            del self._output[: max(position - kept_from, 0)]


class PieceRing(PortRing):
    """The ring of the host. What is sent arrives in whole pieces, or not at all if the host ends.

    ``take`` is called with each output, by the thread that executes the guest; nothing of it is kept. ``lose`` is
    called with the number of bytes that are missing, as happens to a host that takes over a domain. The process that
    executes the guest keeps what it has written from ``kept`` on, for that.
    """

    def __init__(self, typed: Callable[[], None] | None = None) -> None:
        super().__init__(typed)
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self.take: Callable[[bytes], None] = lambda data: None
        self.lose: Callable[[int], None] = lambda count: None

    def note_lost(self, count: int) -> None:
        super().note_lost(count)
        if count:
            self.lose(count)

    def write(self, data: bytes) -> None:
        with self._changed:
            self._written += len(data)
        self.take(data)

    def send(self, data: bytes) -> None:
        """Send a piece, which is at most as large as what is in a process at once. Raise ConsoleFull."""
        with self._changed:
            if self._waiting + len(data) > _MOST_WAITING:
                raise ConsoleFull(f"the guest has not read {self._waiting} bytes of input, so there is no room")
            self._pieces.append(data)
            self._waiting += len(data)
            self._changed.notify_all()
        if self._typed is not None:
            self._typed()

    @property
    def unread(self) -> int:
        return self._waiting

    def read(self, size: int) -> bytes | None:
        with self._changed:
            taken: list[bytes] = []
            while self._pieces and len(self._pieces[0]) <= size:
                taken.append(self._pieces.popleft())
                size -= len(taken[-1])
            self._waiting -= sum(map(len, taken))
        return b"".join(taken) or None

    def arrived(self) -> bool:
        return bool(self._pieces)
