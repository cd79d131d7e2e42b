"""What XenStore keeps of a transaction: the requests that change something, and what it has looked at.

It is bytes, as values of a state are: messages as on the wire. Those of the type 0 say which version of a node the
transaction has seen first. At its end, each of these nodes must still have that version.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

HEADER: Final = struct.Struct("<IIII")  # type, request, transaction, length
LARGEST_PAYLOAD: Final = 4096
LONGEST_LOG: Final = 1 << 17
MOST_REQUESTS: Final = 1024
_SEEN: Final = 0
_VERSION: Final = struct.Struct("<Q")


class TransactionLog:
    """A log that can be extended. ``data`` are its bytes; ``requests`` are its requests with their types, and ``seen``
    the versions of the nodes that the transaction has looked at, by their paths.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.requests: list[tuple[int, bytes]] = []
        self.seen: dict[str, int] = {}
        for kind, payload in _messages(data):
            if kind == _SEEN:
                self.seen[payload[_VERSION.size :].decode()] = _VERSION.unpack_from(payload)[0]
            else:
                self.requests.append((kind, payload))

    def extend(self, path: str, version: int, request: tuple[int, bytes] | None) -> bool:
        """Note the version of a node, unless there is one of it already, and a request. Return False, and note nothing,
        if that is too much.
        """
        more = b"" if path in self.seen else _message(_SEEN, _VERSION.pack(version) + path.encode())
        requests = [] if request is None else [request]
        more += b"".join(_message(*one) for one in requests)
        if len(self.data) + len(more) > LONGEST_LOG or len(self.requests) + len(requests) > MOST_REQUESTS:
            return False
        self.data += more
        self.seen.setdefault(path, version)
        self.requests += requests
        return True


def _message(kind: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, 0, 0, len(payload)) + payload


def _messages(log: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(log):
        kind, _, _, size = HEADER.unpack_from(log, at)
        yield kind, log[at + HEADER.size : at + HEADER.size + size]
        at += HEADER.size + size


def is_log(log: bytes, kinds: frozenset[int]) -> bool:
    """Return True if a saved log has whole messages, of these types or with versions."""
    at = 0
    while at + HEADER.size <= len(log) <= LONGEST_LOG:
        kind, _, _, size = HEADER.unpack_from(log, at)
        payload = log[at + HEADER.size : at + HEADER.size + size]
        if size > LARGEST_PAYLOAD or not (kind in kinds or (kind == _SEEN and _is_seen(payload))):
            return False
        at += HEADER.size + size
    return at == len(log)


def _is_seen(payload: bytes) -> bool:
    return len(payload) > _VERSION.size and payload[_VERSION.size :].isascii()
