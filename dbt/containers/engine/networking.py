"""The networks of a container: which its user wants, in which it is, and what docker says of that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.events import Events
from dbt.containers.engine.port_bindings import container_port, forwards
from dbt.containers.engine.records import Definition
from dbt.containers.engine.versions import ApiVersion
from dbt.containers.network.addresses import DEFAULT_BRIDGE
from dbt.containers.network.errors import Forbidden, NetworkFailure, NotFound
from dbt.containers.network.host_files import HOST_GATEWAY, NameOptions
from dbt.containers.network.membership import HostName, Membership, Switchboard
from dbt.containers.network.records import BRIDGE, NONE, Attachment, Endpoint, Network
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.host.net_option import Forward

_DEFAULT_MODES: Final = frozenset({"", "default", "bridge"})
_SHORT: Final = 12
_EMPTY: Final = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "MacAddress": "",
    "DriverOpts": None,
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
}


class ContainerNetworks:
    """The networks of one container. ``name`` returns the container's name. It belongs to the engine's event loop."""

    def __init__(self, board: Switchboard, events: Events, definition: Definition, name: Callable[[], str]) -> None:
        self._board = board
        self._events = events
        self._definition = definition
        self._name = name
        #: Its place, while it runs.
        self.place: Membership | None = None

    def wanted(self) -> dict[str, dict[str, Any]]:
        """Return docker's settings for each network that the user wants, by the texts that name them."""
        mode = self._definition.host.network_mode
        primary = BRIDGE if mode in _DEFAULT_MODES else mode
        chosen = self._definition.networking
        own = chosen.get(primary) or (chosen.get("default") if primary == BRIDGE else None) or {}
        return {
            primary: own,
            **{name: value or {} for name, value in chosen.items() if name not in (primary, "default")},
        }

    def _find(self, text: str) -> Network:
        return self._board.networks.find(text)

    def names(self) -> list[str]:
        """Return the names and ids of the networks in which it is, or will be when it runs."""
        found = []
        for text in self.wanted():
            with contextlib.suppress(NetworkFailure):
                network = self._find(text)
                found += [network.name, network.id]
        return found

    @property
    def cards(self) -> frozenset[str]:
        """The names of the network interfaces that are in a network, as eth0."""
        return frozenset(f"eth{one.card}" for one in self.place.endpoints) if self.place is not None else frozenset()

    # -- its life ------------------------------------------------------------------------------

    async def join(self, publishes: bool = True) -> Membership:
        """Have a place in the networks: the container is about to start. Its ports are free, or it publishes none
        before :meth:`publish`. Raise NetworkFailure.
        """
        pairs = [(self._find(text), settings) for text, settings in self.wanted().items()]
        attachments = [self._attachment(network, settings) for network, settings in pairs if network.name != NONE]
        ports = self._forwards() if publishes else []
        await self.leave()  # what a start has left that failed
        networks = self._board.networks
        if networks.endpoints_of(self._definition.id):  # or an end on a disk that was full
            networks.detach_all(self._definition.id)
        place = await self._board.join(self._definition.id, self._host_name(), attachments, ports)
        self.place = place
        for network, _ in pairs:
            self._tell("connect", network)
        return place

    def _forwards(self) -> list[Forward]:
        return forwards(self._definition.host, self._definition.config.exposed_ports or {})

    def publish(self) -> None:
        """Let a place that is not connected yet have the ports that the user wants. Raise NetworkFailure."""
        assert self.place is not None
        self._board.publish(self.place, self._forwards())

    async def rejoin(self, ports: list[Forward]) -> Membership:
        """Have the place that the container had when the engine was killed."""
        self.place = await self._board.rejoin(self._definition.id, self._host_name(), ports)
        return self.place

    async def leave(self) -> None:
        """Have no place any more."""
        place, self.place = self.place, None
        if place is not None:
            networks = [self._find(one.network) for one in place.endpoints]
            await place.leave()
            for network in networks:
                self._tell("disconnect", network)

    def _host_name(self) -> HostName:
        config, host = self._definition.config, self._definition.host
        hosts = [one.partition(":") for one in host.extra_hosts or ()]
        gateway = str(DEFAULT_BRIDGE[1])
        options = NameOptions(
            tuple(host.dns or ()),
            tuple(host.dns_search or ()),
            tuple(host.dns_options or ()),
            tuple((name, gateway if address == HOST_GATEWAY else address) for name, _, address in hosts),
        )
        return HostName(config.hostname or self._definition.id[:_SHORT], config.domainname, options)

    def _attachment(self, network: Network, settings: dict[str, Any]) -> Attachment:
        own = settings.get("IPAMConfig") or {}
        names = (self._name(), *(settings.get("Aliases") or ()), self._definition.id[:_SHORT])
        mac = settings.get("MacAddress") or (self._definition.config.mac_address or "")
        return Attachment(network.id, tuple(dict.fromkeys(names)), own.get("IPv4Address") or "", mac)

    def _tell(self, action: str, network: Network) -> None:
        attributes = {"container": self._definition.id, "name": network.name, "type": network.driver}
        self._events.tell("network", action, network.id, attributes)

    async def connect(self, vm: ContainerVm | None, text: str, settings: dict[str, Any]) -> None:
        """Want one more network, and be in it if the container runs. Raise NetworkFailure."""
        network = self._find(text)
        if any(self._find(one).id == network.id for one in self.wanted()):
            raise Forbidden(f"endpoint with name {self._name()} already exists in network {network.name}")
        if vm is not None and self.place is not None:
            await self.place.connect(vm, self._attachment(network, settings))
            self._tell("connect", network)
        self._definition.networking[network.name] = settings

    async def disconnect(self, vm: ContainerVm | None, text: str) -> None:
        """Want a network no more. Raise NetworkFailure if it does not want it."""
        network = self._find(text)
        found = [one for one in self.wanted() if self._find(one).id == network.id]
        if not found:
            raise Forbidden(f"container {self._definition.id} is not connected to network {network.name}")
        if vm is not None and self.place is not None:
            await self.place.disconnect(vm, network)
            self._tell("disconnect", network)
        for one in found:
            self._definition.networking.pop(one, None)
        if self._is_primary(found):
            others = list(self._definition.networking)
            self._definition.host.network_mode = others[0] if others else NONE

    def _is_primary(self, texts: list[str]) -> bool:
        mode = self._definition.host.network_mode
        return (BRIDGE if mode in _DEFAULT_MODES else mode) in texts

    # -- for docker's clients ------------------------------------------------------------------

    def json(self, version: ApiVersion, was_started: bool) -> dict[str, Any]:
        """Return docker's description of each network, by name, of a container that has run once or never."""
        endpoints = {one.network: one for one in self.place.endpoints} if self.place is not None else {}
        found = {}
        for text, settings in self.wanted().items():
            try:
                network = self._find(text)
            except NotFound:
                found[text] = {**_EMPTY, **_chosen(settings)}
                continue
            found[network.name] = self._network_json(network, settings, endpoints.get(network.id), version, was_started)
        return found

    def _network_json(
        self,
        network: Network,
        settings: dict[str, Any],
        endpoint: Endpoint | None,
        version: ApiVersion,
        was_started: bool,
    ) -> dict[str, Any]:
        one: dict[str, Any] = {**_EMPTY, **_chosen(settings)}
        if network.has_names and version < (1, 45):
            one["Aliases"] = [*(one["Aliases"] or []), self._definition.id[:_SHORT]]
        if version >= (1, 44):
            names = [self._name(), *(settings.get("Aliases") or []), self._definition.id[:_SHORT]]
            one["DNSNames"] = list(dict.fromkeys(names)) if network.has_names else None
        one["NetworkID"] = network.id if was_started else ""
        if endpoint is not None:
            assert network.subnet is not None
            one["EndpointID"] = endpoint.id
            one["Gateway"] = "" if network.internal else str(network.gateway)
            one["IPAddress"], one["IPPrefixLen"] = str(endpoint.address), network.subnet.prefixlen
            one["MacAddress"] = endpoint.mac.hex(":")
        return one

    def settings_json(self, version: ApiVersion, was_started: bool) -> dict[str, Any]:
        """Return docker's description of the whole."""
        networks = self.json(version, was_started)
        first = networks.get(BRIDGE) or _EMPTY
        return {
            "Bridge": "",
            "SandboxID": self._definition.id[::-1] if was_started else "",
            "SandboxKey": f"/var/run/docker/netns/{self._definition.id[::-1][:_SHORT]}" if was_started else "",
            "Ports": self._ports_by_name(),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            **{name: first[name] for name in _EMPTY if name[0] in "EGIM" and name not in ("IPAMConfig",)},
            "Networks": networks,
        }

    def _ports_by_name(self) -> dict[str, list[dict[str, str]] | None]:
        if self.place is None:
            return {}
        found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(self._definition.config.exposed_ports or {})
        for one in self.place.ports:
            name = f"{one.guest_port}/{one.protocol}"
            found[name] = [*(found.get(name) or []), {"HostIp": one.address, "HostPort": str(one.port)}]
        return found

    def ports_json(self) -> list[dict[str, Any]]:
        """Return docker's list of ports."""
        if self.place is None:
            return []
        published = {(one.guest_port, one.protocol) for one in self.place.ports}
        found: list[dict[str, Any]] = []
        for name in self._definition.config.exposed_ports or {}:
            try:
                number, kind = container_port(name)
            except BadParameter:  # the image, or a client, has written something else: nothing is there
                continue
            if (number, kind) not in published:
                found.append({"PrivatePort": number, "Type": kind})
        for one in self.place.ports:
            row = {"IP": one.address, "PrivatePort": one.guest_port, "PublicPort": one.port, "Type": one.protocol}
            found.append(row)
        return found


def _chosen(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a user has chosen of the settings of a network."""
    names = ("IPAMConfig", "Links", "Aliases", "DriverOpts")
    return {name: settings[name] for name in names if settings.get(name) is not None}
