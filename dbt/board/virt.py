"""The board of QEMU's machine ``virt``, which is made for virtual machines and described by its device tree.

Addresses and interrupts are those of QEMU 7.2 (hw/arm/virt.c). Numbers of shared interrupts begin at 32.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa
from dbt.board.board import (
    PAGE,
    Board,
    BoardWiring,
    Inputs,
    console_port,
    visible,
)
from dbt.board.boards import POWER_KEY, VIRT
from dbt.board.bus import Deferred, DeviceBus, Window, private_window
from dbt.devices import gic
from dbt.devices.device import Device
from dbt.devices.generic_timer import GenericTimer
from dbt.devices.gic import FIRST_SPI, Gic
from dbt.devices.performance_monitors import PerformanceMonitors
from dbt.devices.pl011 import ConsoleUart
from dbt.devices.receivers import Receive, one_by_one
from dbt.devices.virtio.attached import SLOTS_SIZE
from dbt.devices.wiring import Line

if TYPE_CHECKING:
    from dbt.devices.power_key import Pl061WithKey
    from dbt.devices.virtio.slots import VirtioSlots

INTERRUPT_CONTROLLER = Gpa(0x08000000)
UART = Gpa(0x09000000)
CLOCK = Gpa(0x09010000)
GPIO = Gpa(0x09030000)
VIRTIO = VIRT.virtio_base
#: The name of the virtio slots as a device.
_SLOTS = "virtio slots"
#: The power key is at this pin of the GPIO.
POWER_KEY_PIN = 3
#: Shared interrupts, as the device tree counts them.
UART_SPI, CLOCK_SPI, GPIO_SPI, VIRTIO_SPI = 1, 2, 7, 16
#: Private interrupts, by their numbers at the interrupt controller.
MONITORS_PPI = 23
VIRTUAL_TIMER_PPI, PHYSICAL_TIMER_PPI = 27, 30


def build_board(wiring: BoardWiring) -> Board:
    """Return the board as after a reset. Virtio devices are in its slots."""
    timeline, attached = wiring.timeline, wiring.attached
    controller = Gic(wiring.irq, wiring.fiq)
    inputs = Inputs("the interrupt controller", controller.line, gic.LINES)

    def spi(number: int, device: str) -> Line:
        return inputs.connect(FIRST_SPI + number, device)

    uart = ConsoleUart(timeline.named("UART"), wiring.transmit, spi(UART_SPI, "UART"), refill=wiring.uart_refill)

    def clock(irq: Line) -> Device:
        from dbt.devices.pl031 import Pl031

        return Pl031(timeline.named("clock"), irq, wiring.epoch)

    gpio_line = spi(GPIO_SPI, "GPIO")

    def make_gpio() -> Pl061WithKey:
        from dbt.devices.power_key import Pl061WithKey

        return Pl061WithKey(gpio_line, time=timeline.named("GPIO"), pin=POWER_KEY_PIN)

    gpio = Deferred(make_gpio)

    timer = GenericTimer(
        timeline.named("generic timer"),
        inputs.connect(PHYSICAL_TIMER_PPI, "generic timer"),
        inputs.connect(VIRTUAL_TIMER_PPI, "generic timer"),
    )

    def slots() -> VirtioSlots:
        from dbt.devices.virtio.slots import make_slots

        return make_slots(attached, timeline.named(_SLOTS), lambda slot: spi(VIRTIO_SPI + slot, f"virtio slot {slot}"))

    monitors = PerformanceMonitors(
        timeline.named("performance monitors"), inputs.connect(MONITORS_PPI, "performance monitors")
    )
    made = None if attached is None else slots()
    windows = [
        private_window(timer, "generic timer"),
        private_window(monitors, "performance monitors"),
        Window(INTERRUPT_CONTROLLER, gic.SIZE, controller, "GIC", gic.GAPS),
        Window(UART, PAGE, uart, "UART"),
        Window(CLOCK, PAGE, Deferred(partial(clock, spi(CLOCK_SPI, "clock"))), "clock"),
        Window(GPIO, PAGE, gpio, "GPIO"),
        Window(VIRTIO, SLOTS_SIZE, Deferred(slots) if made is None else made, _SLOTS),
    ]
    receivers: dict[str, Receive] = {POWER_KEY: one_by_one(lambda _: gpio.get().press())}
    receivers.update({} if made is None else made.receivers())
    bus, console = DeviceBus(visible(windows, wiring.ram), wiring.holes_read_zero), console_port(uart, attached, made)
    return Board(bus, uart, console, controller, timeline, receivers)
