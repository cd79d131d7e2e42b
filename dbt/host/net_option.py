"""How a network card of a machine is connected. :mod:`dbt.host.network` opens its end."""

from __future__ import annotations

from typing import NamedTuple


class Net(NamedTuple):
    """A network card: ``end`` is none, hub:NAME or unix:PATH, and ``mac`` its address, six bytes.

    Without an address it gets the one that QEMU would give it, 52:54:00:12:34:56 for the first card.
    """

    end: str
    mac: bytes = b""
