"""The files by which a container's programs find names, as docker writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

HOSTS, RESOLV_CONF, HOSTNAME = "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"
#: What an address of ``--add-host`` may be: the gateway of the network ``bridge``.
HOST_GATEWAY: Final = "host-gateway"
#: Where a container's programs ask for names.
NAME_SERVER: Final = "127.0.0.11"
_HOSTS: Final = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("ff00::0", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


@dataclass(frozen=True)
class NameOptions:
    """What a user wants of a container's names: ``--dns``, ``--dns-search``, ``--dns-option`` and ``--add-host``, which
    are pairs of a name and an address.
    """

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class HostNames:
    """The host's resolv.conf(5): its servers with IPv4 addresses, search list and options."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> HostNames:
        """Return what the text of the file says. What is no address is left out."""
        servers: list[str] = []
        search: tuple[str, ...] = ()
        options: tuple[str, ...] = ()
        for line in text.splitlines():
            match line.split():
                case ["nameserver", address, *_]:
                    with suppress(ValueError):
                        servers.append(str(IPv4Address(address)))
                case ["search" | "domain", *names]:
                    search = tuple(names)
                case ["options", *words]:
                    options = tuple(words)
                case _:
                    continue
        return cls(tuple(servers), search, options)

    @property
    def reachable(self) -> tuple[str, ...]:
        """The servers that are not this host's loopback, which no container reaches."""
        return tuple(server for server in self.servers if not IPv4Address(server).is_loopback)


def read_host_names(path: str = RESOLV_CONF) -> HostNames:
    """Return what the host's file says; nothing if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return HostNames.of(file.read())
    except OSError:
        return HostNames()


def resolv_conf(host: HostNames, wanted: NameOptions, has_names: bool, gateway: str | None) -> bytes:
    """Return a container's resolv.conf. ``has_names``: it asks at :data:`NAME_SERVER`. Otherwise it asks the servers
    itself, and the ``gateway`` if the host's are none that it reaches.
    """
    search = wanted.search or host.search
    options = wanted.options or host.options
    if has_names:
        servers: Sequence[str] = (NAME_SERVER,)
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")
    else:
        servers = wanted.servers or host.reachable or ([gateway] if gateway else [])
    lines = [f"search {' '.join(search)}"] if search and tuple(search) != (".",) else []
    lines += [f"nameserver {server}" for server in servers]
    lines += [f"options {' '.join(options)}"] if options else []
    return "".join(f"{line}\n" for line in lines).encode()


def hosts_file(addresses: Sequence[IPv4Address], host_name: str, domain: str, wanted: NameOptions) -> bytes:
    """Return a container's /etc/hosts, with a line for each of its addresses."""
    whole = f"{host_name}.{domain}" if domain else host_name
    short = host_name if domain else host_name.partition(".")[0]
    name = whole if short == whole else f"{whole} {short}"
    lines = [*_HOSTS, *((address, host) for host, address in wanted.hosts)]
    lines += [(str(address), name) for address in addresses]
    return "".join(f"{address}\t{names}\n" for address, names in lines).encode()


def host_files(
    addresses: Sequence[IPv4Address], host_name: str, domain: str, wanted: NameOptions, resolver: bytes
) -> Mapping[str, bytes]:
    """Return the files by their paths."""
    return {
        HOSTNAME: f"{host_name}\n".encode(),
        HOSTS: hosts_file(addresses, host_name, domain, wanted),
        RESOLV_CONF: resolver,
    }
