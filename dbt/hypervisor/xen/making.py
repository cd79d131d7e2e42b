"""Making a domain as the toolstack creates it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dbt.abi.addresses import Gpa
from dbt.devices.wiring import Time
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.back_ends.back_end import BackEnd, XenBus
from dbt.hypervisor.xen.console import XenConsole
from dbt.hypervisor.xen.domain import XenDomain
from dbt.hypervisor.xen.event_channels import BackEndPorts, EventChannels
from dbt.hypervisor.xen.event_queues import EventQueues
from dbt.hypervisor.xen.foreign_pages import ForeignPages
from dbt.hypervisor.xen.grant_table import GrantTable
from dbt.hypervisor.xen.identity import Identity
from dbt.hypervisor.xen.polling import Polling
from dbt.hypervisor.xen.pv.guest import make_para_virtual
from dbt.hypervisor.xen.reservation import Reservation
from dbt.hypervisor.xen.shared_page import SharedPage
from dbt.hypervisor.xen.store.ring import StoreListener, StoreRing
from dbt.hypervisor.xen.store.server import StoreServer
from dbt.hypervisor.xen.store.tree import Tree
from dbt.hypervisor.xen.virtual_cpu import VirtualCpu
from dbt.memory.dma import Dma


def make_domain(
    dma: Dma,
    arguments: Arguments,
    time: Time,
    upcall: Callable[[bool], None],
    epoch: int,
    transmit: Callable[[int], None],
    refill: Callable[[], None],
    unknown: Callable[[int, int], None],
    has_fifo: bool = True,
    makers: Sequence[Callable[[XenBus], BackEnd]] = (),
    listener: StoreListener | None = None,
) -> XenDomain:
    """Return a domain as the toolstack creates it. ``upcall`` is the line of the event interrupt, ``epoch`` the time of
    day in seconds since 1970. ``transmit`` gets what goes to the console, and ``refill`` is called for its input.
    ``has_fifo``: whether events can be in queues. ``makers`` make the back ends of its devices. ``listener`` looks
    at XenStore.
    """
    shared = SharedPage(dma, upcall, epoch)
    identity = Identity()

    def is_own(page: Gpa) -> bool:
        return reservation.is_own(page)

    queues = EventQueues(dma, shared)
    channels = EventChannels(identity, dma, arguments, queues, is_own, has_fifo)
    grants = GrantTable(identity, dma, arguments, is_own)
    ports = BackEndPorts(channels)
    console = XenConsole(dma, ports, transmit, refill)
    reservation = Reservation(
        identity,
        dma,
        arguments,
        shared.move,
        grants.map_frame,
        shared.is_at,
        grants.has_frame,
        queues.leave,
    )
    store = StoreRing(dma, ports, StoreServer(identity, Tree()), listener)
    bus = XenBus(store, ports, grants, time, identity)
    back_ends = [make(bus) for make in makers]
    return XenDomain(
        dma,
        arguments,
        time,
        unknown,
        identity,
        channels,
        grants,
        reservation,
        ForeignPages(identity, dma, arguments, grants, reservation),
        console,
        store,
        back_ends,
        make_para_virtual(dma, arguments, time, channels),
        VirtualCpu(dma, arguments, time, shared, is_own),
        Polling(arguments, channels.queues, time),
    )
