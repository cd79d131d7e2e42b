"""The switch between the cards of containers: a segment for each network.

What a card sends is checked before it goes anywhere. It has to come from the addresses that the engine has given to the
card: nobody can speak for another container or for the gateway, nor learn what is not meant for it. Frames other than
ARP and IPv4 are lost, and so are those for a hardware address that no member of the network has.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from dbt.containers.network import frames
from dbt.containers.network.addresses import mac_of
from dbt.containers.network.interface import Interface
from dbt.containers.network.link import Link
from dbt.containers.network.records import Network

_NO_ADDRESS: Final = bytes(4)
_SHORTEST: Final = 14


class Outside(Protocol):
    """What is behind a gateway for one card."""

    def send(self, frame: bytes) -> None:
        """Take a frame whose packet is for an address outside of the network."""


@dataclass(eq=False)
class Member:
    """A card in a segment: its addresses, the link to it, and what it reaches outside, if anything.

    ``refused`` counts the frames that it has sent from addresses which are not its own. ``has_sent`` is True once it
    has sent another one.
    """

    mac: bytes
    address: bytes
    link: Link
    outside: Outside | None = None
    refused: int = 0
    has_sent: bool = False


@dataclass(eq=False)
class Segment:
    """The cards of one network. ``talks``: containers reach one another."""

    network: Network
    members: dict[bytes, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.network.subnet is not None and self.network.gateway is not None
        self._subnet, self._gateway = self.network.subnet, self.network.gateway.packed
        self._gateway_mac = mac_of(self.network.gateway)
        self._talks = self.network.lets_containers_talk
        self._first, self._last = self._subnet.network_address.packed, self._subnet.broadcast_address.packed

    @property
    def gateway_mac(self) -> bytes:
        return self._gateway_mac

    def forward(self, member: Member, frame: bytes) -> None:
        """Take a frame from a card."""
        kind = frame[12:14]
        if len(frame) < _SHORTEST or frame[6:12] != member.mac:
            member.refused += 1
        elif kind == frames.ARP:
            member.has_sent = True
            self._forward_arp(member, frame)
        elif kind == frames.IPV4:
            member.has_sent = True
            self._forward_packet(member, frame)

    def _forward_arp(self, member: Member, frame: bytes) -> None:
        arp = frames.arp_of(frame)
        if arp is None or arp.mac != member.mac or arp.address not in (member.address, _NO_ADDRESS):
            member.refused += 1
        elif arp.target == self._gateway and arp.asks:
            member.link.send(frames.arp_answer(arp, self._gateway_mac))
        elif frame[:6] == self._gateway_mac:
            if member.outside is not None:
                member.outside.send(frame)
        else:
            self._pass_on(member, frame)

    def _forward_packet(self, member: Member, frame: bytes) -> None:
        packet = frames.packet_of(frame)
        if packet is None or packet.source != member.address:
            member.refused += 1
        elif frame[:6] != self._gateway_mac:
            self._pass_on(member, frame)
        elif packet.target == self._gateway and (answer := frames.echo_answer(frame, packet)) is not None:
            member.link.send(answer)
        elif member.outside is not None and self._is_outside(packet):
            member.outside.send(frame)

    def _is_outside(self, packet: frames.Packet) -> bool:
        """Return whether the gateway takes a packet: it does not send one back to its own network."""
        is_inside = self._first <= packet.target <= self._last
        return not packet.is_for_many and (not is_inside or packet.target == self._gateway)

    def _pass_on(self, member: Member, frame: bytes) -> None:
        if not self._talks:
            return
        if frame[0] & 1:
            for other in self.members.values():
                if other is not member:
                    other.link.send(frame)
        elif (found := self.members.get(frame[:6])) is not None and found is not member:
            found.link.send(frame)


class Card:
    """A card of a VM, at one end of a link, which may be in a segment. When the VM goes, so does the other end."""

    def __init__(self, connection: socket.socket) -> None:
        self.link = Link(connection, self._take, lambda: None)
        self.segment: Segment | None = None
        self.member: Member | None = None

    def _take(self, pieces: Sequence[bytes]) -> None:
        segment, member = self.segment, self.member
        if segment is not None and member is not None:
            for frame in pieces:
                segment.forward(member, frame)


class Switch:
    """All segments. It belongs to one event loop."""

    def __init__(self) -> None:
        self._segments: dict[str, Segment] = {}

    def join(self, card: Card, network: Network, interface: Interface) -> Member:
        """Let a card be in a network."""
        self.leave(card)
        segment = self._segments.setdefault(network.id, Segment(network))
        member = Member(interface.mac, interface.address.packed, card.link)
        segment.members[member.mac] = member
        card.segment, card.member = segment, member
        return member

    def leave(self, card: Card) -> None:
        """Let a card be in no network."""
        if card.segment is not None and card.member is not None:
            segment = card.segment
            if segment.members.get(card.member.mac) is card.member:
                del segment.members[card.member.mac]
            if not segment.members:
                self._segments.pop(segment.network.id, None)
        card.segment = card.member = None


def to_card(member: Member) -> Callable[[Sequence[bytes]], None]:
    """Return what takes frames from outside for a card. They may be for everybody on that link, which the card is."""

    def take(pieces: Sequence[bytes]) -> None:
        for frame in pieces:
            if frame[12:14] == frames.IPV4:
                member.link.send(member.mac + frames.acknowledging_reset(frame)[6:])
            elif frame[12:14] == frames.ARP:
                member.link.send(frame)

    return take
