"""ARM PrimeCell vectored interrupt controller (PL190), technical reference manual DDI 0181.

Where QEMU's differs from the manual, this one follows the manual: only an interrupt that is enabled is an FIQ
(VICFIQSTATUS), and only one that is an IRQ is found by reading VICVECTADDR.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dbt.devices.registers import WordRegisters, identification
from dbt.devices.shared import shared
from dbt.devices.state import Byte, Wiring, Word
from dbt.devices.wiring import DeviceInput, Line

_IDENTIFICATION = identification(0x00041190)
_VECTOR_ENABLE, _VECTOR_SOURCE = 1 << 5, 0x1F
#: Priorities: the 16 vectored interrupts', all others', and that of the program that no interrupt has interrupted.
_UNVECTORED, _IDLE = 16, 17


@shared
@dataclass(eq=False, repr=False)
class Pl190(WordRegisters):
    """The controller. ``irq`` and ``fiq`` are the CPU's interrupt inputs; :meth:`line` returns one of its 32 inputs."""

    irq: Wiring[Line]
    fiq: Wiring[Line]
    inputs: Word = 0
    soft: Word = 0
    select: Word = 0  # set: FIQ
    enable: Word = 0
    protection: Word = 0
    default_address: Word = 0
    addresses: list[Word] = field(default_factory=lambda: [0] * 16)
    controls: list[Byte] = field(default_factory=lambda: [0] * 16)
    #: A bit for each priority of which an interrupt is in service. The lowest is the most urgent, and the latest.
    in_service: Word = 0
    irq_level: bool = False
    fiq_level: bool = False

    def is_possible(self) -> bool:
        return self.in_service < 1 << _IDLE

    def line(self, number: int) -> Line:
        """Return input ``number``."""
        return DeviceInput(self, number)

    def drive(self, number: int, level: bool) -> None:
        """Take a new level of an input, which may be the same as before."""
        bit = 1 << number
        inputs = self.inputs | bit if level else self.inputs & ~bit
        if inputs != self.inputs:
            self.inputs = inputs
            self._update()

    @property
    def current(self) -> int:
        """The priority of what the CPU does: of the latest interrupt in service, or that of the idle program."""
        order = self.in_service | 1 << _IDLE
        return (order & -order).bit_length() - 1

    @property
    def has_fast_interrupts(self) -> bool:
        """True if the interrupt of some device would be an FIQ."""
        return self.enable & self.select != 0

    @property
    def raw(self) -> int:
        return self.inputs | self.soft

    @property
    def irq_status(self) -> int:
        return self.raw & self.enable & ~self.select

    @property
    def fiq_status(self) -> int:
        return self.raw & self.enable & self.select

    def read_word(self, offset: int) -> int:
        match offset:
            case 0x000:  # VICIRQSTATUS
                return self.irq_status
            case 0x004:  # VICFIQSTATUS
                return self.fiq_status
            case 0x008:  # VICRAWINTR
                return self.raw
            case 0x00C:  # VICINTSELECT
                return self.select
            case 0x010:  # VICINTENABLE
                return self.enable
            case 0x018:  # VICSOFTINT
                return self.soft
            case 0x020:  # VICPROTECTION; which modes may access the registers is not checked
                return self.protection
            case 0x030:  # VICVECTADDR
                return self._acknowledge()
            case 0x034:  # VICDEFVECTADDR
                return self.default_address
            case _ if 0x100 <= offset < 0x140:
                return self.addresses[offset - 0x100 >> 2]
            case _ if 0x200 <= offset < 0x240:
                return self.controls[offset - 0x200 >> 2]
            case _:
                return _IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        match offset:
            case 0x00C:  # VICINTSELECT
                self.select = value
            case 0x010:  # VICINTENABLE
                self.enable |= value
            case 0x014:  # VICINTENCLEAR
                self.enable &= ~value
            case 0x018:  # VICSOFTINT
                self.soft |= value
            case 0x01C:  # VICSOFTINTCLEAR
                self.soft &= ~value
            case 0x020:  # VICPROTECTION
                self.protection = value & 1
            case 0x030:  # VICVECTADDR: the end of the service, whatever is written
                self.in_service &= self.in_service - 1
            case 0x034:  # VICDEFVECTADDR
                self.default_address = value
            case _ if 0x100 <= offset < 0x140:
                self.addresses[offset - 0x100 >> 2] = value
            case _ if 0x200 <= offset < 0x240:
                self.controls[offset - 0x200 >> 2] = value & (_VECTOR_ENABLE | _VECTOR_SOURCE)
            case _:
                return
        self._update()

    def _most_urgent(self) -> int:
        """Return the priority of the most urgent IRQ, or that of the idle program if there is none."""
        status = self.irq_status
        if not status:
            return _IDLE
        for priority in range(16):
            control = self.controls[priority]
            if control & _VECTOR_ENABLE and status >> (control & _VECTOR_SOURCE) & 1:
                return priority
        return _UNVECTORED

    def _acknowledge(self) -> int:
        """Return the address of the most urgent IRQ's handler. The IRQ is then in service: until VICVECTADDR is
        written, the IRQ line is asserted for more urgent ones only.

        With no IRQ more urgent than the one in service, the address of the latter, as in QEMU: the manual leaves it
        open.
        """
        priority = self._most_urgent()
        if priority < self.current:
            self.in_service |= 1 << priority
            self._update()
        current = self.current
        return self.default_address if current >= _UNVECTORED else self.addresses[current]

    def _update(self) -> None:
        current = self.current
        irq = self.irq_status != 0 and (current == _IDLE or self._most_urgent() < current)
        fiq = self.fiq_status != 0
        if irq != self.irq_level:
            self.irq_level = irq
            self.irq(irq)
        if fiq != self.fiq_level:
            self.fiq_level = fiq
            self.fiq(fiq)
