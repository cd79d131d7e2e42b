"""How a network card of a machine is connected. :mod:`dbt.host.network` opens its end."""

from __future__ import annotations

from typing import Final, NamedTuple

#: The end at which nobody is.
NOWHERE: Final = "none"
#: The end at which ``passt`` is.
USER: Final = "user"


class NetworkError(ValueError):
    """Raised for an end that cannot be reached. The text says why."""


class Forward(NamedTuple):
    """A port of the host whose connections or datagrams go to a port of the guest.

    ``protocol`` is tcp or udp, ``address`` the host's IPv4 address, and both ports are numbers from 1 to 65535.
    """

    protocol: str
    address: str
    port: int
    guest_port: int


class Net(NamedTuple):
    """A network card: ``end`` is none, user, hub:NAME, unix:PATH or tap:NAME, and ``mac`` its address, six bytes.

    Without an address it gets the one that QEMU would give it, 52:54:00:12:34:56 for the first card. ``forwards`` are
    for the end user.
    """

    end: str
    mac: bytes = b""
    forwards: tuple[Forward, ...] = ()

    @property
    def reaches_outside(self) -> bool:
        """True if somebody who does not follow this process's virtual time may answer there."""
        return self.end.partition(":")[0] in (USER, "unix", "tap")

    def disconnected(self) -> Net:
        """Return the same card without a network."""
        return self._replace(end=NOWHERE, forwards=())


def lost_text(name: str, why: str) -> str:
    """Return what the user is told when a network has gone during a run."""
    return f"the network {name} is gone: {why}. The guest's card is connected to nothing now"
