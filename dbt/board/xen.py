"""The board of a domain of Xen on ARM, as the toolstack makes it: an interrupt controller, the generic timer, and the
hypervisor, which the guest calls by ``HVC #0xEA1``. Console and everything else are para-virtual.

Addresses and interrupts are those of Xen 4.17 (xen/include/public/arch-arm.h).
"""

from __future__ import annotations

from dbt.abi.addresses import Gpa
from dbt.board.board import Board, BoardWiring, Inputs
from dbt.board.boards import STORE, STORE_REQUEST
from dbt.board.bus import DeviceBus, Window, hidden_window, private_window
from dbt.board.virt import PHYSICAL_TIMER_PPI, VIRTUAL_TIMER_PPI
from dbt.devices import gic
from dbt.devices.generic_timer import GenericTimer
from dbt.devices.gic import CPU_INTERFACE, Gic
from dbt.devices.performance_monitors import PerformanceMonitors
from dbt.devices.receivers import one_by_one
from dbt.devices.wiring import DeviceSample, unconnected
from dbt.hypervisor.xen import interface
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.making import make_domain
from dbt.memory.dma import Dma
from dbt.memory.ram import RamRegion

_DOMAIN = "Xen"
#: RAM beside that of the guest's: where it has its grant table mapped, and the pages that the toolstack has made.
RESERVED = (
    RamRegion(interface.GRANT_REGION, interface.MAX_GRANT_FRAMES << 12),
    RamRegion(interface.MAGIC_PAGES, interface.MAGIC_SIZE),
)


def build_board(wiring: BoardWiring) -> Board:
    """Return the board as after a reset. Precondition: the wiring has the guest's memory."""
    memory, timeline = wiring.memory, wiring.timeline
    assert memory is not None

    upcall = DeviceSample()
    controller = Gic(wiring.irq, wiring.fiq, sampled=interface.EVENT_INTERRUPT, sample=upcall)
    inputs = Inputs("the interrupt controller", controller.line, gic.LINES)
    timer = GenericTimer(
        timeline.named("generic timer"),
        inputs.connect(PHYSICAL_TIMER_PPI, "generic timer"),
        inputs.connect(VIRTUAL_TIMER_PPI, "generic timer"),
    )
    monitors = PerformanceMonitors(timeline.named("performance monitors"), unconnected)
    domain = make_domain(
        Dma(memory),
        Arguments(memory),
        timeline.named(_DOMAIN),
        inputs.connect(interface.EVENT_INTERRUPT, "event channels"),
        wiring.epoch,
        wiring.transmit,
        wiring.refill,
        wiring.unknown,
        makers=wiring.back_ends,
        listener=wiring.store_listener,
    )
    upcall.device = domain.shared
    windows = [
        private_window(timer, "generic timer"),
        private_window(monitors, "performance monitors"),
        hidden_window(domain, _DOMAIN),
        Window(interface.DISTRIBUTOR, interface.DISTRIBUTOR_SIZE, controller, "GIC"),
        Window(
            interface.CPU_INTERFACE,
            interface.CPU_INTERFACE_SIZE,
            controller,
            "GIC CPU interface",
            origin=Gpa(interface.CPU_INTERFACE - CPU_INTERFACE),
        ),
    ]
    receivers = {
        STORE: one_by_one(domain.store.receive),
        STORE_REQUEST: one_by_one(domain.store.receive_request),
        **domain.receivers(),
    }
    bus = DeviceBus(windows, wiring.holes_read_zero)
    return Board(bus, None, domain.console, controller, timeline, receivers, domain)
