"""How a machine's socket device is connected. :mod:`dbt.host.vsock` opens its end."""

from __future__ import annotations

from typing import Final, NamedTuple

#: The CIDs that a guest can have: those below are of the hypervisor, of one's own machine, and of the host.
FIRST_CID: Final = 3
LAST_CID: Final = (1 << 32) - 2


class Vsock(NamedTuple):
    """A socket device: ``cid`` is the guest's number, and ``end`` is unix:PATH or none.

    Who connects to the socket PATH on the host and sends ``CONNECT PORT`` and a line feed is connected to that port of
    the guest. A program of the guest that connects to a port of the host (CID 2) is connected to the socket
    ``PATH_PORT``.
    """

    cid: int
    end: str
