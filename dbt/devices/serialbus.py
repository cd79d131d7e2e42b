"""The serial bus interface of Versatile/PB (ARM DUI 0224): the two wires of an I2C bus, moved by software.

One chip is on the bus. The wires are pulled up: each is high unless somebody pulls it low.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbt.devices.registers import WordRegisters
from dbt.devices.state import Byte, Part, Stateful, Wiring

SCL, SDA = 1 << 0, 1 << 1
#: What the chip makes of the bits: nothing, its address, data for it, data from it.
_IGNORED, _ADDRESS, _RECEIVING, _SENDING = range(4)


class Chip(Stateful):
    """A chip on the bus, byte by byte."""

    def start(self, reading: bool) -> None:
        """Begin a transfer, in which the bus master reads from the chip or writes to it."""
        raise NotImplementedError

    def read(self) -> int:
        """Return the next byte that the chip sends."""
        raise NotImplementedError

    def write(self, value: int) -> None:
        """Take the next byte that the chip is sent."""
        raise NotImplementedError


@dataclass(eq=False)
class SerialBus(WordRegisters):
    """The wires, and what is known of the transfer that goes on."""

    chip: Part[Chip]
    address: Wiring[int]
    #: The wires as software leaves them; set: released.
    wires: Byte = 0
    #: The chip pulls SDA low.
    pulled: bool = False
    phase: Byte = _IGNORED
    byte: Byte = 0
    bits: Byte = 0

    def is_possible(self) -> bool:
        """The clock is high after the ninth bit, and a byte that arrives has as many bits as have come."""
        if self.wires > SCL | SDA or self.phase > _SENDING or self.bits > (9 if self.wires & SCL else 8):
            return False
        return self.phase in (_IGNORED, _SENDING) or self.byte < 1 << min(self.bits, 8)

    def read_word(self, offset: int) -> int:
        if offset:
            return 0
        return self.wires & ~SDA if self.pulled else self.wires

    def write_word(self, offset: int, value: int) -> None:
        match offset:
            case 0x0:  # SB_CONTROLS
                wires = self.wires | value & (SCL | SDA)
            case 0x4:  # SB_CONTROLC
                wires = self.wires & ~value
            case _:
                return
        # If both wires change, the clock comes first.
        self._move(self.wires & SDA | wires & SCL)
        self._move(wires)

    def _move(self, wires: int) -> None:
        changed, self.wires = self.wires ^ wires, wires
        if changed & SDA and wires & SCL:  # A stop, or a start
            self.phase = _IGNORED if wires & SDA else _ADDRESS
            self.byte = self.bits = 0
            self.pulled = False
        elif changed & SCL and self.phase != _IGNORED:
            if wires & SCL:
                self._sample(wires & SDA != 0 and not self.pulled)
            else:
                self._drive()

    def _sample(self, high: bool) -> None:
        """Take SDA, which is valid as the clock rises. The ninth bit of a byte is its acknowledgement, which is low."""
        if self.bits < 8 and self.phase != _SENDING:
            self.byte = self.byte << 1 | high
        elif self.bits == 8 and self.phase == _SENDING and high:
            self.phase = _IGNORED
        self.bits += 1

    def _drive(self) -> None:
        """Drive SDA, which may change as the clock falls."""
        if self.bits == 8:
            self.pulled = self.phase != _SENDING and self._take()
            return
        if self.bits == 9:
            self.bits = 0
            self.byte = self.chip.read() if self.phase == _SENDING else 0
        self.pulled = self.phase == _SENDING and not self.byte >> 7 - self.bits & 1

    def _take(self) -> bool:
        """Give the chip the byte that has arrived. Return True if it acknowledges it."""
        if self.phase == _RECEIVING:
            self.chip.write(self.byte)
            return True
        if self.byte >> 1 != self.address:
            self.phase = _IGNORED
            return False
        reading = self.byte & 1 != 0
        self.chip.start(reading)
        self.phase = _SENDING if reading else _RECEIVING
        return True
