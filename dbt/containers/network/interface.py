"""What a network card of a container's guest is to be."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network


@dataclass(frozen=True)
class Interface:
    """A network card, eth0 if ``card`` is 0, with its addresses. ``gateway`` is where everything goes that has no other
    way, or None if another card has that.
    """

    card: int
    mac: bytes
    address: IPv4Address
    subnet: IPv4Network
    gateway: IPv4Address | None = None
    mtu: int = 1500
