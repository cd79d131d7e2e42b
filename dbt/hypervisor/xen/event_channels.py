"""Event channels: the ports of a domain, what they are bound to, and the hypercall about them (event_channel.h).

A port is bound to a port of another domain, to one of the domain's own, or to a source of the hypervisor's (VIRQ). The
back ends are a domain too: each is a receiver, called where the guest sends. What is sent to another guest comes there
when both stand together (:mod:`dbt.hypervisor.xen.host`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.shared import shared
from dbt.devices.state import Byte, Part, Stateful, Wiring, Word
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.event_queues import LINK_BITS, PORTS, EventQueues
from dbt.hypervisor.xen.identity import Identity
from dbt.hypervisor.xen.interface import BACKEND_DOMAIN, SELF, Errno, HypercallError
from dbt.memory.dma import Dma

_VIRQS: Final = 24
#: Xen makes so many ports at once. Those that it has not made yet have no status.
_PORTS_AT_ONCE: Final = 64
#: Sources of which there is one for all processors.
_GLOBAL_VIRQS: Final = frozenset({2, 3, 4, 8, 9, 10, 11, 12})


class Kind:
    """What a port is bound to, as EVTCHNOP_status says it."""

    CLOSED: Final = 0
    UNBOUND: Final = 1
    INTERDOMAIN: Final = 2
    VIRQ: Final = 4
    IPI: Final = 5


_CLOSED, _INTERDOMAIN, _VIRQ, _IPI = Kind.CLOSED, Kind.INTERDOMAIN, Kind.VIRQ, Kind.IPI
#: The operations that native code does.
SEND, UNMASK = 4, 9

_ALLOC_UNBOUND = struct.Struct("<HHI")
_BIND_INTERDOMAIN = struct.Struct("<HxxII")
_BIND_VIRQ = struct.Struct("<III")
_BIND_IPI = struct.Struct("<II")
_PORT = struct.Struct("<I")
#: Domain and port; what is answered: status, processor, and what it is bound to, a number in two halves and another.
_STATUS = struct.Struct("<HxxIIIHHI")
_STATUS_ANSWER = struct.Struct("<IIHHI")
_BIND_VCPU = struct.Struct("<II")
_RESET = struct.Struct("<H")
_INIT_CONTROL = struct.Struct("<QIIB7x")
_EXPAND_ARRAY = struct.Struct("<Q")
_SET_PRIORITY = struct.Struct("<II")


@shared
@dataclass(eq=False)
class EventChannels(Stateful):
    """The ports of the guest. ``receivers`` are the back ends, by the numbers of their ports, from 1 on.

    ``kinds``, ``domains`` and ``peers`` say of each port what it is bound to: domain and port, or the VIRQ.
    ``has_fifo`` is False for a hypervisor that knows bits alone. ``has_page`` says whether a page is the guest's.
    """

    identity: Wiring[Identity] = field(metadata={"count": 1})
    dma: Wiring[Dma]
    arguments: Wiring[Arguments]
    queues: Part[EventQueues] = field(metadata={"count": 1})
    has_page: Wiring[Callable[[Gpa], bool]]
    has_fifo: Wiring[bool] = True
    receivers: Wiring[list[Callable[[], None]]] = field(default_factory=list)
    kinds: list[Byte] = field(default_factory=lambda: [Kind.CLOSED] * PORTS)
    domains: list[Word] = field(default_factory=lambda: [0] * PORTS)
    peers: list[Word] = field(default_factory=lambda: [0] * PORTS)

    def is_possible(self) -> bool:
        if not len(self.kinds) == len(self.domains) == len(self.peers) == PORTS:
            return False
        return all(map(self._is_possible_port, range(PORTS)))

    def _is_possible_port(self, port: int) -> bool:
        kind, domain, peer = self.kinds[port], self.domains[port], self.peers[port]
        match kind:
            case Kind.CLOSED | Kind.UNBOUND | Kind.IPI:
                return port > 0 or kind == Kind.CLOSED
            case Kind.VIRQ:
                return peer < _VIRQS
            case Kind.INTERDOMAIN if domain == BACKEND_DOMAIN:
                return 0 < peer <= len(self.receivers)
            case Kind.INTERDOMAIN if domain != self.identity.number:
                return port > 0 and peer < PORTS  # the host looks whether the other side says the same
            case Kind.INTERDOMAIN:
                return peer < PORTS and (self.kinds[peer], self.domains[peer], self.peers[peer]) == (kind, domain, port)
            case _:
                return False

    # -- the back ends' side -------------------------------------------------------------------

    def power_on(self, count: int) -> list[int]:
        """Let the toolstack bind ``count`` ports of the guest to the first receivers. Return the ports."""
        return [self._open(Kind.INTERDOMAIN, BACKEND_DOMAIN, number) for number in range(1, count + 1)]

    def notify(self, port: int) -> None:
        """Send the guest an event at one of its ports."""
        self.queues.set_pending(port)

    def send_virq(self, virq: int) -> None:
        """Send the guest an event at the port that it has bound to a source, if there is one."""
        port = 0
        while port < PORTS and not (self.kinds[port] == _VIRQ and self.peers[port] == virq):
            port += 1
        if port < PORTS:
            self.notify(port)

    # -- other guests --------------------------------------------------------------------------

    def _channels_of(self, domain: int) -> EventChannels | None:
        """Return those of a domain of a guest, or None if there is none of this number."""
        if domain == self.identity.number:
            return self
        other = self.identity.other(domain)
        return None if other is None else other.channels

    def offers(self, port: int, domain: int) -> bool:
        """Return True if a domain may bind to a port of the guest's."""
        return 0 < port < PORTS and (self.kinds[port], self.domains[port]) == (Kind.UNBOUND, domain)

    def hears(self, port: int, domain: int) -> bool:
        """Return True if an event that a domain has sent belongs to a port: it was bound to that when it was sent."""
        return self.kinds[port] in (Kind.UNBOUND, Kind.INTERDOMAIN) and self.domains[port] == domain

    def agrees(self, port: int) -> bool:
        """Return False if a port is bound to one of another guest's that says otherwise."""
        domain = self.domains[port]
        if self.kinds[port] != Kind.INTERDOMAIN or domain in (BACKEND_DOMAIN, self.identity.number):
            return True
        other, peer = self._channels_of(domain), self.peers[port]
        mine = (Kind.INTERDOMAIN, self.identity.number, port)
        return other is not None and (other.kinds[peer], other.domains[peer], other.peers[peer]) == mine

    def let_go(self) -> None:
        """The domain is gone: other guests may bind to what was bound to its ports."""
        for kind, domain, peer in zip(self.kinds, self.domains, self.peers, strict=True):
            other = self.identity.other(domain)
            if kind == Kind.INTERDOMAIN and other is not None:
                other.channels.kinds[peer], other.channels.peers[peer] = Kind.UNBOUND, 0

    def close_all(self) -> None:
        """Close all ports."""
        for port in range(1, PORTS):
            if self.kinds[port] != Kind.CLOSED:
                self._free(port)

    # -- the hypercall -------------------------------------------------------------------------

    def call(self, command: int, handle: int) -> int:
        """Do EVTCHNOP_*. Return the result, or raise HypercallError."""
        operation = _OPERATIONS.get(command)
        if operation is None or (not self.has_fifo and command in _FIFO):
            raise HypercallError(Errno.ENOSYS)
        operation(self, handle)
        return 0

    def _open(self, kind: int, domain: int, peer: int) -> int:
        """Return a free port, which is bound from now on. Raise HypercallError if there is none."""
        for port in range(1, PORTS):
            if self.kinds[port] == Kind.CLOSED and not self.queues.is_busy(port):
                self.kinds[port], self.domains[port], self.peers[port] = kind, domain, peer
                self.queues.open(port)
                return port
        raise HypercallError(Errno.ENOSPC)

    def _used(self, port: int) -> int:
        """Return a port of the guest's. Raise HypercallError if it is none, or closed."""
        if not 0 < port < PORTS or self.kinds[port] == Kind.CLOSED:
            raise HypercallError(Errno.EINVAL)
        return port

    def _alloc_unbound(self, handle: int) -> None:
        domain, remote, _ = self.arguments.unpack(handle, _ALLOC_UNBOUND)
        self.identity.check_self(domain)
        named = self.identity.number if remote == SELF else remote
        if named != BACKEND_DOMAIN and self._channels_of(named) is None:
            raise HypercallError(Errno.ESRCH)
        port = self._open(Kind.UNBOUND, named, 0)
        self.arguments.write(handle + 4, _PORT.pack(port))

    def _bind_interdomain(self, handle: int) -> None:
        domain, remote, _ = self.arguments.unpack(handle, _BIND_INTERDOMAIN)
        other = self if self.identity.is_self(domain) else self._channels_of(domain)
        if other is None:
            raise HypercallError(Errno.EINVAL if domain == BACKEND_DOMAIN else Errno.ESRCH)
        if not other.offers(remote, self.identity.number):
            raise HypercallError(Errno.EINVAL)
        port = self._open(Kind.INTERDOMAIN, other.identity.number, remote)
        other.kinds[remote], other.peers[remote] = Kind.INTERDOMAIN, port
        self.notify(port)
        self.arguments.write(handle + 8, _PORT.pack(port))

    def _bind_virq(self, handle: int) -> None:
        virq, vcpu, _ = self.arguments.unpack(handle, _BIND_VIRQ)
        if virq >= _VIRQS or (virq in _GLOBAL_VIRQS and vcpu):
            raise HypercallError(Errno.EINVAL)
        check_vcpu(vcpu)
        if any(self.kinds[port] == Kind.VIRQ and self.peers[port] == virq for port in range(PORTS)):
            raise HypercallError(Errno.EEXIST)
        port = self._open(Kind.VIRQ, 0, virq)
        self.arguments.write(handle + 8, _PORT.pack(port))

    def _bind_ipi(self, handle: int) -> None:
        vcpu, _ = self.arguments.unpack(handle, _BIND_IPI)
        check_vcpu(vcpu)
        port = self._open(Kind.IPI, 0, 0)
        self.arguments.write(handle + 4, _PORT.pack(port))

    def _close(self, handle: int) -> None:
        (port,) = self.arguments.unpack(handle, _PORT)
        self._free(self._used(port))

    def _free(self, port: int) -> None:
        if self.kinds[port] == Kind.INTERDOMAIN and self.domains[port] != BACKEND_DOMAIN:
            other, peer = self._channels_of(self.domains[port]), self.peers[port]
            if other is not None:
                other.kinds[peer], other.peers[peer] = Kind.UNBOUND, 0
        self.kinds[port], self.domains[port], self.peers[port] = Kind.CLOSED, 0, 0
        self.queues.clear_pending(port)

    def _send(self, handle: int) -> None:
        (port,) = self.arguments.unpack(handle, _PORT)
        self._used(port)
        match self.kinds[port]:
            case _ if self.is_own(port):
                self.send_to_own(port)
            case Kind.INTERDOMAIN if self.domains[port] == BACKEND_DOMAIN:
                self.receivers[self.peers[port] - 1]()
            case Kind.INTERDOMAIN if self.identity.host is not None:
                self.identity.host.send(self.identity.number, self.domains[port], self.peers[port])
            case Kind.UNBOUND | Kind.INTERDOMAIN:
                pass  # An event that nobody receives is lost.
            case _:
                raise HypercallError(Errno.EINVAL)

    def is_own(self, port: int) -> bool:
        """Return True if what is sent at a port comes to the guest itself."""
        kind = self.kinds[port]
        return kind == _IPI or (kind == _INTERDOMAIN and self.domains[port] == self.identity.number)

    def send_to_own(self, port: int) -> None:
        """Send an event. Precondition: the port is the guest's own."""
        self.queues.set_pending(port if self.kinds[port] == _IPI else self.peers[port])

    def is_bound_to(self, port: int, receiver: int) -> bool:
        """Return True if a port is bound to a back end."""
        if not 0 < port < PORTS or self.kinds[port] != _INTERDOMAIN:
            return False
        return self.domains[port] == BACKEND_DOMAIN and self.peers[port] == receiver

    def is_hot(self, command: int, port: int) -> bool:
        """Return True if an operation on a port is one that :meth:`do_hot` does."""
        if not 0 < port < PORTS or not self.queues.is_plain:
            return False
        return self.is_own(port) if command == SEND else command == UNMASK and self.kinds[port] != _CLOSED

    def do_hot(self, command: int, port: int) -> None:
        """Send, or unmask. Precondition: :meth:`is_hot`."""
        if command == SEND:
            self.send_to_own(port)
        else:
            self.queues.unmask(port)

    def _known(self, port: int) -> int:
        """Return a port of the guest's, which may be closed. Raise HypercallError if Xen has not made it."""
        used = max((number for number in range(PORTS) if self.kinds[number] != Kind.CLOSED), default=0)
        if port > used | _PORTS_AT_ONCE - 1:
            raise HypercallError(Errno.EINVAL)
        return port

    def _status(self, handle: int) -> None:
        """Answer what a port is bound to. What that needs no bytes for stays as the guest has it."""
        domain, port, _, _, low, high, second = self.arguments.unpack(handle, _STATUS)
        self.identity.check_self(domain)
        kind, peer = self.kinds[self._known(port)], self.peers[port]
        match kind:
            case Kind.UNBOUND:
                low = self.domains[port]
            case Kind.INTERDOMAIN:
                low, second = self.domains[port], peer
            case Kind.VIRQ:
                low, high = peer, 0
        self.arguments.write(handle + 8, _STATUS_ANSWER.pack(kind, 0, low, high, second))

    def _bind_vcpu(self, handle: int) -> None:
        port, vcpu = self.arguments.unpack(handle, _BIND_VCPU)
        check_vcpu(vcpu)
        kind = self.kinds[self._used(port)]
        if kind == Kind.IPI or (kind == Kind.VIRQ and self.peers[port] not in _GLOBAL_VIRQS):
            raise HypercallError(Errno.EINVAL)

    def _unmask(self, handle: int) -> None:
        (port,) = self.arguments.unpack(handle, _PORT)
        if self.kinds[self._known(port)] != Kind.CLOSED:
            self.queues.unmask(port)

    def _reset(self, handle: int) -> None:
        (domain,) = self.arguments.unpack(handle, _RESET)
        self.identity.check_self(domain)
        self.close_all()
        self.queues.forget()

    def _continue_reset(self, handle: int) -> None:
        """Refuse to go on with a reset: each is done at once."""
        (domain,) = self.arguments.unpack(handle, _RESET)
        self.identity.check_self(domain)
        raise HypercallError(Errno.EBUSY)

    def _bind_pirq(self, handle: int) -> None:
        """Refuse to bind an interrupt of a device: the guest has none."""
        self.arguments.unpack(handle, _BIND_VIRQ)
        raise HypercallError(Errno.ENOMEM)

    def _init_control(self, handle: int) -> None:
        frame, offset, vcpu, _ = self.arguments.unpack(handle, _INIT_CONTROL)
        check_vcpu(vcpu)
        self.queues.use_queues(self._page(frame), offset, PORTS)
        self.arguments.write(handle + 16, bytes([LINK_BITS]))

    def _expand_array(self, handle: int) -> None:
        (frame,) = self.arguments.unpack(handle, _EXPAND_ARRAY)
        self.queues.add_page(self._page(frame))

    def _set_priority(self, handle: int) -> None:
        port, priority = self.arguments.unpack(handle, _SET_PRIORITY)
        self.queues.set_priority(self._known(port), priority, self.kinds[port] != Kind.CLOSED)

    def _page(self, frame: int) -> Gpa:
        """Return the page of a frame of the guest's. Raise HypercallError if it has no such frame."""
        page = page_of(self.dma, frame, Errno.EINVAL)
        if not self.has_page(page):
            raise HypercallError(Errno.EINVAL)
        return page


class BackEndPorts:
    """The event channels of a guest as the domain of the back ends has them."""

    def __init__(self, channels: EventChannels) -> None:
        self._channels = channels

    def add_receiver(self, receive: Callable[[], None]) -> int:
        """Add a back end, which is called when the guest sends. Return the number of its port."""
        self._channels.receivers.append(receive)
        return len(self._channels.receivers)

    def bind(self, port: int, receiver: int) -> bool:
        """Bind a port of the guest, which offers it to the back ends' domain, to a back end. Return whether it can be.

        The back end looks at what the guest has for it, in case an event was lost before.
        """
        channels = self._channels
        if not 0 < port < PORTS or (channels.kinds[port], channels.domains[port]) != (Kind.UNBOUND, BACKEND_DOMAIN):
            return False
        channels.kinds[port], channels.peers[port] = Kind.INTERDOMAIN, receiver
        return True

    def unbind(self, port: int, receiver: int) -> None:
        """End what :meth:`bind` began, unless the guest has closed the port."""
        if self.is_bound(port, receiver):
            self._channels.kinds[port], self._channels.peers[port] = Kind.UNBOUND, 0

    def is_bound(self, port: int, receiver: int) -> bool:
        """Return True if a port of the guest is bound to a back end."""
        return self._channels.is_bound_to(port, receiver)

    def notify(self, port: int, receiver: int) -> None:
        """Send the guest an event, if its port is bound to the back end."""
        if self.is_bound(port, receiver):
            self._channels.notify(port)

    def is_masked(self, port: int) -> bool:
        """Return True if the guest has masked one of its ports."""
        return self._channels.queues.is_masked(port)


_OPERATIONS: Final[dict[int, Callable[[EventChannels, int], None]]] = {
    0: EventChannels._bind_interdomain,
    1: EventChannels._bind_virq,
    2: EventChannels._bind_pirq,
    3: EventChannels._close,
    SEND: EventChannels._send,
    5: EventChannels._status,
    6: EventChannels._alloc_unbound,
    7: EventChannels._bind_ipi,
    8: EventChannels._bind_vcpu,
    UNMASK: EventChannels._unmask,
    10: EventChannels._reset,
    11: EventChannels._init_control,
    12: EventChannels._expand_array,
    13: EventChannels._set_priority,
    14: EventChannels._continue_reset,
}
#: The operations of the FIFO ABI.
_FIFO: Final = frozenset({11, 12, 13})


def check_vcpu(vcpu: int) -> None:
    """Raise HypercallError unless there is such a virtual CPU."""
    if vcpu:
        raise HypercallError(Errno.ENOENT)


def page_of(dma: Dma, frame: int, errno: Errno) -> Gpa:
    """Return the address of a frame of the guest's RAM. Raise HypercallError if there is no RAM."""
    if not dma.layout.covers(Gpa(frame << PAGE_SHIFT), PAGE_SIZE):
        raise HypercallError(errno)
    return Gpa(frame << PAGE_SHIFT)
