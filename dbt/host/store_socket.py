"""XenStore for programs of the host: a unix socket at which they speak its wire protocol, as the toolstack does.

What they ask for is answered at once. What they change is input of the machine: it is done when the machine takes it,
and is answered then. There are no transactions here. Nothing waits, and no client has more than a few hundred KiB.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Iterator
from typing import Final

from dbt.host.endpoint import Endpoint, WrongEndpoint, accepted
from dbt.host.journal import HostJournal
from dbt.hypervisor.xen.interface import BACKEND_DOMAIN
from dbt.hypervisor.xen.store.ring import StoreRing
from dbt.hypervisor.xen.store.server import CHANGES, MOST_WATCHES, Type, is_inside, message
from dbt.hypervisor.xen.store.transaction_log import HEADER, LARGEST_PAYLOAD
from dbt.hypervisor.xen.store.tree import StoreError
from dbt.memory.closing import Closing

_MOST_CLIENTS: Final = 16
_MOST_WAITING: Final = 1 << 18
_PIECE: Final = 1 << 16


class StoreSocketError(ValueError):
    """Raised for a socket at which one cannot listen. The text says why."""


class _Client:
    """A program that is connected. While it ``waits`` for a change to be done, its other requests wait too. Nothing
    comes any more of one that ``has_ended``, and one that ``is_gone`` gets nothing any more either.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received, self.output = bytearray(), bytearray()
        self.watches: list[tuple[str, bytes]] = []
        self.waits = self.has_ended = self.is_gone = False

    @property
    def can_receive(self) -> bool:
        """True if more may come, and what was sent before has been dealt with."""
        return not self.has_ended and len(self.received) <= _PIECE

    def receive(self) -> None:
        """Take what has been sent."""
        if not self.can_receive:
            return
        try:
            data = self.connection.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received += data
        self.has_ended = not data

    def next_request(self) -> tuple[int, int, int, bytes] | None:
        """Return type, number, transaction and payload of the next request, if it is there."""
        if self.waits or self.is_gone or len(self.received) < HEADER.size:
            return None
        kind, request, transaction, size = HEADER.unpack_from(self.received)
        if size > LARGEST_PAYLOAD:  # Where the next request begins, nobody knows.
            self.has_ended = True
            self.received.clear()
            return None
        if len(self.received) < HEADER.size + size:
            return None
        payload = bytes(self.received[HEADER.size : HEADER.size + size])
        del self.received[: HEADER.size + size]
        return kind, request, transaction, payload

    def send(self, data: bytes) -> None:
        """Send bytes now, or when the client takes them. Who takes too little is sent away."""
        self.output += data
        try:
            while self.output:
                del self.output[: self.connection.send(self.output, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            self.is_gone = self.is_gone or len(self.output) > _MOST_WAITING
        except OSError:
            self.is_gone = True

    @property
    def is_done(self) -> bool:
        """True if the client can be sent away. Precondition: there is no next request. What is left of one that has
        not come as a whole never will.
        """
        return self.is_gone or (self.has_ended and not self.waits and not self.output)

    @property
    def events(self) -> int:
        """What may happen at the connection that there is something to do for."""
        return select.POLLIN * self.can_receive | select.POLLOUT * bool(self.output)


class StoreSocket(Closing):
    """The socket. ``journal`` says whether the machine repeats what it has done before, which clients have heard."""

    def __init__(self, endpoint: str, journal: HostJournal) -> None:
        """Listen. Raise StoreSocketError."""
        try:
            place = Endpoint.parse(endpoint)
            if not place.path:
                raise WrongEndpoint(f"{endpoint}: XenStore is at a unix socket: write unix:PATH")
            self._listener = place.listen()
        except WrongEndpoint as error:
            raise StoreSocketError(str(error)) from None
        except OSError as error:
            raise StoreSocketError(f"cannot listen at {endpoint}: {error.strerror or error}") from None
        self._listener.setblocking(False)
        self._journal = journal
        self._clients: list[_Client] = []
        self._asked: deque[tuple[_Client, int, int]] = deque()  # changes that the machine has not taken yet
        self._store: StoreRing | None = None

    # -- the store's side ----------------------------------------------------------------------

    def follow(self, store: StoreRing) -> None:
        """Ask this store from now on. Changes that the one before has not done are not done."""
        self._store = store
        for client, kind, request in self._asked:
            client.waits = False
            client.send(message(Type.ERROR, request, 0, b"EAGAIN\0") if kind else b"")
        self._asked.clear()

    def answered(self, error: str) -> None:
        """The next change has been done, or there is an error."""
        if self._journal.repeats_until is None and self._asked:
            client, kind, request = self._asked.popleft()
            client.waits = False
            text = error.encode() if error else b"OK"
            client.send(message(Type.ERROR if error else kind, request, 0, text + b"\0"))

    def changed(self, path: str) -> None:
        """A node has changed: tell those who watch it, or one that was removed with it."""
        if self._journal.repeats_until is not None or self._store is None:
            return
        tree = self._store.server.tree
        for client in self._clients:
            for base, token in client.watches:
                is_removed = is_inside(base, path) and tree.might_read(BACKEND_DOMAIN, base)
                payload = (base if is_removed else path).encode() + b"\0" + token + b"\0"
                if (is_removed or is_inside(path, base)) and len(payload) <= LARGEST_PAYLOAD:
                    client.send(message(Type.WATCH_EVENT, 0, 0, payload))

    # -- the clients' side ---------------------------------------------------------------------

    def poll(self) -> Iterator[bytes]:
        """Look after the clients. Yield the changes that they want: a type and a payload. Do not wait."""
        self._accept()
        for client in list(self._clients):
            client.receive()
            while (found := client.next_request()) is not None:
                kind, request, transaction, payload = found
                if kind in CHANGES and not transaction:
                    client.waits = True
                    self._asked.append((client, kind, request))
                    yield bytes([kind]) + payload
                else:
                    client.send(self._answer(client, kind, request, transaction, payload))
            client.send(b"")
            if client.is_done:
                self._clients.remove(client)
                client.connection.close()

    def _accept(self) -> None:
        """Let those in who wait, as far as there is room for them. Others hear that there is none."""
        for _ in range(_MOST_CLIENTS):
            try:
                connection = accepted(self._listener)
            except OSError:  # nobody waits, or has gone again
                return
            if len(self._clients) < _MOST_CLIENTS:
                self._clients.append(_Client(connection))
                continue
            with contextlib.suppress(OSError):
                connection.send(message(Type.ERROR, 0, 0, b"EBUSY\0"), socket.MSG_NOSIGNAL)
            connection.close()

    def _answer(self, client: _Client, kind: int, request: int, transaction: int, payload: bytes) -> bytes:
        """Return the answer to a request that changes nothing, and what follows it."""
        try:
            if transaction or self._store is None:
                raise StoreError("ENOSYS")
            if kind in (Type.WATCH, Type.UNWATCH):
                event = self._change_watch(self._store, client, kind, payload)
                return message(kind, request, 0, b"OK\0") + event
            data = self._store.server.look(kind, payload)
            if len(data) > LARGEST_PAYLOAD:
                raise StoreError("E2BIG")
            return message(kind, request, 0, data)
        except StoreError as error:
            return message(Type.ERROR, request, transaction, error.name.encode() + b"\0")

    def _change_watch(self, store: StoreRing, client: _Client, kind: int, payload: bytes) -> bytes:
        """Add or remove a watch. Return the event that follows. Raise StoreError."""
        name, _, rest = payload.partition(b"\0")
        token, nul, _ = rest.partition(b"\0")
        watch = store.server.path_of(name), token
        if not nul:
            raise StoreError("EINVAL")
        if kind == Type.UNWATCH:
            if watch not in client.watches:
                raise StoreError("ENOENT")
            client.watches.remove(watch)
            return b""
        if watch in client.watches:
            raise StoreError("EEXIST")
        if len(client.watches) >= MOST_WATCHES:
            raise StoreError("ENOSPC")
        client.watches.append(watch)
        return message(Type.WATCH_EVENT, 0, 0, payload)

    def events(self) -> dict[int, int]:
        """Return the file descriptors at which something may happen, and what they are looked at for."""
        found = {self._listener.fileno(): select.POLLIN}
        for client in self._clients:
            if events := client.events:  # nobody is told that a client hangs up for which there is nothing to do
                found[client.connection.fileno()] = events
        return found

    def close(self) -> None:
        """Send everybody away, and remove the socket. A second call does nothing."""
        for client in self._clients:
            client.connection.close()
        self._clients.clear()
        self._listener.close()
