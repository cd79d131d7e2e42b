"""The network of a cluster: hubs whose links have a latency, and lose frames as a seed says.

A frame passes the link of its sender and, once for each receiver, the link of that. Nothing depends on anything but the
guests and the seeds: whether a link loses its Nth frame follows from the cluster's seed, the hub's, the link and N.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

#: The unit in which clusters count the latency of links, in nanoseconds. Ticks of all guests divide it.
US: Final = 1000
_CHANCES: Final = 1 << 64
_DIGEST: Final = 8


class Hub(NamedTuple):
    """A hub, at which a frame goes from one card to all others.

    - ``latency_us``: what each of its links takes, in microseconds, 1 or more. From card to card it is two links.
    - ``loss``: the part of its frames that a link loses, from 0 up to 1.
    - ``seed``: what the losses of its links follow from besides the cluster's seed, in [0, 2^63). With another one, its
      links lose other frames, and those of other hubs the same ones.
    """

    latency_us: int = 500
    loss: float = 0.0
    seed: int = 0

    @property
    def values(self) -> list[int | float]:
        """The hub as it is written down: without a seed that is 0, as before there were any."""
        return list(self if self.seed else self[:2])

    def check(self, name: str) -> None:
        """Raise ValueError for values that make no sense."""
        latency, loss = self.latency_us, self.loss
        if not isinstance(latency, int) or isinstance(latency, bool) or not 1 <= latency <= 10**9:
            raise ValueError(
                f"the latency of the hub {name} is {latency!r}, and not a whole number of microseconds, 1 or more"
            )
        if not isinstance(loss, (int, float)) or isinstance(loss, bool) or not 0 <= loss <= 1:
            raise ValueError(f"the loss of the hub {name} is {loss!r}, and not a part of its frames from 0 to 1")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 1 << 63:
            raise ValueError(f"the seed of the hub {name} is {self.seed!r}, and no whole number in [0, 2^63)")


class Port(NamedTuple):
    """The place of a network card: the machine, the number of its card, and the hub at which it is."""

    machine: str
    card: int
    hub: str

    def __str__(self) -> str:
        return f"card {self.card} of {self.machine}"


class Sent(NamedTuple):
    """A frame that a guest has sent at ``ns``. ``number`` counts what its machine has sent."""

    ns: int
    machine: str
    number: int
    card: int
    data: bytes

    @property
    def order(self) -> tuple[int, str, int]:
        """The one rule of order: time, machine, number."""
        return self.ns, self.machine, self.number


class Incoming(NamedTuple):
    """A frame on its way to a card, which it comes to at ``ns``. The other fields are of who has sent it."""

    ns: int
    sent_by: str
    number: int
    card: int
    data: bytes


class Crossing(NamedTuple):
    """What became of a frame: for each other card at the hub, when it comes there, or None if it was lost."""

    sent: Sent
    hub: str
    arrivals: Sequence[tuple[Port, int | None]]

    @property
    def digest(self) -> str:
        """What tells the frame from others."""
        return blake2b(self.sent.data, digest_size=_DIGEST).hexdigest()


@dataclass
class Network:
    """The hubs, by name. ``seed`` is what losses follow from, in [0, 2^63).

    ``passed`` counts the frames that have come to each link, in each direction.
    """

    hubs: Mapping[str, Hub]
    seed: int
    passed: dict[str, int] = field(default_factory=dict)
    ports: list[Port] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, hub in self.hubs.items():
            hub.check(name)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed={self.seed!r} is no whole number in [0, 2^63)")

    @property
    def quantum_ns(self) -> int:
        """The shortest time that a frame takes from card to card. Machines can be apart as far, and no further."""
        return min((2 * hub.latency_us * US for hub in self.hubs.values()), default=1000 * US)

    def connect(self, machine: str, hubs: Sequence[str]) -> None:
        """Add the cards of a machine, each with the name of its hub. Raise ValueError if there is no such hub."""
        for card, hub in enumerate(hubs):
            if hub not in self.hubs:
                known = ", ".join(self.hubs) or "none"
                raise ValueError(f"card {card} of {machine} is at the hub {hub!r}, and the cluster has {known}")
            self.ports.append(Port(machine, card, hub))

    def cross(self, frames: Iterable[Sent]) -> list[Crossing]:
        """Say what becomes of frames, all of which have been sent since the last call."""
        return [self._cross(one) for one in sorted(frames, key=lambda one: one.order)]

    def _cross(self, sent: Sent) -> Crossing:
        port = next(port for port in self.ports if (port.machine, port.card) == (sent.machine, sent.card))
        hub = self.hubs[port.hub]
        others = [other for other in self.ports if other.hub == port.hub and other != port]
        if self._loses(f"from {port}", hub):
            return Crossing(sent, port.hub, [(other, None) for other in others])
        comes = sent.ns + 2 * hub.latency_us * US
        return Crossing(
            sent, port.hub, [(other, None if self._loses(f"to {other}", hub) else comes) for other in others]
        )

    def _loses(self, link: str, hub: Hub) -> bool:
        """Return True if the next frame at a link is lost."""
        number = self.passed.get(link, 0)
        self.passed[link] = number + 1
        if not hub.loss:
            return False
        key = self.seed.to_bytes(_DIGEST, "little")
        name = f"{link} {number} {hub.seed}" if hub.seed else f"{link} {number}"
        drawn = blake2b(name.encode(), digest_size=_DIGEST, key=key, person=b"dbt link").digest()
        return int.from_bytes(drawn, "little") < int(hub.loss * _CHANCES)
