"""ARM PrimeCell general purpose input and output (PL061), technical reference manual DDI 0190.

An input to which nothing is connected reads as what was last written to it as an output, at first 0. There is an
interrupt by an edge if something drives an input (:meth:`Pl061.drive`).
"""

from __future__ import annotations

from dataclasses import dataclass

from dbt.devices.registers import WordRegisters, identification
from dbt.devices.state import Byte, Wiring
from dbt.devices.wiring import Line

_IDENTIFICATION = identification(0x00041061)
_PINS = 0xFF


@dataclass(eq=False)
class Pl061(WordRegisters):
    """Eight pins. Each field of state has a bit for each of them."""

    irq: Wiring[Line]
    data: Byte = 0
    direction: Byte = 0  # set: output
    by_level: Byte = 0
    both_edges: Byte = 0
    high: Byte = 0  # set: interrupts on high level, clear: on low
    mask: Byte = 0
    raised: Byte = 0
    alternate: Byte = 0

    def read_word(self, offset: int) -> int:
        match offset:
            case _ if offset < 0x400:  # GPIODATA: address bits 9:2 mask the data
                return self.data & offset >> 2
            case 0x400:  # GPIODIR
                return self.direction
            case 0x404:  # GPIOIS
                return self.by_level
            case 0x408:  # GPIOIBE
                return self.both_edges
            case 0x40C:  # GPIOIEV
                return self.high
            case 0x410:  # GPIOIE
                return self.mask
            case 0x414:  # GPIORIS
                return self.raised
            case 0x418:  # GPIOMIS
                return self.raised & self.mask
            case 0x420:  # GPIOAFSEL
                return self.alternate
            case _:
                return _IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        value &= _PINS
        match offset:
            case _ if offset < 0x400:  # GPIODATA
                pins = self.direction & offset >> 2
                self.data = self.data & ~pins | value & pins
            case 0x400:
                self.direction = value
            case 0x404:
                self.by_level = value
            case 0x408:
                self.both_edges = value
            case 0x40C:
                self.high = value
            case 0x410:
                self.mask = value
            case 0x41C:  # GPIOIC
                self.raised &= ~value
            case 0x420:
                self.alternate = value
            case _:
                return
        self._update()

    def drive(self, number: int, level: bool) -> None:
        """Take a new level of a pin, which may be the same as before. One that is an output does not change."""
        pin = 1 << number
        if self.direction & pin or (self.data & pin != 0) == level:
            return
        self.data ^= pin
        is_selected = self.both_edges & pin or not (self.data ^ self.high) & pin
        if is_selected and not self.by_level & pin:
            self.raised |= pin
        self._update()

    def _update(self) -> None:
        self.raised |= ~(self.data ^ self.high) & self.by_level & _PINS
        self.irq(self.raised & self.mask != 0)
