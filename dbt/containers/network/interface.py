"""What a network card of a container's guest is to be."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

_MAC: Final = 6


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


def some_mac() -> bytes:
    """Return the hardware address of a card that nobody has chosen one for: unicast, and locally administered."""
    drawn = secrets.token_bytes(_MAC)
    return bytes((drawn[0] & 0xFC | 2, *drawn[1:]))
