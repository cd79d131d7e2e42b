"""The secondary interrupt controller of Versatile/PB (ARM DUI 0224, "Interrupt controllers").

Its 32 inputs become one input, 31, of the primary controller; inputs 21 to 30 can be passed on as they are as well.
Where QEMU's differs from the manual, this one follows the manual: the software interrupt is an input, not an
enable bit, and an input that is no longer passed on is no longer seen by the primary controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dbt.devices.registers import WordRegisters
from dbt.devices.state import Wiring, Word
from dbt.devices.wiring import Line

#: Inputs 21 to 30.
_PASSED_ON_MASK = 0x7FE00000


@dataclass(eq=False)
class Sic(WordRegisters):
    """``output`` is the line to the primary controller's input 31, ``passed_on`` those to its inputs 21 to 30."""

    output: Wiring[Line]
    passed_on: Wiring[Mapping[int, Line]]
    inputs: Word = 0
    soft: Word = 0
    enable: Word = 0
    pass_on: Word = 0

    def line(self, number: int) -> Line:
        bit = 1 << number

        def drive(level: bool) -> None:
            inputs = self.inputs | bit if level else self.inputs & ~bit
            if inputs != self.inputs:
                self.inputs = inputs
                self._update()

        return drive

    @property
    def raw(self) -> int:
        return self.inputs | self.soft

    def read_word(self, offset: int) -> int:
        match offset:
            case 0x00:  # SIC_STATUS
                return self.raw & self.enable
            case 0x04:  # SIC_RAWSTAT
                return self.raw
            case 0x08:  # SIC_ENABLE
                return self.enable
            case 0x10:  # SIC_SOFTINTSET
                return self.soft
            case 0x20:  # SIC_PICENABLE
                return self.pass_on
            case _:
                return 0

    def write_word(self, offset: int, value: int) -> None:
        match offset:
            case 0x08:  # SIC_ENSET
                self.enable |= value
            case 0x0C:  # SIC_ENCLR
                self.enable &= ~value
            case 0x10:  # SIC_SOFTINTSET
                self.soft |= value & 1
            case 0x14:  # SIC_SOFTINTCLR
                self.soft &= ~value
            case 0x20:  # SIC_PICENSET
                self.pass_on |= value & _PASSED_ON_MASK
            case 0x24:  # SIC_PICENCLR
                self.pass_on &= ~value
            case _:
                return
        self._update()

    def _update(self) -> None:
        passed_on = self.inputs & self.pass_on
        for number, line in self.passed_on.items():
            line(passed_on >> number & 1 != 0)
        self.output(self.raw & self.enable != 0)
