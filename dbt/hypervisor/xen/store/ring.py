"""The ring by which a guest talks to XenStore, in a page that the toolstack has made (xen/include/public/io/xs_wire.h).

Indices are the guest's. If they make no sense, so that more would be in the ring than it holds, nothing is taken or put
there, until they make sense again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from dbt.abi.addresses import Gpa
from dbt.devices.state import Part, Stateful, Wiring, Word
from dbt.hypervisor.xen.byte_ring import ByteRing
from dbt.hypervisor.xen.event_channels import BackEndPorts
from dbt.hypervisor.xen.interface import STORE_PAGE
from dbt.hypervisor.xen.store.server import MOST_WATCHES, StoreServer
from dbt.hypervisor.xen.store.transaction_log import HEADER, LARGEST_PAYLOAD
from dbt.hypervisor.xen.store.tree import StoreError
from dbt.memory.dma import Dma

_SIZE: Final = 1024
_REQUESTS, _ANSWERS = ByteRing(STORE_PAGE, _SIZE), ByteRing(Gpa(STORE_PAGE + _SIZE), _SIZE)
_AT_INDICES: Final = STORE_PAGE + 2 * _SIZE
#: req_cons, req_prod, rsp_cons, rsp_prod.
_INDICES: Final = struct.Struct("<IIII")
_REQ_CONS, _RSP_PROD = _AT_INDICES, _AT_INDICES + 12
_U32: Final = struct.Struct("<I")
_WORD: Final = 0xFFFFFFFF
#: While so many bytes wait for the guest, its requests wait too.
_MOST_WAITING: Final = 1 << 16
#: So many events wait that say which node has changed.
_MOST_HEARD: Final = 1024
#: The nodes of a guest that belong to it: the others below its own are the toolstack's, and it may read them.
_OWN: Final = ("control", "control/shutdown", "device", "data", "drivers", "feature", "attr", "error")


class StoreListener(Protocol):
    """Programs of the host that look at XenStore, and change it."""

    def follow(self, store: StoreRing) -> None:
        """Look at this store from now on."""

    def answered(self, error: str) -> None:
        """A change that was asked for has been done, or there is an error."""

    def changed(self, path: str) -> None:
        """A node has changed."""


@dataclass(eq=False)
class StoreRing(Stateful):
    """The ring, and what is on its way. ``port`` is the guest's port for it.

    ``watchers`` are told the path of each node that is changed, but not by a back end; ``listener`` is told of all.
    ``received`` is the beginning of a request, ``answers`` are bytes for which there was no room in the ring, and
    ``heard`` are events of what other guests have changed, which wait behind these.
    """

    dma: Wiring[Dma]
    ports: Wiring[BackEndPorts]
    server: Part[StoreServer]
    listener: Wiring[StoreListener | None] = None
    watchers: Wiring[list[Callable[[str], None]]] = field(default_factory=list, init=False)
    port: Word = 0
    received: bytes = b""
    answers: bytes = b""
    heard: list[bytes] = field(default_factory=list)
    receiver: Wiring[int] = field(init=False)

    def __post_init__(self) -> None:
        self.receiver = self.ports.add_receiver(self.serve)
        if self.listener is not None:
            self.listener.follow(self)

    def is_possible(self) -> bool:
        return (
            len(self.received) < HEADER.size + LARGEST_PAYLOAD + _SIZE and len(self.heard) <= _MOST_HEARD + MOST_WATCHES
        )

    def power_on(self, port: int, memory: int, console_port: int, console_page: int) -> None:
        """Fill the tree with what the toolstack says of the guest, which has ``memory`` bytes of RAM."""
        self.port = port
        server, tree = self.server, self.server.tree
        self.make_readable(server.home)
        values = {
            "domid": server.domain,
            "name": "dbt",
            "memory/target": memory >> 10,
            "memory/static-max": memory >> 10,
            "console/type": "xenconsoled",
            "console/ring-ref": console_page,
            "console/port": console_port,
            "store/ring-ref": STORE_PAGE >> 12,
            "store/port": port,
        }
        for name, value in values.items():
            tree.write(0, f"{server.home}/{name}", str(value).encode())
        for name in _OWN:
            tree.make(0, f"{server.home}/{name}")
            tree.set_permissions(0, f"{server.home}/{name}", f"n{server.domain}\0".encode())

    def serve(self) -> None:
        """The guest has sent an event: answer its requests, and give it what there is room for."""
        moved = self._put()
        while len(self.answers) < _MOST_WAITING and (self._answer() or self._take()):
            moved = True
            self._put()
        if moved:
            self.ports.notify(self.port, self.receiver)

    def receive(self, data: bytes) -> None:
        """Do a request from outside that changes something: a byte for its type, and its payload. A path is the guest's
        own, or begins with a slash. What cannot be done is not done.
        """
        with suppress(StoreError):
            self._do_outside(data)

    def receive_request(self, data: bytes) -> None:
        """Do the same for the listener, and tell it what has become of it."""
        error = ""
        try:
            self._do_outside(data)
        except StoreError as failed:
            error = failed.name
        if self.listener is not None:
            self.listener.answered(error)

    def _do_outside(self, data: bytes) -> None:
        path, events = self.server.change(int.from_bytes(data[:1], "little"), data[1:])
        self._send(path, events)
        self._tell(path)

    def _send(self, path: str, events: bytes) -> None:
        """Send the guest events of what domain 0 has done to a node. If it does not read them, they wait as those of
        what other guests do.
        """
        if len(self.answers) < _MOST_WAITING:
            self.answers += events
        else:
            self.hear(path)
        if self._put():
            self.ports.notify(self.port, self.receiver)

    # -- other guests --------------------------------------------------------------------------

    def hear(self, path: str) -> None:
        """Somebody else has changed a node: keep what there is to say until :meth:`deliver`. The same is said once. If
        the guest does not read what others make it hear, it hears of each watch that there is something.
        """
        for event in self.server.heard(path, is_short=len(self.heard) >= _MOST_HEARD):
            if event not in self.heard and len(self.heard) < _MOST_HEARD + MOST_WATCHES:
                self.heard.append(event)

    def deliver(self) -> bool:
        """Send the guest what it is to hear. Return True if there was anything."""
        has_sent = self._put()
        if has_sent:
            self.ports.notify(self.port, self.receiver)
        return has_sent

    def _spread(self, path: str) -> None:
        """Let other guests hear of a node that has changed."""
        if self.server.identity.host is not None:
            self.server.identity.host.store_changed(path, self.server.domain)

    # -- the back ends' side -------------------------------------------------------------------

    def read(self, path: str) -> bytes | None:
        """Return the value of a node, or None if there is none."""
        return self.server.tree.values.get(path)

    def write(self, path: str, value: bytes) -> None:
        """Write a node, and tell the guest if it watches it."""
        self._send(path, self.server.write(path, value))
        self._report(path)
        self._spread(path)

    def make_readable(self, path: str) -> None:
        """Make a node that the guest may read, with all that will be below it."""
        tree = self.server.tree
        tree.make(0, path)
        tree.set_permissions(0, path, self._readable)

    @property
    def _readable(self) -> bytes:
        return f"n0\0r{self.server.domain}\0".encode()

    def _report(self, path: str) -> None:
        if self.listener is not None:
            self.listener.changed(path)

    def _tell(self, path: str) -> None:
        """A node has changed, but not by a back end."""
        self._report(path)
        self._spread(path)
        for watcher in self.watchers:
            watcher(path)

    def _answer(self) -> bool:
        """Answer the first request that has come, if it is complete."""
        if len(self.received) < HEADER.size:
            return False
        kind, request, transaction, size = HEADER.unpack_from(self.received)
        if size > LARGEST_PAYLOAD:  # Where the next request begins, nobody knows.
            self.received = b""
            return False
        if len(self.received) < HEADER.size + size:
            return False
        payload = self.received[HEADER.size : HEADER.size + size]
        self.received = self.received[HEADER.size + size :]
        self.answers += self.server.answer(kind, request, transaction, payload)
        for path in self.server.take_changes():
            self._tell(path)
        return True

    def _indices(self) -> tuple[int, int, int, int]:
        found = _INDICES.unpack(self.dma.read(_AT_INDICES, _INDICES.size))
        return found[0], found[1], found[2], found[3]

    def _take(self) -> bool:
        """Take what is in the ring of requests. Return False if there is nothing."""
        taken, written, _, _ = self._indices()
        size = written - taken & _WORD
        if not 0 < size <= _SIZE:
            return False
        self.received += _REQUESTS.read(self.dma, taken, size)
        self.dma.write(_REQ_CONS, _U32.pack(written))
        return True

    def _put(self) -> bool:
        """Put answers into their ring, as far as there is room. Return True if some were put there."""
        while self.heard and len(self.answers) < _MOST_WAITING:
            self.answers += self.heard.pop(0)
        _, _, taken, given = self._indices()
        room = _SIZE - (given - taken & _WORD)
        piece = self.answers[: max(room, 0)]
        if not piece:
            return False
        self.answers = self.answers[len(piece) :]
        _ANSWERS.write(self.dma, given, piece)
        self.dma.write(_RSP_PROD, _U32.pack(given + len(piece) & _WORD))
        return True
