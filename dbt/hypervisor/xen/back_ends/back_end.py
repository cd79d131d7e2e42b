"""A back end: the half of a para-virtual device that is not the guest's (xen/include/public/io/xenbus.h).

Both halves say in XenStore what they can, and how far they are. The toolstack makes the nodes of both. The front end's
are the guest's to write, so numbers there are checked, and where the back end is does not follow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from dbt.devices.state import Byte, Stateful, Wiring, Word
from dbt.devices.wiring import Time
from dbt.hypervisor.xen.back_ends.shared_ring import RingError
from dbt.hypervisor.xen.event_channels import BackEndPorts
from dbt.hypervisor.xen.grant_table import GrantError, GrantTable
from dbt.hypervisor.xen.identity import Identity
from dbt.hypervisor.xen.interface import BACKEND_DOMAIN
from dbt.hypervisor.xen.store.ring import StoreRing

_SECOND: Final = 10**9
_WORD: Final = 0xFFFFFFFF


class Phase:
    """How far a half of a device is (enum xenbus_state)."""

    UNKNOWN: Final = 0
    INITIALISING: Final = 1
    INIT_WAIT: Final = 2
    INITIALISED: Final = 3
    CONNECTED: Final = 4
    CLOSING: Final = 5
    CLOSED: Final = 6


class FrontEndError(ValueError):
    """Raised if the front end says what no front end would say. The text says what is wrong."""


#: What makes a back end give its front end up.
FAULTS: Final = (FrontEndError, RingError, GrantError)


class XenBus(NamedTuple):
    """What back ends reach their guest by."""

    store: StoreRing
    ports: BackEndPorts
    grants: GrantTable
    time: Time
    identity: Identity


class Counts:
    """What a back end has done, for the user: it is no state of the machine's.

    Requests are taken in batches. ``notifications`` are the events that were sent to the front end.
    """

    def __init__(self) -> None:
        self.requests = self.batches = self.notifications = 0


@dataclass(eq=False)
class BackEnd(Stateful):
    """The back end of device ``number`` of its kind. ``phase`` is its own, and ``bound`` are the guest's ports
    for it.

    ``kind`` is what XenStore calls the kind. ``receiver_name`` names what it receives from outside, if it does
    (:class:`dbt.board.board.Board`).
    """

    kind: ClassVar[str]
    receiver_name: ClassVar[str] = ""

    bus: Wiring[XenBus]
    number: Wiring[int]
    phase: Byte = Phase.UNKNOWN
    bound: list[Word] = field(default_factory=list)
    counts: Wiring[Counts] = field(default_factory=Counts, init=False)
    receiver: Wiring[int] = field(init=False)

    def __post_init__(self) -> None:
        self.receiver = self.bus.ports.add_receiver(self._receive_event)
        self.bus.store.watchers.append(self._changed)

    # -- what a kind of device says and does ---------------------------------------------------

    def offer(self) -> Mapping[str, str]:
        """Return the nodes by which the back end says what it can."""
        return {}

    def describe(self) -> Mapping[str, str]:
        """Return the nodes that the toolstack gives to the front end."""
        return {}

    def connect(self) -> Mapping[str, str]:
        """Begin to serve, as the front end's nodes say, and bind the port. Return nodes to be written then. Raise what
        is in :data:`FAULTS`.
        """
        raise NotImplementedError

    def disconnect(self) -> None:
        """Stop serving, and give back what is held. A second call does nothing."""
        raise NotImplementedError

    def holds(self) -> Iterable[int]:
        """Return the grants that the back end holds, each as often as it does."""
        raise NotImplementedError

    def attend(self) -> None:
        """Look for requests of the front end's. Raise what is in :data:`FAULTS`."""
        raise NotImplementedError

    def arrive(self, pieces: Sequence[bytes]) -> None:
        """Take what has come from outside at one tick, in its order. Raise what is in :data:`FAULTS`."""
        raise NotImplementedError

    # -- XenStore ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the device, such as ``vbd 51712``."""
        return f"{self.kind} {self.number}"

    @property
    def _guest(self) -> int:
        return self.bus.identity.number

    @property
    def _front(self) -> str:
        return f"/local/domain/{self._guest}/device/{self.kind}/{self.number}"

    @property
    def _back(self) -> str:
        return f"/local/domain/{BACKEND_DOMAIN}/backend/{self.kind}/{self._guest}/{self.number}"

    def power_on(self) -> None:
        """Do what the toolstack does to give the guest the device."""
        store = self.bus.store
        store.make_readable(self._back)
        front = {"backend": self._back, "backend-id": str(BACKEND_DOMAIN), **self.describe()}
        back = {"frontend": self._front, "frontend-id": str(self._guest), "online": "1", **self.offer()}
        for name, value in back.items():
            store.write(f"{self._back}/{name}", value.encode())
        for name, value in front.items():
            store.write(f"{self._front}/{name}", value.encode())
        self._enter(Phase.INIT_WAIT)
        store.write(f"{self._front}/state", str(Phase.INITIALISING).encode())

    def _enter(self, phase: int) -> None:
        self.phase = phase
        self.bus.store.write(f"{self._back}/state", str(phase).encode())

    def said(self, name: str) -> str | None:
        """Return what the front end says in a node, or None."""
        value = self.bus.store.read(f"{self._front}/{name}")
        return None if value is None else value.decode("latin-1")

    def said_number(self, name: str, limit: int = _WORD + 1) -> int:
        """Return a number below ``limit`` that the front end says in a node. Raise FrontEndError if it is none."""
        text = self.said(name)
        if text is None or not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >= limit:
            raise FrontEndError(f"its {name} is {text!r:.50}, which is no number below {limit}")
        return int(text)

    def says(self, name: str) -> bool:
        """Return True if the front end says that it can do something."""
        return self.said(name) == "1"

    def bind(self, port: int) -> None:
        """Bind a port that the front end offers. Raise FrontEndError if it does not."""
        if not self.bus.ports.bind(port, self.receiver):
            raise FrontEndError(f"its port {port} is not one that it offers")
        self.bound.append(port)

    def _changed(self, path: str) -> None:
        """A node has been written or removed, but not by a back end."""
        if path in (f"{self._front}/state", self._front) or self._front.startswith(path + "/"):
            self._follow()

    def _follow(self) -> None:
        """Do what follows from how far the front end is."""
        text = self.said("state")
        match int(text) if text in ("1", "2", "3", "4", "5", "6") else Phase.UNKNOWN:
            case Phase.INITIALISING if self.phase == Phase.CLOSED:
                self._enter(Phase.INIT_WAIT)
            case Phase.INITIALISED | Phase.CONNECTED if self.phase == Phase.INIT_WAIT:
                self._guarded(self._connect)
            case Phase.CLOSING if self.phase not in (Phase.CLOSING, Phase.CLOSED):
                self._end(Phase.CLOSING)
            case Phase.CLOSED | Phase.UNKNOWN if self.phase != Phase.CLOSED:
                self._end(Phase.CLOSED)

    def _connect(self) -> None:
        for name, value in self.connect().items():
            self.bus.store.write(f"{self._back}/{name}", value.encode())
        self._enter(Phase.CONNECTED)
        self.attend()

    def _end(self, phase: int) -> None:
        self.disconnect()
        for port in self.bound:
            self.bus.ports.unbind(port, self.receiver)
        self.bound = []
        self._enter(phase)

    # -- events --------------------------------------------------------------------------------

    def has_ports(self, count: int) -> bool:
        """Return True if ports are bound as can be, for a device that has so many while it is connected."""
        return len(self.bound) == (count if self.is_connected else 0)

    @property
    def is_connected(self) -> bool:
        return self.phase == Phase.CONNECTED

    def _receive_event(self) -> None:
        """The front end has sent an event."""
        if self.is_connected:
            self._guarded(self.attend)

    def receive(self, pieces: Sequence[bytes]) -> None:
        """Take what has come from outside at one tick, if the front end is there."""
        if self.is_connected:
            self._guarded(lambda: self.arrive(pieces))

    def rings(self) -> None:
        """The back end's alarm rings."""
        if self.is_connected:
            self._guarded(self.proceed)

    def proceed(self) -> None:
        """Do what an alarm was set for. Raise what is in :data:`FAULTS`."""
        raise NotImplementedError

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something for the front end, and give it up if that cannot be done."""
        try:
            act()
        except FAULTS as fault:
            path = f"/local/domain/{BACKEND_DOMAIN}/error/backend/{self.kind}/{self._guest}/{self.number}/error"
            self.bus.store.write(path, f"22 {fault}".encode())
            self._end(Phase.CLOSING)

    def notify(self, number: int = 0) -> None:
        """Send the front end an event, at the first of its ports or another one."""
        self.counts.notifications += 1
        self.bus.ports.notify(self.bound[number], self.receiver)

    def ticks(self, nanoseconds: int) -> int:
        """Return the ticks that something takes, at least one."""
        return max(1, nanoseconds * self.bus.time.ticks_per_second // _SECOND)
