"""The board: where the devices of an ARM Versatile/PB (ARM DUI 0224) sit, and their interrupts.

Interrupt numbers are those of the primary controller (PL190), or of the secondary one (SIC), whose output is
input 31 of the primary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from dbt.board.bus import Device, DeviceBus, Window
from dbt.board.timeline import Timeline
from dbt.devices.pl011 import Pl011
from dbt.devices.pl190 import Pl190
from dbt.devices.wiring import Line

if TYPE_CHECKING:
    from dbt.devices.sic import Sic

PAGE = 0x1000
SYSTEM_REGISTERS = 0x10000000
SERIAL_BUS = 0x10002000
SECONDARY_CONTROLLER = 0x10003000
UART3 = 0x10009000
ETHERNET = 0x10010000
INTERRUPT_CONTROLLER = 0x10140000
WATCHDOG = 0x101E1000
TIMER01, TIMER23 = 0x101E2000, 0x101E3000
GPIO = (0x101E4000, 0x101E5000, 0x101E6000, 0x101E7000)
CLOCK = 0x101E8000
UART0, UART1, UART2 = 0x101F1000, 0x101F2000, 0x101F3000
FLASH, FLASH_SIZE = 0x34000000, 64 << 20
#: A larger RAM hides devices beneath it. Versatile/PB itself decodes at most this much, in bytes.
BOARD_MEMORY = 0x10000000

#: KMISTAT and KMIIR of a PL050 that is ready to send.
_KMI_READY = {0x04: 1 << 6, 0x10: 1 << 1}
#: What is on the board and does nothing here: base, size, name, PrimeCell identification, registers that are not 0.
#: Drivers leave alone what has no identification. QEMU's board does not have those at all, except for the display,
#: whose driver would wait for pictures to be shown, and the KMIs, on which there is no keyboard and no mouse to answer.
STUBS: tuple[tuple[int, int, str, int, dict[int, int]], ...] = (
    (0x10001000, PAGE, "PCI controller", 0, {}),
    (0x10004000, PAGE, "AACI (PL041)", 0x29041041, {}),
    (0x10005000, PAGE, "MMCI 0 (PL181)", 0x00041181, {}),  # without a card, says SYS_MCI
    (0x10006000, PAGE, "KMI 0 (PL050)", 0, _KMI_READY),
    (0x10007000, PAGE, "KMI 1 (PL050)", 0, _KMI_READY),
    (0x10008000, PAGE, "character LCD", 0, {}),
    (0x1000A000, PAGE, "smart card 1 (PL131)", 0, {}),
    (0x1000B000, PAGE, "MMCI 1 (PL181)", 0x00041181, {}),
    (0x10020000, 0x10000, "USB", 0, {}),
    (0x10100000, PAGE, "static memory controller (PL093)", 0, {}),
    (0x10110000, PAGE, "memory controller (GX175)", 0, {}),
    (0x10120000, PAGE, "display (PL110)", 0, {}),
    (0x10130000, PAGE, "DMA (PL080)", 0x0A041080, {}),
    (0x101D0000, PAGE, "bus monitor", 0, {}),
    (0x101E0000, PAGE, "system controller (SP810)", 0, {}),
    (0x101F0000, PAGE, "smart card 0 (PL131)", 0, {}),
    (0x101F4000, PAGE, "SSP (PL022)", 0, {}),
    (0x41000000, 0x01000000, "PCI self-configuration", 0, {}),
    (0x42000000, 0x01000000, "PCI configuration", 0, {}),
    (0x43000000, 0x01000000, "PCI I/O", 0, {}),
)


def _no_input() -> None:
    """Nothing to be received."""


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


@dataclass(frozen=True)
class Board:
    """``bus`` has the devices; ``console_uart`` is the one of them that the console is connected to."""

    bus: DeviceBus
    console_uart: ConsoleUart
    vic: Pl190

    @property
    def has_fast_interrupts(self) -> bool:
        """Whether any device's interrupt would be an FIQ."""
        return self.vic.enable & self.vic.select != 0


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
    uart = ConsoleUart(transmit, vic.line(12), refill=refill)
    make = _Maker(vic, timeline, reset, epoch)
    windows = [
        Window(INTERRUPT_CONTROLLER, PAGE, vic, "VIC"),
        Window(UART0, PAGE, uart, "UART0"),
        Window.later(UART1, PAGE, lambda: Pl011(_unplugged, vic.line(13)), "UART1"),
        Window.later(UART2, PAGE, lambda: Pl011(_unplugged, vic.line(14)), "UART2"),
        Window.later(UART3, PAGE, lambda: Pl011(_unplugged, make.secondary.line(6)), "UART3"),
        Window.later(SYSTEM_REGISTERS, PAGE, make.system_registers, "system registers"),
        Window.later(SECONDARY_CONTROLLER, PAGE, lambda: make.secondary, "SIC"),
        Window.later(TIMER01, PAGE, lambda: make.timers(4), "timers 0 and 1"),
        Window.later(TIMER23, PAGE, lambda: make.timers(5), "timers 2 and 3"),
        Window.later(WATCHDOG, PAGE, make.watchdog, "watchdog"),
        Window.later(CLOCK, PAGE, make.clock, "clock"),
        Window.later(SERIAL_BUS, PAGE, make.serial_bus, "serial bus"),
        Window.later(ETHERNET, 0x10000, make.ethernet, "Ethernet"),
        Window.later(FLASH, FLASH_SIZE, make.flash, "flash"),
        *(Window.later(base, PAGE, partial(make.gpio, 6 + port), f"GPIO {port}") for port, base in enumerate(GPIO)),
        *(Window.later(base, size, partial(make.stub, id_, words), name) for base, size, name, id_, words in STUBS),
    ]
    return Board(DeviceBus(window for window in windows if window.base >= ram_size), uart, vic)


class _Maker:
    """Makes the devices that few guests access, and imports them only then."""

    def __init__(self, vic: Pl190, timeline: Timeline, reset: Callable[[], None], epoch: int) -> None:
        self._vic = vic
        self._timeline = timeline
        self._reset = reset
        self._epoch = epoch

    @cached_property
    def secondary(self) -> Sic:
        from dbt.devices.sic import PASSED_ON, Sic

        return Sic(self._vic.line(31), {number: self._vic.line(number) for number in PASSED_ON})

    def system_registers(self) -> Device:
        from dbt.devices.sysregs import SystemRegisters

        return SystemRegisters(self._timeline, self._reset)

    def timers(self, interrupt: int) -> Device:
        from dbt.devices.sp804 import Sp804

        return Sp804(self._timeline, self._vic.line(interrupt))

    def watchdog(self) -> Device:
        from dbt.devices.sp805 import Sp805

        return Sp805(self._timeline, self._vic.line(0), self._reset)

    def clock(self) -> Device:
        from dbt.devices.pl031 import Pl031

        return Pl031(self._timeline, self._vic.line(10), self._epoch)

    def serial_bus(self) -> Device:
        from dbt.devices.ds1338 import ADDRESS, Ds1338
        from dbt.devices.serialbus import SerialBus

        return SerialBus(Ds1338(self._timeline, self._epoch), ADDRESS)

    def ethernet(self) -> Device:
        from dbt.devices.smc91c111 import Smc91c111

        return Smc91c111(self.secondary.line(25))

    def flash(self) -> Device:
        from dbt.devices.flash import Flash

        return Flash()

    def gpio(self, interrupt: int) -> Device:
        from dbt.devices.pl061 import Pl061

        return Pl061(self._vic.line(interrupt))

    def stub(self, peripheral_id: int, words: dict[int, int]) -> Device:
        from dbt.devices.stub import Stub

        return Stub(peripheral_id, words)
