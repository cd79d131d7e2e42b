"""A container in its networks, and the switchboard of all of them. All of it belongs to one event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from dbt.containers.network.addresses import mac_of, parse_rate
from dbt.containers.network.errors import Forbidden
from dbt.containers.network.host_files import HostNames, NameOptions, host_files, read_host_names, resolv_conf
from dbt.containers.network.interface import Interface
from dbt.containers.network.link import card_pair
from dbt.containers.network.names import Names
from dbt.containers.network.networks import MOST_CARDS, Networks
from dbt.containers.network.outside import Passt, check_ports, until_free
from dbt.containers.network.records import OPTION_RATE, Attachment, Endpoint, Network
from dbt.containers.network.switch import Card, Member, Switch, to_card
from dbt.host.net_option import Forward

_DNS_PORT: Final = 53
_log = logging.getLogger(__name__)


class Guest(Protocol):
    """What a membership needs of the container's VM."""

    async def plug(self, cards: Mapping[int, int]) -> None:
        """Connect network cards to sockets."""

    async def set_interfaces(self, interfaces: Sequence[Interface], down: Sequence[int] = ()) -> None:
        """Give network cards their addresses, and let others have none."""

    async def change_files(self, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        """Let files about names have other contents, but for those that the container has changed itself."""

    def serve_names(self, answerer: Callable[[bytes, bool], Awaitable[bytes]]) -> None:
        """Answer questions about names."""


@dataclass(frozen=True)
class HostName:
    """How a container calls itself, and what its user wants of names."""

    name: str
    domain: str = ""
    options: NameOptions = field(default_factory=NameOptions)


class Switchboard:
    """The switch, and the containers that are in networks.

    ``say`` is told what users should know, such as that a program is not installed. ``host`` returns the host's name
    servers.
    """

    def __init__(
        self,
        networks: Networks,
        say: Callable[[str], None] = _log.warning,
        host: Callable[[], HostNames] = read_host_names,
    ) -> None:
        self.networks = networks
        self.switch = Switch()
        self.say, self.host = say, host
        self.memberships: dict[str, Membership] = {}

    async def join(
        self, container: str, name: HostName, attachments: Sequence[Attachment], ports: Sequence[Forward] = ()
    ) -> Membership:
        """Give a container that is about to start its place in networks. ``ports`` are published; one of 0 becomes some
        that is free. Raise NetworkFailure, after which it is in none.
        """
        self._check_new(container)
        published = check_ports(ports, [port for one in self.memberships.values() for port in one.ports])
        try:
            for attachment in attachments:
                await asyncio.to_thread(self.networks.attach, container, attachment)
            return self._add(container, name, published)
        except BaseException:
            await asyncio.to_thread(self.networks.detach_all, container)
            raise

    def publish(self, member: Membership, ports: Sequence[Forward]) -> None:
        """Let a container have ports when it is attached, which are free as of :meth:`join`. Raise NetworkFailure."""
        member.ports = check_ports(ports, [port for one in self.memberships.values() for port in one.ports])

    async def rejoin(self, container: str, name: HostName, ports: Sequence[Forward] = ()) -> Membership:
        """Return the place of a container that runs already, of which the records tell."""
        self._check_new(container)
        return self._add(container, name, list(ports))

    def _check_new(self, container: str) -> None:
        if container in self.memberships:
            raise Forbidden(f"the container {container[:12]} is in its networks already")

    def _add(self, container: str, name: HostName, ports: list[Forward]) -> Membership:
        found = self.memberships[container] = Membership(self, container, name, ports)
        return found

    async def close(self) -> None:
        """End all links. Records stay: those who run can be found again."""
        for one in list(self.memberships.values()):
            one.close()


class Membership:
    """The place of one container. It is made by :meth:`Switchboard.join`."""

    def __init__(self, board: Switchboard, container: str, name: HostName, ports: list[Forward]) -> None:
        self._board, self._container, self._name = board, container, name
        #: The ports of the host that are published.
        self.ports = ports
        self._cards: dict[int, Card] = {}
        self._members: dict[int, Member] = {}
        self._outsides: dict[int, Passt] = {}
        self._lock = asyncio.Lock()
        self._plan()

    def _plan(self) -> None:
        """Learn from the records where the container is."""
        networks = self._board.networks
        self.endpoints: list[Endpoint] = networks.endpoints_of(self._container)
        self._networks: dict[int, Network] = {one.card: networks.find(one.network) for one in self.endpoints}
        outer = [one.card for one in self.endpoints if not self._networks[one.card].internal]
        self._gateway = outer[0] if outer else None

    @property
    def has_names(self) -> bool:
        return any(network.has_names for network in self._networks.values())

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """What the network cards are to be."""
        return tuple(self._interface(one) for one in self.endpoints)

    def _interface(self, one: Endpoint) -> Interface:
        network = self._networks[one.card]
        assert network.subnet is not None
        gateway = network.gateway if one.card == self._gateway else None
        return Interface(one.card, one.mac, one.address, network.subnet, gateway, network.mtu)

    @property
    def rate(self) -> int | None:
        """The lowest rate of the container's networks in bits in a second, or None if they have none."""
        rates = [parse_rate(text) for one in self._networks.values() if (text := one.options.get(OPTION_RATE))]
        return min(rates, default=None)

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files of the container that are about names, by their paths."""
        gateway = None if self._gateway is None else str(self._networks[self._gateway].gateway)
        options = self._name.options
        resolver = resolv_conf(self._board.host(), options, self.has_names, gateway)
        addresses = [one.address for one in self.endpoints]
        return host_files(addresses, self._name.name, self._name.domain, options, resolver)

    # -- for the runtime -----------------------------------------------------------------------

    async def attach(self, vm: Guest) -> None:
        """Connect the cards of the container's VM: all of them if it is in any network, so that it can be in more."""
        if not self.endpoints:
            return
        ends: dict[int, socket.socket] = {}
        try:
            for number in range(MOST_CARDS):
                ours, ends[number] = card_pair()
                self._cards[number] = Card(ours)
            await vm.plug({number: end.fileno() for number, end in ends.items()})
        finally:
            for end in ends.values():
                end.close()
        for one in self.endpoints:
            self._join(one)
        if self.ports and self._gateway is not None:
            await self._outsides[self._gateway].publish(self.ports)
        if self.has_names:
            self._serve_names(vm)

    def _serve_names(self, vm: Guest) -> None:
        servers = self._name.options.servers or self._board.host().servers
        outer = servers if self._gateway is not None else ()
        vm.serve_names(Names(self._board.networks, self._container, [(one, _DNS_PORT) for one in outer]).answer)

    def _join(self, one: Endpoint) -> None:
        network, interface = self._networks[one.card], self._interface(one)
        member = self._members[one.card] = self._board.switch.join(self._cards[one.card], network, interface)
        if not network.internal:
            assert network.gateway is not None
            outside = Passt(interface, mac_of(network.gateway), str(network.gateway), to_card(member), self._board.say)
            member.outside = self._outsides[one.card] = outside

    @property
    def has_sent(self) -> bool:
        """True if a card has sent something, of which more may be about to leave."""
        return any(member.has_sent for member in self._members.values())

    # -- while it runs -------------------------------------------------------------------------

    async def connect(self, vm: Guest, attachment: Attachment) -> Endpoint:
        """Let a container that runs be in one more network. Raise NetworkFailure."""
        async with self._lock:
            if not self._cards:
                raise Forbidden(
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                )
            had_names = self.has_names
            one = await asyncio.to_thread(self._board.networks.attach, self._container, attachment)
            await self._changed(vm)
            if self.has_names and not had_names:
                self._serve_names(vm)
            return one

    async def disconnect(self, vm: Guest, network: Network) -> Endpoint:
        """Let a container that runs be in a network no more. Raise Forbidden if it is not in it."""
        async with self._lock:
            one = await asyncio.to_thread(self._board.networks.detach, self._container, network)
            self._leave(one.card)
            await self._changed(vm, [one.card])
            return one

    async def _changed(self, vm: Guest, down: Sequence[int] = ()) -> None:
        """Let the guest and the switch be as the records say."""
        gateway, before = self._gateway, [one for one in self.interfaces if one.card not in down]
        files = self.files
        self._plan()
        there = {one.card for one in before}
        for one in self.endpoints:
            if one.card not in there:
                self._join(one)
        await vm.set_interfaces([one for one in self.interfaces if one not in before], down)
        await vm.change_files(files, self.files)
        if self.ports and self._gateway is not None and self._gateway != gateway:
            await self._outsides[self._gateway].publish(self.ports)

    def _leave(self, card: int) -> None:
        if card in self._cards:
            self._board.switch.leave(self._cards[card])
        outside = self._outsides.pop(card, None)
        if outside is not None:
            outside.close()

    # -- its end -------------------------------------------------------------------------------

    def close(self) -> None:
        """End its links."""
        for number, card in self._cards.items():
            self._leave(number)
            card.link.close()
        self._cards.clear()
        self._board.memberships.pop(self._container, None)

    async def leave(self) -> None:
        """Be in no network any more: the container has ended, or could not start. Its ports are free again."""
        await asyncio.gather(*(outside.deliver() for outside in self._outsides.values()))
        was_published = any(outside.is_open for outside in self._outsides.values())
        self.close()
        if was_published:
            await until_free(self.ports)
        await asyncio.to_thread(self._board.networks.detach_all, self._container)
