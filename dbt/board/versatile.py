"""The Versatile board: the addresses and interrupts of the devices of an ARM Versatile/PB (ARM DUI 0224).

Interrupt numbers are those of the primary controller (PL190), or of the secondary one (SIC), whose output is
input 31 of the primary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa
from dbt.board.board import PAGE, Board, BoardWiring, Inputs, console_port, visible
from dbt.board.boards import VERSATILE
from dbt.board.bus import Deferred, DeviceBus, Window
from dbt.board.timeline import Timeline
from dbt.devices.device import Device
from dbt.devices.output import unplugged
from dbt.devices.pl011 import ConsoleUart, Pl011
from dbt.devices.pl190 import Pl190
from dbt.devices.wiring import Line

if TYPE_CHECKING:
    from dbt.devices.sic import Sic
    from dbt.devices.virtio.attached import Attached
    from dbt.devices.virtio.slots import VirtioSlots

SYSTEM_REGISTERS = Gpa(0x10000000)
SERIAL_BUS = Gpa(0x10002000)
SECONDARY_CONTROLLER = Gpa(0x10003000)
UART3 = Gpa(0x10009000)
ETHERNET = Gpa(0x10010000)
INTERRUPT_CONTROLLER = Gpa(0x10140000)
WATCHDOG = Gpa(0x101E1000)
TIMER01, TIMER23 = Gpa(0x101E2000), Gpa(0x101E3000)
GPIO = (Gpa(0x101E4000), Gpa(0x101E5000), Gpa(0x101E6000), Gpa(0x101E7000))
CLOCK = Gpa(0x101E8000)
VIRTIO = VERSATILE.virtio_base
UART0, UART1, UART2 = Gpa(0x101F1000), Gpa(0x101F2000), Gpa(0x101F3000)
FLASH, FLASH_SIZE = Gpa(0x34000000), 64 << 20
#: The inputs of the secondary controller that it can pass on to those of the primary one with the same numbers.
PASSED_ON = range(21, 31)
#: The inputs of the secondary controller that virtio devices share: those of PCI slots. Slot N has the one with the
#: number N modulo 4. There is no PCI.
VIRTIO_INPUTS = range(27, 31)
#: A larger RAM hides devices beneath it. Versatile/PB itself decodes at most this much, in bytes.
BOARD_MEMORY = 0x10000000

#: The name of the virtio slots as a device.
_SLOTS = "virtio slots"
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


def build_board(wiring: BoardWiring) -> Board:
    """Return the board as after a reset, without the devices that RAM hides.

    Virtio devices are where the board has nothing, at :data:`VIRTIO`.

    Every interrupt is connected here, also that of a device that is made later. So two devices that claim the same
    one are an error of every run that makes the board (:class:`InterruptTaken`).
    """
    ram, timeline, attached = wiring.ram, wiring.timeline, wiring.attached
    vic = Pl190(wiring.irq, wiring.fiq)
    primary = Inputs("the primary interrupt controller", vic.line)
    uart = ConsoleUart(
        timeline.named("UART0"), wiring.transmit, primary.connect(12, "UART0"), refill=wiring.uart_refill
    )
    windows = [Window(INTERRUPT_CONTROLLER, PAGE, vic, "VIC"), Window(UART0, PAGE, uart, "UART0")]
    make = _Maker(timeline, wiring.reset, wiring.epoch)
    sic = Deferred(
        partial(make.sic, primary.connect(31, "SIC"), {number: primary.connect(number, "SIC") for number in PASSED_ON})
    )
    secondary = Inputs("the secondary interrupt controller", partial(_line_of, sic))

    def later(base: Gpa, size: int, name: str, maker: Callable[[str], Device]) -> None:
        windows.append(Window(base, size, Deferred(partial(maker, name)), name))

    windows.append(Window(SECONDARY_CONTROLLER, PAGE, sic, "SIC"))
    later(UART1, PAGE, "UART1", partial(make.uart, primary.connect(13, "UART1")))
    later(UART2, PAGE, "UART2", partial(make.uart, primary.connect(14, "UART2")))
    later(UART3, PAGE, "UART3", partial(make.uart, secondary.connect(6, "UART3")))
    later(SYSTEM_REGISTERS, PAGE, "system registers", make.system_registers)
    later(TIMER01, PAGE, "timers 0 and 1", partial(make.timers, primary.connect(4, "timers 0 and 1")))
    later(TIMER23, PAGE, "timers 2 and 3", partial(make.timers, primary.connect(5, "timers 2 and 3")))
    later(WATCHDOG, PAGE, "watchdog", partial(make.watchdog, primary.connect(0, "watchdog")))
    later(CLOCK, PAGE, "clock", partial(make.clock, primary.connect(10, "clock")))
    later(SERIAL_BUS, PAGE, "serial bus", make.serial_bus)
    later(ETHERNET, 0x10000, "Ethernet", partial(make.ethernet, secondary.connect(25, "Ethernet")))
    later(FLASH, FLASH_SIZE, "flash", make.flash)
    for port, base in enumerate(GPIO):
        later(base, PAGE, f"GPIO {port}", partial(make.gpio, primary.connect(6 + port, f"GPIO {port}")))
    for place, size, name, peripheral_id, words in STUBS:
        later(Gpa(place), size, name, partial(make.stub, peripheral_id, words))
    slots = None
    if attached is not None:
        from dbt.devices.virtio.attached import SLOTS_SIZE

        slots = make.slots(attached, [secondary.connect(number, _SLOTS) for number in VIRTIO_INPUTS])
        windows.append(Window(VIRTIO, SLOTS_SIZE, slots, _SLOTS))
    bus, console = DeviceBus(visible(windows, ram), wiring.holes_read_zero), console_port(uart, attached, slots)
    return Board(bus, uart, console, vic, timeline, {} if slots is None else slots.receivers())


def _line_of(controller: Deferred[Sic], number: int) -> Line:
    """Return an input of a controller that is made when a device drives one, or when it is accessed itself."""

    def drive(level: bool) -> None:
        controller.get().line(number)(level)

    return drive


class _Maker:
    """Makes the devices that few guests access, and imports their modules only then.

    The first parameter of a method is the device's interrupt, if it has one, and the last is the device's name.
    """

    def __init__(self, timeline: Timeline, reset: Callable[[], None], epoch: int) -> None:
        self._timeline = timeline
        self._reset = reset
        self._epoch = epoch

    def sic(self, output: Line, passed_on: Mapping[int, Line]) -> Sic:
        from dbt.devices.sic import Sic

        return Sic(output, passed_on)

    def uart(self, irq: Line, name: str) -> Device:
        return Pl011(self._timeline.named(name), unplugged, irq)

    def system_registers(self, name: str) -> Device:
        from dbt.devices.sysregs import SystemRegisters

        return SystemRegisters(self._timeline.named(name), self._reset)

    def timers(self, irq: Line, name: str) -> Device:
        from dbt.devices.sp804 import Sp804

        return Sp804(self._timeline.named(name), irq)

    def watchdog(self, irq: Line, name: str) -> Device:
        from dbt.devices.sp805 import Sp805

        return Sp805(self._timeline.named(name), irq, self._reset)

    def clock(self, irq: Line, name: str) -> Device:
        from dbt.devices.pl031 import Pl031

        return Pl031(self._timeline.named(name), irq, self._epoch)

    def slots(self, attached: Attached, inputs: Sequence[Line]) -> VirtioSlots:
        """Make virtio devices that share the inputs of a controller. One is up while one of its devices wants it."""
        from dbt.devices.virtio.slots import make_slots

        def line(slot: int) -> Line:
            own = slot % len(inputs)

            def drive(level: bool) -> None:
                same = (one for place, one in slots.by_place.items() if place % len(inputs) == own)
                inputs[own](level or any(one.interrupt.bits for one in same))

            return drive

        slots = make_slots(attached, self._timeline.named(_SLOTS), line)
        return slots

    def serial_bus(self, name: str) -> Device:
        from dbt.devices.ds1338 import ADDRESS, Ds1338
        from dbt.devices.serialbus import SerialBus

        return SerialBus(Ds1338(self._timeline.named(name), self._epoch), ADDRESS)

    def ethernet(self, irq: Line, name: str) -> Device:
        from dbt.devices.smc91c111 import Smc91c111

        return Smc91c111(irq)

    def flash(self, name: str) -> Device:
        from dbt.devices.flash import Flash

        return Flash()

    def gpio(self, irq: Line, name: str) -> Device:
        from dbt.devices.pl061 import Pl061

        return Pl061(irq)

    def stub(self, peripheral_id: int, words: dict[int, int], name: str) -> Device:
        from dbt.devices.stub import Stub

        return Stub(peripheral_id, words)
