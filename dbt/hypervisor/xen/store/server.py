"""XenStore's answers to a guest: the wire protocol (xen/include/public/io/xs_wire.h), watches and transactions.

A request is a header and a payload of at most 4096 bytes. What the guest has sent may be anything: it gets an error for
it, and never more than its quota.

A transaction is the list of the requests that change something. Each request in it is answered from a tree in which
they have been done. At its end they are done in the tree itself, unless somebody else has changed a node since that it
has looked at: what others do elsewhere does not keep it from its end.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from dbt.devices.state import Part, Stateful, Wiring
from dbt.hypervisor.xen.identity import Identity
from dbt.hypervisor.xen.interface import BACKEND_DOMAIN
from dbt.hypervisor.xen.store import transaction_log
from dbt.hypervisor.xen.store.transaction_log import HEADER, LARGEST_PAYLOAD, TransactionLog
from dbt.hypervisor.xen.store.tree import StoreError, Tree, check_path


class Type:
    """The types of messages."""

    DIRECTORY: Final = 1
    READ: Final = 2
    GET_PERMS: Final = 3
    WATCH: Final = 4
    UNWATCH: Final = 5
    TRANSACTION_START: Final = 6
    TRANSACTION_END: Final = 7
    GET_DOMAIN_PATH: Final = 10
    WRITE: Final = 11
    MKDIR: Final = 12
    RM: Final = 13
    SET_PERMS: Final = 14
    WATCH_EVENT: Final = 15
    ERROR: Final = 16
    IS_DOMAIN_INTRODUCED: Final = 17
    RESET_WATCHES: Final = 21


CHANGES: Final = frozenset({Type.WRITE, Type.MKDIR, Type.RM, Type.SET_PERMS})
_OK: Final = b"OK\0"
_WORD: Final = 0xFFFFFFFF
#: What a guest may have at the same time.
MOST_WATCHES, MOST_TRANSACTIONS = 128, 10
#: So many bytes of events follow from one request, before they name what is watched in place of the node.
_MOST_EVENTS: Final = 1 << 16


@dataclass(eq=False)
class StoreServer(Stateful):
    """What the guest, which is :attr:`domain`, has of XenStore.

    ``watches`` have path and token, each ended by NUL. ``transactions`` are logs (:mod:`transaction_log`), by their
    numbers. ``changed`` are the paths that it has changed since :meth:`take_changes`.
    """

    identity: Wiring[Identity]
    tree: Part[Tree]
    watches: list[bytes] = field(default_factory=list)
    transactions: dict[int, bytes] = field(default_factory=dict)
    last_transaction: int = 0
    changed: Wiring[list[str]] = field(default_factory=list, init=False)
    #: What transactions see, as long as it is right: of which values and generation of the tree, after which log.
    views: Wiring[dict[int, tuple[dict[str, bytes], int, bytes, Tree]]] = field(default_factory=dict, init=False)
    #: The logs of transactions as they have been read last: to read one again for each request takes long.
    logs: Wiring[dict[int, TransactionLog]] = field(default_factory=dict, init=False)

    def is_possible(self) -> bool:
        return (
            len(self.watches) <= MOST_WATCHES
            and all(map(self._is_watch, self.watches))
            and len(self.transactions) <= MOST_TRANSACTIONS
            and all(0 < number <= _WORD for number in self.transactions)
            and all(transaction_log.is_log(log, CHANGES) for log in self.transactions.values())
            and 0 <= self.last_transaction <= _WORD
        )

    @property
    def domain(self) -> int:
        return self.identity.number

    @property
    def home(self) -> str:
        """The node of the guest, from which its paths are relative."""
        return f"/local/domain/{self.domain}"

    # -- messages ------------------------------------------------------------------------------

    def answer(self, kind: int, request: int, transaction: int, payload: bytes) -> bytes:
        """Return the answer to a request, and the events that follow from it."""
        self.tree.removed.clear()
        try:
            data, events = self._do(kind, transaction, payload)
        except StoreError as error:
            return message(Type.ERROR, request, transaction, error.name.encode() + b"\0")
        if len(data) > LARGEST_PAYLOAD:
            return message(Type.ERROR, request, transaction, b"E2BIG\0")
        return message(kind, request, transaction, data) + b"".join(events)

    def write(self, path: str, value: bytes) -> bytes:
        """Write a node as the back ends' domain does. Return the events for the guest."""
        self.tree.removed.clear()
        self.tree.write(BACKEND_DOMAIN, path, value)
        return b"".join(self._events([path]))

    def change(self, kind: int, payload: bytes) -> tuple[str, bytes]:
        """Do a request that changes something as the back ends' domain does. Return the path of the node, and the
        events for the guest. Raise StoreError.
        """
        if kind not in CHANGES:
            raise StoreError("ENOSYS")
        self.tree.removed.clear()
        path = self._apply(self.tree, kind, payload, BACKEND_DOMAIN)
        return path, b"".join(self._events([path]))

    def look(self, kind: int, payload: bytes) -> bytes:
        """Return what the back ends' domain gets for a request that changes nothing. Raise StoreError."""
        if kind in (Type.GET_DOMAIN_PATH, Type.IS_DOMAIN_INTRODUCED):
            return self._about_domain(kind, payload)
        if kind not in (Type.DIRECTORY, Type.READ, Type.GET_PERMS):
            raise StoreError("ENOSYS")
        return self._look(kind, self.tree, payload, BACKEND_DOMAIN)

    def _do(self, kind: int, transaction: int, payload: bytes) -> tuple[bytes, list[bytes]]:
        match kind:
            case Type.WATCH:
                return self._watch(payload)
            case Type.UNWATCH:
                self.watches.remove(self._found_watch(payload))
                return _OK, []
            case Type.TRANSACTION_START:
                return self._start(transaction), []
            case Type.TRANSACTION_END:
                return _OK, self._end(transaction, payload)
            case Type.GET_DOMAIN_PATH | Type.IS_DOMAIN_INTRODUCED:
                return self._about_domain(kind, payload), []
            case Type.RESET_WATCHES:
                self.forget()
                return _OK, []
            case _ if kind in CHANGES:
                return _OK, self._change(kind, transaction, payload)
            case Type.DIRECTORY | Type.READ | Type.GET_PERMS:
                view = self._view(transaction)
                if transaction:
                    self._extend(transaction, self.path_of(_text(payload)))
                    self._keep_view(transaction, view)
                return self._look(kind, view, payload, self.domain), []
            case _:
                raise StoreError("ENOSYS")

    def path_of(self, text: bytes) -> str:
        """Return the path that a text means: the guest's own, or one that begins with a slash. Raise StoreError, also
        for what begins with "@": that is nothing to be read or written, but what a watch may hear of.
        """
        path = text.decode("latin-1")
        return check_path(path if path.startswith(("/", "@")) else f"{self.home}/{path}")

    def _look(self, kind: int, tree: Tree, payload: bytes, domain: int) -> bytes:
        path = self.path_of(_text(payload))
        if kind == Type.READ:
            return tree.read(domain, path)
        if kind == Type.GET_PERMS:
            return tree.get_permissions(domain, path)
        return b"".join(name.encode() + b"\0" for name in tree.children(domain, path))

    def _about_domain(self, kind: int, payload: bytes) -> bytes:
        text = _text(payload)
        if not text.isdigit() or len(text) > 5:
            raise StoreError("EINVAL")
        if kind == Type.GET_DOMAIN_PATH:
            return f"/local/domain/{int(text)}".encode() + b"\0"
        number = int(text)
        is_there = number in (BACKEND_DOMAIN, self.domain) or self.identity.other(number) is not None
        return b"T\0" if is_there else b"F\0"

    # -- changes and transactions --------------------------------------------------------------

    def _change(self, kind: int, transaction: int, payload: bytes) -> list[bytes]:
        if not transaction:
            return self._done([self._apply(self.tree, kind, payload, self.domain)])
        view = self._view(transaction)
        self.views.pop(transaction, None)
        path = self._apply(view, kind, payload, self.domain)
        self._extend(transaction, path, (kind, payload))
        self._keep_view(transaction, view)
        return []

    def _extend(self, transaction: int, path: str, request: tuple[int, bytes] | None = None) -> None:
        """Note that a transaction has looked at a node, and what it is to do."""
        log = self._log(transaction)
        if not log.extend(path, self.tree.version(path), request):
            raise StoreError("ENOSPC")
        self.transactions[transaction] = log.data

    def _log(self, transaction: int) -> TransactionLog:
        """Return the log of a transaction."""
        data, log = self.transactions[transaction], self.logs.get(transaction)
        if log is None or log.data != data:  # which are the very same bytes, unless a state was put in
            log = self.logs[transaction] = TransactionLog(data)
        return log

    def _apply(self, tree: Tree, kind: int, payload: bytes, domain: int) -> str:
        """Do a request of a domain that changes a tree. Return the path of the node."""
        name, nul, rest = payload.partition(b"\0")
        if not nul:
            raise StoreError("EINVAL")
        path = self.path_of(name)
        match kind:
            case Type.WRITE:
                tree.write(domain, path, rest)
            case Type.MKDIR:
                tree.make(domain, path)
            case Type.RM:
                tree.remove(domain, path)
            case _:
                tree.set_permissions(domain, path, rest)
        return path

    def _view(self, transaction: int) -> Tree:
        """Return the tree as a transaction sees it."""
        if not transaction:
            return self.tree
        if transaction not in self.transactions:
            raise StoreError("ENOENT")
        log = self.transactions[transaction]
        if (found := self.views.get(transaction)) is not None:
            values, generation, known, view = found
            if values is self.tree.values and (generation, known) == (self.tree.generation, log):
                return view
        view = self.tree.copy()
        with suppress(StoreError):  # somebody has changed what it depends on, and it cannot end well
            self._apply_all(view, self._log(transaction))
        self._keep_view(transaction, view)
        return view

    def _keep_view(self, transaction: int, view: Tree) -> None:
        self.views[transaction] = self.tree.values, self.tree.generation, self.transactions[transaction], view

    def _apply_all(self, tree: Tree, log: TransactionLog) -> list[str]:
        """Do the requests of a transaction. Return the paths of the nodes."""
        return [self._apply(tree, kind, payload, self.domain) for kind, payload in log.requests]

    def _is_current(self, log: TransactionLog) -> bool:
        """Return True if a transaction can be done as it was seen."""
        if any(self.tree.version(path) != version for path, version in log.seen.items()):
            return False
        try:
            self._apply_all(self.tree.copy(), log)
        except StoreError:
            return False
        return True

    def _start(self, transaction: int) -> bytes:
        if transaction:
            raise StoreError("EBUSY")
        if len(self.transactions) >= MOST_TRANSACTIONS:
            raise StoreError("ENOSPC")
        number = self.last_transaction % _WORD + 1
        while number in self.transactions:
            number = number % _WORD + 1
        self.last_transaction = number
        self.transactions[number] = b""
        return str(number).encode() + b"\0"

    def _end(self, transaction: int, payload: bytes) -> list[bytes]:
        if _text(payload) not in (b"T", b"F"):
            raise StoreError("EINVAL")
        if transaction not in self.transactions:
            raise StoreError("ENOENT")
        log = self._log(transaction)
        self._drop(transaction)
        if payload == b"F\0":
            return []
        if not self._is_current(log):
            raise StoreError("EAGAIN")
        return self._done(self._apply_all(self.tree, log))

    def _drop(self, transaction: int) -> None:
        """A transaction is over."""
        del self.transactions[transaction]
        self.views.pop(transaction, None)
        self.logs.pop(transaction, None)

    def forget(self) -> None:
        """The guest is gone, or begins anew: its watches and transactions are."""
        self.watches.clear()
        for transaction in list(self.transactions):
            self._drop(transaction)

    def _done(self, paths: list[str]) -> list[bytes]:
        """The guest has changed nodes: note it, and return the events for itself."""
        paths = list(dict.fromkeys(paths))
        self.changed += paths
        return self._events(paths)

    def take_changes(self) -> list[str]:
        """Return the paths of the nodes that the guest has changed since this was called."""
        paths = self.changed.copy()
        self.changed.clear()
        return paths

    # -- watches -------------------------------------------------------------------------------

    def _watch(self, payload: bytes) -> tuple[bytes, list[bytes]]:
        self._check_watch(payload)
        if payload in self.watches:
            raise StoreError("EEXIST")
        if len(self.watches) >= MOST_WATCHES:
            raise StoreError("ENOSPC")
        self.watches.append(payload)
        return _OK, [message(Type.WATCH_EVENT, 0, 0, payload)]

    def _check_watch(self, watch: bytes) -> None:
        """Raise StoreError unless this is a path or what begins with "@", and a token."""
        parts = watch.split(b"\0")
        if len(parts) != 3 or parts[2]:
            raise StoreError("EINVAL")
        if not parts[0].startswith(b"@"):
            self.path_of(parts[0])

    def _is_watch(self, watch: bytes) -> bool:
        """Return True if a guest can have sent a watch."""
        try:
            self._check_watch(watch)
        except StoreError:
            return False
        return len(watch) <= LARGEST_PAYLOAD

    def _found_watch(self, payload: bytes) -> bytes:
        if payload not in self.watches:
            raise StoreError("ENOENT")
        return payload

    def heard(self, path: str, is_short: bool) -> list[bytes]:
        """Return the events for the guest, after somebody else has changed a node. Short ones name what is watched in
        place of the node.
        """
        if not is_short:
            return self._events([path])
        return [message(Type.WATCH_EVENT, 0, 0, watch) for watch in self.watches if self._concerns(watch, path)]

    def _concerns(self, watch: bytes, path: str) -> bool:
        """Return True if there are events of a watch for changes of a node."""
        watched = watch.partition(b"\0")[0]
        if watched.startswith(b"@"):
            return False
        base = self.path_of(watched)
        if is_inside(path, base):
            return self.tree.may_read(self.domain, path) or self.tree.might_read(self.domain, path)
        return base.startswith(path + "/") and self.tree.might_read(self.domain, base)

    def _events(self, paths: list[str]) -> list[bytes]:
        """Return the events of the guest's watches for nodes that have changed, but for such that are too long to be a
        message. If there are too many, the guest hears once of each other watch that there is something.
        """
        events: list[bytes] = []
        size = 0
        told: set[bytes] = set()
        for path in paths:
            for watch in self.watches:
                if watch in told or not self._concerns(watch, path):
                    continue
                payload = watch
                watched, token, _ = watch.split(b"\0")
                if size > _MOST_EVENTS:
                    told.add(watch)
                elif is_inside(path, self.path_of(watched)):  # and not changed with what is above it
                    named = path.encode() if watched.startswith(b"/") else path[len(self.home) + 1 :].encode()
                    payload = named + b"\0" + token + b"\0"
                if len(payload) <= LARGEST_PAYLOAD:
                    events.append(message(Type.WATCH_EVENT, 0, 0, payload))
                    size += len(events[-1])
        return events


def _text(payload: bytes) -> bytes:
    """Return a payload that is one text, without the NUL at its end."""
    if payload.find(b"\0") != len(payload) - 1:
        raise StoreError("EINVAL")
    return payload[:-1]


def is_inside(path: str, base: str) -> bool:
    """Return True if a node is another one, or below it."""
    return path == base or path.startswith(base.rstrip("/") + "/")


def message(kind: int, request: int, transaction: int, payload: bytes) -> bytes:
    """Return a message: a header and its payload."""
    return HEADER.pack(kind, request, transaction, len(payload)) + payload
