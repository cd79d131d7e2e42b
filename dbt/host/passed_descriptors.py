"""File descriptors that come over a unix socket."""

from __future__ import annotations

import socket
from array import array
from collections.abc import Iterable


def passed_descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that have come, given the ancillary data of ``recvmsg`` (unix(7)).

    Whoever calls this has to close them. What is cut off in the middle of a descriptor is left out.
    """
    numbers = array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    return list(numbers)
