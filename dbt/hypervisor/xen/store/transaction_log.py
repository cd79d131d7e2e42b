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
_SEEN: Final = 0
_VERSION: Final = struct.Struct("<Q")


def with_request(log: bytes, kind: int, payload: bytes) -> bytes:
    """Return the log with one more request."""
    return log + HEADER.pack(kind, 0, 0, len(payload)) + payload


def with_seen(log: bytes, path: str, version: int) -> bytes:
    """Return the log with the version of a node, unless it has one of it already."""
    if path in seen(log):
        return log
    return with_request(log, _SEEN, _VERSION.pack(version) + path.encode())


def requests(log: bytes) -> list[tuple[int, bytes]]:
    """Return the requests, with their types."""
    return [(kind, payload) for kind, payload in _messages(log) if kind != _SEEN]


def seen(log: bytes) -> dict[str, int]:
    """Return the versions of the nodes that the transaction has looked at, by their paths."""
    found = (payload for kind, payload in _messages(log) if kind == _SEEN)
    return {payload[_VERSION.size :].decode(): _VERSION.unpack_from(payload)[0] for payload in found}


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
