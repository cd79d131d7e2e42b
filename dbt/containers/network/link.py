"""A socket that carries frames, each behind its length in four bytes, in an event loop: a card of a VM, or passt.

Who is at its other side is hostile. What it sends is taken a piece at a time, so that others have their turn
between two of them, and what it does not take is lost.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from typing import Final

_SIZE: Final = struct.Struct(">I")
_COUNT: Final = struct.Struct("i")
#: Bytes that are read at once, the longest frame, and bytes that wait for the other side at most.
_PIECE: Final = 1 << 16
_LONGEST: Final = 65_535
MOST_WAITING: Final = 1 << 18
_BUFFER: Final = 1 << 18


def card_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a link. Both return at once from sending and receiving."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in pair:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return pair


class Link:
    """One side of a link. ``take`` gets the frames of a piece, and ``lost`` is called once when the other side has gone
    or sends what is no frame.
    """

    def __init__(
        self, connection: socket.socket, take: Callable[[Sequence[bytes]], None], lost: Callable[[], None]
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._take, self._lost = take, lost
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._waiting = bytearray()
        self._is_open = True
        #: Frames that were lost because the other side did not take them.
        self.dropped = 0
        self._loop.add_reader(connection, self._read)

    def _read(self) -> None:
        try:
            data = self._connection.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._fail()
            return
        self._take(self._frames(self._received + data if self._received else data))

    def _frames(self, received: bytes) -> list[bytes]:
        """Return the complete frames of what was received, and keep the rest."""
        frames: list[bytes] = []
        at, end = 0, len(received)
        while (first := at + _SIZE.size) <= end:
            (size,) = _SIZE.unpack_from(received, at)
            if size > _LONGEST:
                self._fail()
                return frames
            if first + size > end:
                break
            frames.append(received[first : first + size])
            at = first + size
        self._received = received[at:]
        return frames

    @property
    def waiting(self) -> int:
        """The bytes that wait for the other side."""
        return len(self._waiting)

    @property
    def has_unread(self) -> bool:
        """True if the other side has not read all that was sent."""
        if not self._is_open:
            return False
        return bool(self._waiting) or _COUNT.unpack(fcntl.ioctl(self._connection, termios.TIOCOUTQ, bytes(4)))[0] > 0

    def send(self, frame: bytes) -> None:
        """Send a frame, or lose it if too much waits already."""
        if not self._is_open:
            return
        if len(self._waiting) > MOST_WAITING:
            self.dropped += 1
            return
        if not self._waiting:
            self._loop.call_soon(self._write)  # with others that come from the same piece
        self._waiting += _SIZE.pack(len(frame)) + frame

    def _write(self) -> None:
        if not self._is_open or not self._waiting:
            return
        try:
            del self._waiting[: self._connection.send(self._waiting)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._fail()
            return
        if self._waiting:
            self._loop.add_writer(self._connection, self._write)
        else:
            self._loop.remove_writer(self._connection)

    def _fail(self) -> None:
        if self._is_open:
            self.close()
            self._lost()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._connection.close()
            self._waiting.clear()
            self._received = b""
