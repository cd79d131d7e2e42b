"""What a UART sends: a ring that Python and native code append bytes to, and that is emptied between two slices."""

from __future__ import annotations

from array import array
from collections.abc import Callable

#: The bytes that a ring can hold. It begins with a word, their number.
RING_BYTES = 4096
_HEADER_BYTES = 8


def unplugged(sent: object) -> None:
    """Discard what is sent on a serial line that is not connected."""


def send_all(transmit: Callable[[int], None], data: bytes) -> None:
    """Send bytes, at once if that can be."""
    if isinstance(transmit, OutputRing):
        transmit.send(data)
        return
    for byte in data:
        transmit(byte)


def room_of(transmit: Callable[[int], None]) -> int:
    """Return how many bytes can be sent without Python, by :mod:`dbt.backend.device_methods`."""
    return transmit.room if isinstance(transmit, OutputRing) else 0


class OutputRing:
    """Bytes in the order in which they were sent. Native code leaves a byte to Python if the ring is full."""

    def __init__(self) -> None:
        self._words = array("q", bytes(_HEADER_BYTES + RING_BYTES))
        self._bytes = memoryview(self._words).cast("B")[_HEADER_BYTES:]
        self._earlier = bytearray()  # what did not find room in the ring

    @property
    def address(self) -> int:
        """The host address of the ring."""
        return self._words.buffer_info()[0]

    @property
    def room(self) -> int:
        """The bytes that the ring still has room for."""
        return RING_BYTES - self._words[0]

    def __call__(self, character: int) -> None:
        """Append a byte."""
        count = self._words[0]
        if count == RING_BYTES:
            self._earlier = self._collect()
            count = 0
        self._bytes[count] = character
        self._words[0] = count + 1

    def send(self, data: bytes) -> None:
        """Append bytes."""
        count = self._words[0]
        if count + len(data) > RING_BYTES:
            self._earlier = self._collect()
            self._earlier += data
            return
        self._bytes[count : count + len(data)] = data
        self._words[0] = count + len(data)

    def _collect(self) -> bytearray:
        self._earlier += self._bytes[: self._words[0]]
        self._words[0] = 0
        return self._earlier

    def take(self) -> bytes:
        """Return everything that was appended, and keep nothing of it."""
        if not self._words[0] and not self._earlier:
            return b""
        taken = bytes(self._collect())
        self._earlier.clear()
        return taken
