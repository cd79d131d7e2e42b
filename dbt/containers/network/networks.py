"""The networks of an engine, and which containers are in them."""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

import msgspec

from dbt.containers import VARIABLE
from dbt.containers.network import addresses
from dbt.containers.network.errors import Conflict, Forbidden, Invalid, NetworkFailure, NotFound
from dbt.containers.network.records import (
    BRIDGE,
    DRIVERS,
    HOST,
    NONE,
    OPTION_ICC,
    OPTION_MTU,
    OPTION_RATE,
    Attachment,
    Endpoint,
    Network,
    Subnet,
)
from dbt.daemon.database import Database

_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL) STRICT;
CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    network TEXT NOT NULL REFERENCES networks (id),
    container TEXT NOT NULL,
    card INTEGER NOT NULL,
    address TEXT NOT NULL,
    mac BLOB NOT NULL UNIQUE,
    names TEXT NOT NULL,
    UNIQUE (network, container),
    UNIQUE (network, address),
    UNIQUE (container, card)
) STRICT;
"""
#: Network cards that a container has.
MOST_CARDS: Final = 4
_NAME: Final = re.compile(r"\w+(?:[\w. -]*\w+)?", re.ASCII)
_LONGEST_NAME: Final = 255
_LEAST_MTU, _MOST_MTU = 68, 1500
_ONE_ONLY: Final = {HOST: "host", NONE: "null", "null": "null"}


class Networks:
    """The networks in the database at ``path``. Any thread may use them.

    ``routes`` tells to which subnets the host has routes; networks whose subnets nobody chooses keep off them.
    """

    def __init__(self, path: str, routes: Callable[[], list[IPv4Network]] = addresses.host_routes) -> None:
        self._routes = routes
        self._database = Database(path, _TABLES, _VERSION, NetworkFailure, VARIABLE)
        try:
            self._make_predefined()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def _make_predefined(self) -> None:
        there = {network.name for network in self.all()}
        for name, driver in DRIVERS.items():
            if name not in there:
                subnet = addresses.DEFAULT_BRIDGE if name == BRIDGE else None
                gateway = None if subnet is None else subnet[1]
                self._add(Network(_new_id(), name, driver, time.time(), subnet, gateway))

    # -- networks ------------------------------------------------------------------------------

    def all(self) -> list[Network]:
        """Return all networks, in the order in which they were made."""
        return [_decoded(record) for (record,) in self._database.rows("SELECT record FROM networks ORDER BY rowid")]

    def find(self, text: str) -> Network:
        """Return the network with an id, a name, or an id that begins so. Raise NotFound, or Invalid for an ambiguous
        beginning.
        """
        networks = self.all()
        for found in ([one for one in networks if one.id == text], [one for one in networks if one.name == text]):
            if found:
                return found[0]
        found = [one for one in networks if text and one.id.startswith(text)]
        if len(found) > 1:
            raise Invalid(f"network {text} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {text} not found")
        return found[0]

    def create(
        self,
        name: str,
        driver: str = "bridge",
        subnet: Subnet = Subnet(),  # noqa: B008 - it is a constant
        internal: bool = False,
        attachable: bool = False,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        ipam_options: Mapping[str, str] | None = None,
    ) -> Network:
        """Make a network. Raise Invalid, Forbidden, Conflict or NotFound with docker's texts."""
        options = dict(options or {})
        _check_name(name)
        _check_driver(driver or "bridge")
        _check_options(options)
        with self._database.writing() as database:
            others = self.all()
            if any(other.name == name for other in others):
                raise Conflict(f"network with name {name} already exists")
            network = self._with_addresses(
                Network(
                    id=_new_id(),
                    name=name,
                    driver=driver or "bridge",
                    created=time.time(),
                    internal=internal,
                    attachable=attachable,
                    options=options,
                    labels=dict(labels or {}),
                    ipam_options=dict(ipam_options or {}),
                ),
                subnet,
                [other.subnet for other in others if other.subnet is not None],
            )
            _insert(database, network)
        return network

    def _with_addresses(self, network: Network, wanted: Subnet, taken: list[IPv4Network]) -> Network:
        if wanted.subnet:
            subnet = addresses.parse_subnet(wanted.subnet)
            if any(subnet.overlaps(other) for other in taken):
                raise Forbidden("Pool overlaps with other one on this address space")
        elif wanted.pool or wanted.gateway or wanted.reserved:
            raise Invalid("invalid network config: an address range or a gateway needs a subnet")
        else:
            subnet = addresses.choose_subnet([*taken, *self._routes()])
        pool = addresses.parse_subnet(wanted.pool) if wanted.pool else None
        if pool is not None and not pool.subnet_of(subnet):
            raise Invalid(f"invalid network config: the range {pool} is not in the subnet {subnet}")
        reserved = {name: addresses.parse_address(text) for name, text in wanted.reserved.items()}
        gateway = addresses.parse_address(wanted.gateway) if wanted.gateway else None
        for address in (*reserved.values(), *([gateway] if gateway else [])):
            if not addresses.is_usable(subnet, address):
                raise Invalid(f"invalid network config: the address {address} is not in the subnet {subnet}")
        if gateway is None:
            gateway = addresses.choose_address(subnet, pool or subnet, set(reserved.values()))
        return replace(
            network,
            subnet=subnet,
            gateway=gateway,
            pool=pool,
            reserved=reserved,
            is_chosen=bool(wanted.subnet),
            shows_gateway=bool(wanted.gateway) or not wanted.subnet,
        )

    def _add(self, network: Network) -> None:
        with self._database.writing() as database:
            _insert(database, network)

    def remove(self, text: str) -> Network:
        """Remove a network. Raise Forbidden if it is one of docker's own, or a container is in it; NotFound."""
        with self._database.writing() as database:
            network = self.find(text)
            if network.is_predefined:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if self.endpoints(network):
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} has active endpoints"
                )
            database.execute("DELETE FROM networks WHERE id = ?", (network.id,))
        return network

    def prune(self, is_wanted: Callable[[Network], bool] = lambda network: True) -> list[Network]:
        """Remove the networks that no container is in and that are ``is_wanted``. Return them."""
        removed = []
        for network in self.all():
            if not network.is_predefined and is_wanted(network):
                try:
                    removed.append(self.remove(network.id))
                except (Forbidden, NotFound):  # a container has just come, or somebody else has removed it
                    continue
        return removed

    # -- containers ----------------------------------------------------------------------------

    def endpoints(self, network: Network) -> list[Endpoint]:
        """Return what containers have of a network, in the order in which they came."""
        return self._endpoints("network = ?", network.id)

    def endpoints_of(self, container: str) -> list[Endpoint]:
        """Return what a container has of networks, by its cards."""
        return sorted(self._endpoints("container = ?", container), key=lambda one: one.card)

    def _endpoints(self, condition: str, value: str) -> list[Endpoint]:
        rows = self._database.rows(
            f"SELECT id, network, container, card, address, mac, names FROM endpoints WHERE {condition} ORDER BY rowid",
            value,
        )
        return [
            Endpoint(id, network, container, card, IPv4Address(address), bytes(mac), tuple(msgspec.json.decode(names)))
            for id, network, container, card, address, mac, names in rows
        ]

    def attach(self, container: str, wanted: Attachment) -> Endpoint:
        """Give a container addresses in a network, and its next card. Raise Forbidden, Invalid or NotFound."""
        with self._database.writing(durable=False) as database:
            network = self.find(wanted.network)
            self._check_member(container, network, wanted)
            address = self._address(network, wanted)
            mac = addresses.parse_mac(wanted.mac) if wanted.mac else addresses.mac_of(address)
            if self._database.rows("SELECT 1 FROM endpoints WHERE mac = ?", mac):
                raise Forbidden(f"the hardware address {addresses.mac_text(mac)} is already in use by a container")
            cards = {one.card for one in self.endpoints_of(container)}
            free = [card for card in range(MOST_CARDS) if card not in cards]
            if not free:
                raise Forbidden(f"a container can be in {MOST_CARDS} networks at most, as it has so many cards")
            names = tuple(dict.fromkeys(name.lower() for name in wanted.names))
            one = Endpoint(_new_id(), network.id, container, free[0], address, mac, names)
            database.execute(
                "INSERT INTO endpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
                (one.id, one.network, container, one.card, str(address), mac, msgspec.json.encode(names).decode()),
            )
        return one

    def _check_member(self, container: str, network: Network, wanted: Attachment) -> None:
        if network.driver == "host":
            raise Invalid(
                "a container cannot be in the network host: it is a virtual machine, and has no interface of this "
                "host. Use a bridge network, and publish ports with -p"
            )
        if network.subnet is None:
            raise Forbidden(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
            )
        if any(one.network == network.id for one in self.endpoints_of(container)):
            raise Forbidden(f"endpoint with name {container[:12]} already exists in network {network.name}")
        if wanted.address and network.is_predefined:
            raise Invalid("user specified IP address is supported on user defined networks only")
        if wanted.address and not network.is_chosen:
            raise Invalid(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )

    def _address(self, network: Network, wanted: Attachment) -> IPv4Address:
        assert network.subnet is not None and network.gateway is not None
        taken = {one.address for one in self.endpoints(network)} | {network.gateway, *network.reserved.values()}
        if not wanted.address:
            return addresses.choose_address(network.subnet, network.pool or network.subnet, taken)
        address = addresses.parse_address(wanted.address)
        if not addresses.is_usable(network.subnet, address):
            raise Invalid(f"no configured subnet contains IP address {address}")
        if address in taken:
            raise Forbidden("Address already in use")
        return address

    def detach(self, container: str, network: Network) -> Endpoint:
        """Take a container out of a network. Raise Forbidden if it is not in it."""
        with self._database.writing(durable=False) as database:
            found = [one for one in self.endpoints_of(container) if one.network == network.id]
            if not found:
                raise Forbidden(f"container {container} is not connected to network {network.name}")
            database.execute("DELETE FROM endpoints WHERE id = ?", (found[0].id,))
        return found[0]

    def detach_all(self, container: str) -> None:
        """Take a container out of all networks."""
        with self._database.writing(durable=False) as database:
            database.execute("DELETE FROM endpoints WHERE container = ?", (container,))

    def detach_others(self, containers: Iterable[str]) -> None:
        """Take all containers out of all networks but those that run: those of an engine that was killed."""
        running = set(containers)
        for (container,) in self._database.rows("SELECT DISTINCT container FROM endpoints"):
            if container not in running:
                self.detach_all(container)

    # -- names ---------------------------------------------------------------------------------

    def addresses_of(self, container: str, name: str) -> list[IPv4Address] | None:
        """Return the addresses of a name as a container knows it, or None if it does not."""
        name = name.lower()
        found = []
        for network in self._networks_with_names(container):
            suffix = f".{network.name.lower()}"
            wanted = {name, name.removesuffix(suffix)}
            found += [one.address for one in self.endpoints(network) if wanted & set(one.names)]
        return found or None

    def name_of(self, container: str, address: IPv4Address) -> str | None:
        """Return the name that belongs to an address in a container's networks, or None."""
        for network in self._networks_with_names(container):
            for one in self.endpoints(network):
                if one.address == address and one.names:
                    return f"{one.names[0]}.{network.name}"
        return None

    def _networks_with_names(self, container: str) -> list[Network]:
        found = [self.find(one.network) for one in self.endpoints_of(container)]
        return [network for network in found if network.has_names]


def _new_id() -> str:
    return secrets.token_hex(32)


def _check_name(name: str) -> None:
    if name in (*DRIVERS, "default"):
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if not name.strip() or len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise (Invalid if name else NetworkFailure)(f"invalid name: {name}")


def _check_driver(driver: str) -> None:
    if driver in _ONE_ONLY:
        raise Forbidden(f'only one instance of "{_ONE_ONLY[driver]}" network is allowed')
    if driver != "bridge":
        raise NotFound(f'could not find plugin {driver}: networks of containers have the driver "bridge" here')


def _check_options(options: Mapping[str, str]) -> None:
    if OPTION_RATE in options:
        addresses.parse_rate(options[OPTION_RATE])
    if options.get(OPTION_ICC, "true") not in ("true", "false"):
        raise Invalid(f'invalid value for the option {OPTION_ICC}: "{options[OPTION_ICC]}" is neither true nor false')
    mtu = options.get(OPTION_MTU, str(_MOST_MTU))
    if not (mtu.isascii() and mtu.isdigit() and len(mtu) < 6 and _LEAST_MTU <= int(mtu) <= _MOST_MTU):
        raise Invalid(f'invalid value for the option {OPTION_MTU}: "{mtu}" is not a number from 68 to 1500')


def _insert(database: sqlite3.Connection, network: Network) -> None:
    database.execute("INSERT INTO networks VALUES (?, ?, ?)", (network.id, network.name, _encoded(network)))


def _encoded(network: Network) -> str:
    return msgspec.json.encode(asdict(network), enc_hook=str).decode()


def _decoded(record: str) -> Network:
    return msgspec.json.decode(record, type=Network, dec_hook=_address_of)


def _address_of(kind: type, text: object) -> object:
    if kind in (IPv4Address, IPv4Network):
        return kind(text)
    raise NetworkFailure(f"the database of networks has a {kind.__name__}, which it cannot have")
