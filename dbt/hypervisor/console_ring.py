"""The console of a domain: what its guest wrote last, and what is to be typed. Any thread may read and type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

#: How much of its output a domain keeps, in bytes.
DEFAULT_RING = 1 << 16
#: How much input may wait for a guest, in bytes.
_MOST_INPUT = 1 << 20


class ConsoleFull(ValueError):
    """Raised if a guest has not read so much of what was typed that there is no room for more."""


class ConsoleRing:
    """The other end of a guest's console (:class:`dbt.host.console.Console`), which keeps the last ``size`` bytes.

    ``typed`` is called after each input, by whoever typed.
    """

    def __init__(self, size: int = DEFAULT_RING, typed: Callable[[], None] | None = None) -> None:
        self._size = size
        self._typed = typed
        self._output = bytearray()
        self._written = 0
        self._input = bytearray()
        self._changed = Condition()
        #: Up to where what was written is nobody's any more, if that is not what has been read.
        self.kept: int | None = None
        self._listeners: list[Callable[[], None]] = []

    # -- for people ----------------------------------------------------------------------------

    @property
    def output(self) -> bytes:
        """The last bytes that the guest wrote."""
        with self._changed:
            return bytes(self._output[-self._size :])

    @property
    def written(self) -> int:
        """How many bytes the guest has written since it was defined."""
        return self._written

    def read_from(self, position: int) -> tuple[bytes, int]:
        """Return what was written from ``position`` on, which counts all bytes, and the position behind it.

        What is older than the ring is missing.
        """
        with self._changed:
            kept_from = self._written - len(self._output)
            return bytes(self._output[max(position - kept_from, 0) :]), self._written

    def begin_at(self, position: int, recent: bytes) -> None:
        """Take ``recent`` as what was written from ``position`` on. Nothing has been written here yet."""
        with self._changed:
            self._output[:] = recent
            self._written = position + len(recent)

    def wait_for(self, text: bytes, seconds: float) -> bool:
        """Wait until the ring holds ``text``, at most ``seconds``. Return whether it does. It is for other threads than
        the one that runs the host.
        """
        with self._changed:
            return self._changed.wait_for(lambda: text in self._output, seconds)

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Have ``listener`` called after each output while the block runs, by the thread that executes the guest."""
        with self._changed:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._changed:
                self._listeners.remove(listener)

    def send(self, data: bytes) -> None:
        """Type ``data``. Raise ConsoleFull if the guest does not read what was typed before."""
        with self._changed:
            if len(self._input) + len(data) > _MOST_INPUT:
                raise ConsoleFull(f"the guest has not read {len(self._input)} bytes of input, so there is no room")
            self._input += data
            self._changed.notify_all()
        if self._typed is not None:
            self._typed()

    # -- implements dbt.host.console.Console ----------------------------------------------------

    def write(self, data: bytes) -> None:
        with self._changed:
            self._output += data
            self._written += len(data)
            if len(self._output) > 2 * self._size:
                del self._output[: -self._size]
            self._changed.notify_all()
            for listener in self._listeners:
                listener()

    def write_error(self, data: bytes) -> None:
        self.write(data)

    def note_lost(self, count: int) -> None:
        """Note that the guest has written so many bytes more, which are gone."""
        with self._changed:
            if count:
                self._output.clear()
            self._written += count

    @property
    def unread(self) -> int:
        """How many bytes of input the guest has not read."""
        return len(self._input)

    def read(self, size: int) -> bytes | None:
        with self._changed:
            data = bytes(self._input[:size])
            del self._input[:size]
        return data or None

    def arrived(self) -> bool:
        return bool(self._input)

    @property
    def ended(self) -> bool:
        """False: somebody may type at any time."""
        return False

    def wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(self.arrived, seconds)

    def flush(self) -> None:
        """Nothing is kept back."""


def default_ring(typed: Callable[[], None]) -> ConsoleRing:
    """Return the console of a domain about which nothing else is said."""
    return ConsoleRing(typed=typed)
