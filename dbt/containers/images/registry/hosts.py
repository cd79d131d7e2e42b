"""Which hosts a registry may send us to, and which may speak HTTP without TLS."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dbt.containers.images.errors import RegistryError
from dbt.containers.images.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    import httpx

#: The host of the registry that names without a domain are in.
_HUB: Final = "registry-1.docker.io"
_NAMES_OF_THIS_HOST: Final = ("localhost", "localhost.localdomain", "ip6-localhost")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def host_of(domain: str) -> str:
    """Return the host, with its port, that has the images of a domain."""
    return _HUB if domain == DEFAULT_DOMAIN else domain


def is_internal(host: str) -> bool:
    """Return True for this host, and for what only it or its link can reach, as far as the text says so."""
    if host.lower().rstrip(".") in _NAMES_OF_THIS_HOST or host.lower().rstrip(".").endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_link_local or address.is_unspecified)


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class InsecureHosts:
    """The registries whose certificates are not checked, and which may speak HTTP: those of this host, and ``listed``.

    A listed one is a host, a host with its port, or a network as 10.1.0.0/16. Raise RegistryError for what is none.
    """

    def __init__(self, listed: Iterable[str] = ()) -> None:
        self._hosts = {entry.lower() for entry in listed if "/" not in entry}
        try:
            self._networks = [ipaddress.ip_network(entry, strict=False) for entry in listed if "/" in entry]
        except ValueError as error:
            raise RegistryError(f"an insecure registry is a host or a network: {error}") from None

    def allows(self, host: str) -> bool:
        """Return True for a host, with or without its port, whose TLS is not checked."""
        bare = _without_port(host)
        if {host.lower(), bare.lower()} & self._hosts or bare.lower() in _NAMES_OF_THIS_HOST:
            return True
        address = _address(bare)
        if address is None:
            return False
        return address.is_loopback or any(
            address in network for network in self._networks if network.version == address.version
        )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def check_hop(origin: httpx.URL, target: httpx.URL, insecure: InsecureHosts) -> None:
    """Raise RegistryError if a registry at ``origin`` must not send us to ``target``, by a redirect, for a token or for
    an upload: it leads from TLS to none, or from another host to this one, whose services are none of its business.
    """
    plain_is_fine = origin.scheme == "http" or insecure.allows(target.netloc.decode("ascii"))
    if target.scheme != "https" and not (target.scheme == "http" and plain_is_fine):
        raise RegistryError(f"the registry {origin.host} leads to {target.scheme or 'nothing'}: {_shown(target)}")
    if target.userinfo:
        raise RegistryError(f"the registry {origin.host} leads to an address with a user's name: {_shown(target)}")
    if target.port is not None and not 0 < target.port < 1 << 16:
        raise RegistryError(f"the registry {origin.host} leads to no port: {_shown(target)}")
    if not target.host or (is_internal(target.host) and not is_internal(origin.host)):
        raise RegistryError(f"the registry {origin.host} leads to this host: {_shown(target)}")


def is_same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Return True if two addresses have the same scheme, host and port."""
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _shown(url: httpx.URL) -> str:
    """Return an address for a message: without its query, which may have a secret."""
    return repr(str(url.copy_with(query=None, fragment=None, userinfo=None))[:200])
