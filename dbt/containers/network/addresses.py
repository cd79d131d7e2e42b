"""Addresses of networks and containers: which there are, which are free, and the hardware address that follows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Network, NetmaskValueError, ip_network
from typing import Final

from dbt.containers.network.errors import Forbidden, Invalid, NetworkFailure

#: The subnet of the network "bridge", and from where others have theirs if nobody says so: docker's.
DEFAULT_BRIDGE: Final = IPv4Network("172.17.0.0/16")
_POOLS: Final = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)
_SMALLEST_PREFIX, _LARGEST_PREFIX = 8, 30
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")
#: The beginning of hardware addresses that follow from IPv4 addresses.
_MAC_PREFIX: Final = b"\x02\x42"
_ROUTES: Final = "/proc/net/route"
#: What a rate is measured in, as tc(8) has it: bits in a second, or bytes if it is called bps.
_RATE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)(k|m|g|t|ki|mi|gi|ti)?(bit|bps)?", re.IGNORECASE)
_FACTORS: Final = {
    **{"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12},
    **{"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40},
}
_HIGHEST_RATE: Final = 1 << 47


def parse_subnet(text: str) -> IPv4Network:
    """Return the subnet that a text names. Raise Invalid."""
    try:
        found = ip_network(text, strict=False)
    except (ValueError, AddressValueError, NetmaskValueError):
        raise Invalid(f"Invalid subnet {text} : invalid CIDR address: {text}") from None
    if isinstance(found, IPv6Network):
        raise Invalid(f"Invalid subnet {text} : networks of containers have IPv4 addresses alone")
    if "/" not in text:
        raise Invalid(f"Invalid subnet {text} : invalid CIDR address: {text}")
    if not _SMALLEST_PREFIX <= found.prefixlen <= _LARGEST_PREFIX:
        raise Invalid(f"Invalid subnet {text} : its prefix has {_SMALLEST_PREFIX} to {_LARGEST_PREFIX} bits")
    if found.is_multicast or found.is_loopback or found.is_unspecified or found.is_link_local:
        raise Invalid(f"Invalid subnet {text} : these are no addresses of a network")
    return found


def parse_address(text: str) -> IPv4Address:
    """Return the address that a text names. Raise Invalid."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise Invalid(f"invalid address {text}: it is no IPv4 address") from None


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return the first subnet of the pools that overlaps no other one. Raise NetworkFailure if there is none."""
    others = list(taken)
    for pool in _POOLS:
        if not any(pool.overlaps(other) for other in others):
            return pool
    raise NetworkFailure("could not find an available, non-overlapping IPv4 address pool among the defaults to assign")


def host_routes() -> list[IPv4Network]:
    """Return the subnets to which this host has routes, besides the default one: a container could not reach what has
    the same addresses there.
    """
    try:
        with open(_ROUTES, encoding="ascii") as file:
            lines = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return []
    found = []
    for line in lines:
        target, mask = (int.from_bytes(bytes.fromhex(line[column])[::-1], "big") for column in (1, 7))
        if mask:
            found.append(IPv4Network((target, mask.bit_count()), strict=False))
    return found


def choose_address(subnet: IPv4Network, pool: IPv4Network, taken: Collection[IPv4Address]) -> IPv4Address:
    """Return the lowest address of ``pool``, a part of ``subnet``, that is nobody's. Raise Forbidden if all are."""
    for address in _usable(subnet, pool):
        if address not in taken:
            return address
    raise Forbidden("no available IPv4 addresses on this network's address pools")


def _usable(subnet: IPv4Network, pool: IPv4Network) -> Iterator[IPv4Address]:
    for number in range(int(pool.network_address), int(pool.broadcast_address) + 1):
        address = IPv4Address(number)
        if address not in (subnet.network_address, subnet.broadcast_address):
            yield address


def is_usable(subnet: IPv4Network, address: IPv4Address) -> bool:
    """Return whether a host of the subnet can have an address."""
    return address in subnet and address not in (subnet.network_address, subnet.broadcast_address)


def mac_of(address: IPv4Address) -> bytes:
    """Return the hardware address that follows from an IPv4 address: 02:42 and its bytes, as docker has it."""
    return _MAC_PREFIX + address.packed


def parse_mac(text: str) -> bytes:
    """Return the hardware address that a text names. Raise Invalid for what is none, or for one of a group."""
    if not _MAC.fullmatch(text):
        raise Invalid(f"{text} is not a valid mac address")
    found = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if found[0] & 1 or not any(found):
        raise Invalid(f"{text} is not a valid mac address: no card can have it")
    return found


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def parse_rate(text: str) -> int:
    """Return a rate such as "1mbit" in bits in a second. Raise Invalid."""
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise Invalid(f"invalid rate {text!r:.40}: write a number and a unit, as 500kbit, 1mbit or 10gbit")
    factor = _FACTORS[(found[2] or "").lower()] * (8 if (found[3] or "").lower() == "bps" else 1)
    whole, _, fraction = found[1].partition(".")
    rate = int(whole) * factor + int((fraction or "0").ljust(6, "0")) * factor // 10**6
    if not 1 <= rate <= _HIGHEST_RATE:
        raise Invalid(f"invalid rate {text!r:.40}: it is 1 bit in a second at least, and 100 Tbit at most")
    return rate
