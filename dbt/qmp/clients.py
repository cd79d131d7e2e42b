"""The clients of a monitor: several at once, none of which can hold the guest or another client up."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from dbt.engine.descriptors import ready
from dbt.host.endpoint import Listener
from dbt.qmp.messages import MessageReader, encoded

#: The most clients at once.
MOST_CLIENTS = 8
#: The bytes that wait for a client that does not read, which is sent away beyond them.
MOST_WAITING = 1 << 18
_PIECE = 4096
#: The seconds that a client has for its first command, if another one wants its place.
_PATIENCE_S = 1.0
_FULL = f"a monitor has {MOST_CLIENTS} clients at most, and they are all connected"


class Client:
    """A client that is connected. ``messages`` are those that it has sent and that are not answered yet.

    No more is read from it before they are answered, and the answers sent.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._reader = MessageReader()
        self._output = bytearray()
        self._has_ended = False  # it sends no more
        self._is_deaf = False  # it takes no answers any more, but what it has sent before is done
        self.messages: deque[Any] = deque()
        self.since = time.monotonic()
        #: True after the negotiation, from when on it gets events.
        self.is_ready = False

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def waits_for(self) -> int:
        """What the client is to be looked after for, as poll(2) has it."""
        if self._output:
            return select.POLLOUT
        return 0 if self.messages else select.POLLIN

    @property
    def can_be_answered(self) -> bool:
        """True if there is a message, and the client has taken the answers before it."""
        return bool(self.messages) and not self._output

    def receive(self) -> None:
        """Take what the client has sent, a piece of it."""
        try:
            data = self._connection.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.messages.extend(self._reader.feed(data))
        self._has_ended = self._has_ended or not data

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message now, or when the client takes it. Who takes too little is sent away."""
        if not self._is_deaf:
            self._output += encoded(message)
            self.flush()
            self._forget_slow()

    def _forget_slow(self) -> None:
        if len(self._output) > MOST_WAITING:
            self._output.clear()
            self.messages.clear()
            self._is_deaf = self._has_ended = True

    def flush(self) -> None:
        """Send what waits."""
        try:
            while self._output:
                del self._output[: self._connection.send(self._output, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            return
        except OSError:
            self._output.clear()
            self._is_deaf = True

    @property
    def is_done(self) -> bool:
        """True if the client has sent everything and got its answers."""
        return self._has_ended and not self.messages and not self._output

    @property
    def is_silent(self) -> bool:
        """True if the client has not negotiated, or sends no more."""
        return not self.is_ready or self._has_ended

    @property
    def has_output(self) -> bool:
        """True if something waits for the client to take it."""
        return bool(self._output)

    def close(self) -> None:
        self._connection.close()


class Clients:
    """Those who are connected to a listening socket. Each is sent ``greeting`` first."""

    def __init__(self, listener: Listener, greeting: Mapping[str, Any]) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._greeting = greeting
        self._clients: list[Client] = []

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients))

    def look(self, seconds: float) -> None:
        """Take whoever has come and whatever has been sent, within ``seconds``, and send what waits."""
        by_descriptor = {client.fileno(): client for client in self._clients}
        events = {descriptor: client.waits_for for descriptor, client in by_descriptor.items()}
        found = ready({self._listener.fileno(): select.POLLIN, **events}, seconds)
        for client in (client for descriptor, client in by_descriptor.items() if descriptor in found):
            if client.has_output:
                client.flush()
            elif client.waits_for:
                client.receive()
        if self._listener.fileno() in found:
            self.remove_done()  # whose places are free
            self._accept()

    def remove_done(self) -> None:
        """Close the connections of clients that have gone."""
        for client in [client for client in self._clients if client.is_done]:
            self._remove(client)

    def _remove(self, client: Client) -> None:
        client.close()
        self._clients.remove(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        client = Client(connection)
        if len(self._clients) >= MOST_CLIENTS and not self._make_room(client.since):
            client.send({"error": {"class": "GenericError", "desc": _FULL}})
            client.close()
            return
        self._clients.append(client)
        client.send(self._greeting)

    def _make_room(self, now: float) -> bool:
        """Send the client away that has been silent for longest, if one has never said anything that counts."""
        silent = [client for client in self._clients if client.is_silent and now - client.since > _PATIENCE_S]
        if silent:
            self._remove(min(silent, key=lambda client: client.since))
        return bool(silent)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Send an event to all clients that have negotiated."""
        for client in self._clients:
            if client.is_ready:
                client.send(event)

    def close(self, seconds: float) -> None:
        """Close everything, after ``seconds`` at most, in which clients may take what waits for them."""
        deadline = time.monotonic() + seconds
        while (waiting := [client for client in self._clients if client.has_output]) and (
            left := deadline - time.monotonic()
        ) > 0:
            ready({client.fileno(): select.POLLOUT for client in waiting}, left)
            for client in waiting:
                client.flush()
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._listener.close()
