"""The sockets of the server: it listens, has one client at a time, and refuses further ones with a clear word."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from dbt.engine import descriptors
from dbt.gdb.packets import PacketReader, Signal, framed

#: The seconds for which a client may be slow to take an answer, until it counts as gone.
SEND_TIMEOUT_S = 10.0
_REFUSAL = b"+" + framed(b"E.another debugger is connected to this machine, which has one at a time")
#: The seconds for which a refused client may take to read that, and how many such clients there are at most.
_REFUSED_S, _MOST_REFUSED = 1.0, 8
_READ_SIZE = 1 << 16
#: What a debugger can begin with. A request of a web browser, which any page can have it send to this host, cannot.
_FIRST = (b"+", b"-", b"$", b"\x03")
_NOT_ACKNOWLEDGED = (Signal.INTERRUPT, Signal.RESEND)


class ClientGone(Exception):
    """Raised if the client has closed the connection, or does not take what is sent."""


class Client:
    """A connected client, which sends packets and takes answers."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(SEND_TIMEOUT_S)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = PacketReader()
        self._is_known = False  # what has come so far looks like the protocol
        self._last = b""
        self.acknowledges = True

    def fileno(self) -> int:
        return self._connection.fileno()

    def receive(self) -> list[bytes | Signal]:
        """Return what has come, acknowledged. Nothing is waited for, if the descriptor is ready. Raise ClientGone.

        However often the client asks for the last packet again, it gets that once: it could ask in a byte for 32 KiB.
        """
        try:
            data = self._connection.recv(_READ_SIZE)
        except OSError as error:
            raise ClientGone from error
        if not data or not (self._is_known or data.startswith(_FIRST)):
            raise ClientGone
        self._is_known = True
        found = list(self._reader.feed(data))
        if Signal.DAMAGED in found and not self.acknowledges:
            raise ClientGone  # there is no way to ask for the packet again
        answers = b"".join(b"-" if one is Signal.DAMAGED else b"+" for one in found if one not in _NOT_ACKNOWLEDGED)
        self._transmit(answers * self.acknowledges + self._last * (Signal.RESEND in found))
        return [one for one in found if one is Signal.INTERRUPT or isinstance(one, bytes)]

    def send(self, body: bytes) -> None:
        """Send a packet. Raises ClientGone."""
        self._last = framed(body)
        self._transmit(self._last)

    def _transmit(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise ClientGone from error

    def close(self) -> None:
        self._connection.close()


class Door:
    """The listening socket, and those who were refused at it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        listener.setblocking(False)
        self._refused: list[tuple[float, socket.socket]] = []

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> Client | None:
        """Return the client that has come, or None if it has gone again."""
        connection = self._next()
        return None if connection is None else Client(connection)

    def refuse(self) -> None:
        """Send those who have come away."""
        while (connection := self._next()) is not None:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.send(_REFUSAL)
                connection.shutdown(socket.SHUT_WR)  # what it has sent is unread: to close now would lose the refusal
            self._refused.append((time.monotonic() + _REFUSED_S, connection))
        self.forget_refused()

    def forget_refused(self) -> None:
        """Close the connections of those who had the time to read that they are refused."""
        now, refused = time.monotonic(), self._refused
        while refused and (refused[0][0] < now or len(refused) > _MOST_REFUSED):
            refused.pop(0)[1].close()

    def _next(self) -> socket.socket | None:
        try:
            return self._listener.accept()[0]
        except OSError:
            return None

    def close(self) -> None:
        """Close everything. The path of a unix socket is removed."""
        for _, connection in self._refused:
            connection.close()
        self._listener.close()


def ready(seconds: float, *sources: Client | Door) -> set[Client | Door]:
    """Return the sources that are ready, after ``seconds`` at most."""
    by_descriptor = {source.fileno(): source for source in sources}
    return {
        by_descriptor[descriptor]
        for descriptor in descriptors.ready(dict.fromkeys(by_descriptor, select.POLLIN), seconds)
    }
