"""The board: where the devices of an ARM Versatile/PB (ARM DUI 0224) sit, and their interrupts.

Interrupt numbers are those of the primary controller (PL190), or of the secondary one (SIC), whose output is
input 31 of the primary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dbt.devices.pl011 import Pl011
from dbt.devices.pl190 import Pl190
from dbt.devices.sic import PASSED_ON, Sic
from dbt.devices.sp804 import Sp804
from dbt.devices.sysregs import SystemRegisters
from dbt.devices.wiring import Line
from dbt.machine.bus import DeviceBus, Window
from dbt.machine.timeline import Timeline

SYSTEM_REGISTERS = 0x10000000
SECONDARY_CONTROLLER = 0x10003000
UART3 = 0x10009000
INTERRUPT_CONTROLLER = 0x10140000
TIMER01, TIMER23 = 0x101E2000, 0x101E3000
UART0, UART1, UART2 = 0x101F1000, 0x101F2000, 0x101F3000
#: A larger RAM hides devices beneath it. Versatile/PB itself decodes at most this much, in bytes.
BOARD_MEMORY = 0x10000000


def _no_input() -> None:
    """Nothing to be received."""


@dataclass(frozen=True)
class Board:
    """``bus`` has the devices; ``console_uart`` is the one of them that the console is connected to."""

    bus: DeviceBus
    console_uart: ConsoleUart


@dataclass(eq=False)
class ConsoleUart(Pl011):
    """A UART that has the machine look for input before each access, so that input which is there is received at a
    place that the program alone decides.
    """

    refill: Callable[[], None] = _no_input

    def read(self, offset: int, size: int) -> int:
        self.refill()
        return super().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self.refill()
        super().write(offset, size, value)


def _unplugged(data: bytes) -> None:
    """The end of a serial line that leads nowhere."""


def build_board(
    transmit: Callable[[bytes], None],
    ram_size: int,
    timeline: Timeline,
    irq: Line,
    fiq: Line,
    reset: Callable[[], None],
    epoch: int,
    refill: Callable[[], None] = _no_input,
) -> Board:
    """The board as it is after a reset, without the devices that a RAM of ``ram_size`` bytes at address 0 hides.

    ``transmit`` is given what the guest sends to UART0. ``irq`` and ``fiq`` are told the levels of the CPU's
    interrupt inputs whenever these change; both are low at first. ``reset`` is called, from within a device access
    or a timeline's event, when the guest or its watchdog resets the board. ``epoch`` is the time of day at tick 0
    of ``timeline``, in seconds since 1970. ``refill`` is called before each access to the console's UART.
    """
    vic = Pl190(irq, fiq)
    sic = Sic(vic.line(31), {number: vic.line(number) for number in PASSED_ON})
    uart = ConsoleUart(transmit, vic.line(12), refill=refill)
    windows = [
        Window(SYSTEM_REGISTERS, 0x1000, SystemRegisters(timeline, reset), "system registers"),
        Window(SECONDARY_CONTROLLER, 0x1000, sic, "SIC"),
        Window(UART3, 0x1000, Pl011(_unplugged, sic.line(6)), "UART3"),
        Window(INTERRUPT_CONTROLLER, 0x1000, vic, "VIC"),
        Window(TIMER01, 0x1000, Sp804(timeline, vic.line(4)), "timers 0 and 1"),
        Window(TIMER23, 0x1000, Sp804(timeline, vic.line(5)), "timers 2 and 3"),
        Window(UART0, 0x1000, uart, "UART0"),
        Window(UART1, 0x1000, Pl011(_unplugged, vic.line(13)), "UART1"),
        Window(UART2, 0x1000, Pl011(_unplugged, vic.line(14)), "UART2"),
    ]
    return Board(DeviceBus(window for window in windows if window.base >= ram_size), uart)
