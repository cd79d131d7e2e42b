"""Plain values: a network, what a container wants of one, and what it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final

#: The networks that every engine has: the one that containers have if nobody says otherwise, and two without members.
BRIDGE, HOST, NONE = "bridge", "host", "none"
#: The drivers of these, as docker calls them.
DRIVERS: Final = {BRIDGE: "bridge", HOST: "host", NONE: "null"}
#: Options of a network that mean something here: a rate, whether containers reach one another, the largest packet, and
#: whether names are looked up at all (docker's default network does not).
OPTION_RATE: Final = "rate"
OPTION_ICC: Final = "com.docker.network.bridge.enable_icc"
OPTION_MTU: Final = "com.docker.network.driver.mtu"
#: The label of a container with the rate of its cards.
LABEL_RATE: Final = "dbt.net.rate"
DEFAULT_MTU: Final = 1500


@dataclass(frozen=True)
class Network:
    """A network. ``created`` is in seconds since 1970.

    - ``subnet``, ``gateway``: its addresses, None for host and none.
    - ``pool``: the part of the subnet from which addresses are given, if that is not all of it.
    - ``reserved``: addresses that are given to nobody, by names.
    - ``is_chosen``: a user has chosen the subnet, so that containers may have addresses that users choose.
    - ``shows_gateway``: the gateway is in docker's list of the network's addresses, where one is not that follows from
      a subnet that a user has chosen.
    - ``internal``: nothing outside is reached from it.
    """

    id: str
    name: str
    driver: str
    created: float
    subnet: IPv4Network | None = None
    gateway: IPv4Address | None = None
    pool: IPv4Network | None = None
    reserved: Mapping[str, IPv4Address] = field(default_factory=dict)
    is_chosen: bool = False
    shows_gateway: bool = True
    internal: bool = False
    attachable: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ipam_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_predefined(self) -> bool:
        return self.name in DRIVERS

    @property
    def has_names(self) -> bool:
        """True if containers of the network find one another by name."""
        return self.driver == "bridge" and not self.is_predefined

    @property
    def lets_containers_talk(self) -> bool:
        return self.options.get(OPTION_ICC, "true") != "false"

    @property
    def mtu(self) -> int:
        return int(self.options.get(OPTION_MTU, DEFAULT_MTU))


@dataclass(frozen=True)
class Subnet:
    """What a user wants of a network's addresses: texts, of which each may be empty."""

    subnet: str = ""
    pool: str = ""
    gateway: str = ""
    reserved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Attachment:
    """What a container wants of a network: the name or id of that, the names by which others find it there, and an
    address and a hardware address if a user has chosen them.
    """

    network: str
    names: tuple[str, ...] = ()
    address: str = ""
    mac: str = ""


@dataclass(frozen=True)
class Endpoint:
    """What a container has of a network. ``card`` is the number of its network card: 0 is eth0."""

    id: str
    network: str
    container: str
    card: int
    address: IPv4Address
    mac: bytes
    names: tuple[str, ...]
