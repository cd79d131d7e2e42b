"""SMSC LAN91C111 Ethernet controller (its data sheet), with its cable pulled: nothing arrives, what is sent is lost.

There is no PHY, and no packet memory: what is written to a packet is not kept. A place is written here as bank
and offset, so 0x1C is offset 0xC of bank 1; the banks are chosen by offset 0xE of any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dbt.devices.device import Device
from dbt.devices.state import Byte, Wiring
from dbt.devices.wiring import Line

_INT_ALLOCATED, _INT_TX_EMPTY, _INT_TX = 1 << 3, 1 << 2, 1 << 1
_CAN_BE_ACKNOWLEDGED = 0xD6
_SOFT_RESET, _AUTO_RELEASE = 1 << 7, 1 << 3
_NO_PACKET = 0x80
#: Bytes that do not change: EPH status (no link), memory size, management interface (nobody answers), revision,
#: the receive FIFO.
_FIXED = {0x03: 0x40, 0x08: 0x04, 0x25: _NO_PACKET, 0x38: 0x30, 0x39: 0x33, 0x3A: 0x91, 0x3B: 0x33}
#: Bytes that can be written and read, after a reset: TCR, RCR, configuration, general purpose, control, packet
#: number, pointer, ERCV.
_RESET_VALUES = {
    **{0x00: 0, 0x01: 0, 0x04: 0, 0x05: 0},
    **{0x10: 0xB1, 0x11: 0xA0, 0x1A: 0, 0x1B: 0, 0x1C: 0x10, 0x1D: 0x12},
    **{0x22: 0, 0x26: 0, 0x27: 0, 0x3C: 0x1F},
}
_RCR_HIGH, _CONTROL_HIGH, _PACKET_NUMBER = 0x05, 0x1D, 0x22
_WRITABLE = {0x1C: 0xFC, 0x3C: 0x1F}


@dataclass(eq=False)
class Smc91c111(Device):
    """``bank`` is the one that software has chosen, and ``sent`` the number of the packet that was sent last."""

    irq: Wiring[Line]
    address: Wiring[bytes] = b"\x52\x54\x00\x12\x34\x56"
    bank: Byte = 0
    registers: dict[int, Byte] = field(default_factory=_RESET_VALUES.copy)
    sent: Byte = _NO_PACKET
    interrupts: Byte = _INT_TX_EMPTY
    mask: Byte = 0

    def is_possible(self) -> bool:
        return self.bank < 8 and self.registers.keys() == _RESET_VALUES.keys()

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes((self._read_byte(place & 15) for place in range(offset, offset + size)), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        for place, byte in enumerate(value.to_bytes(size, "little"), offset):
            self._write_byte(place & 15, byte)
        self.irq(self.interrupts & self.mask != 0)

    def _read_byte(self, offset: int) -> int:
        if offset >= 14:
            return self.bank if offset == 14 else 0x33
        match self.bank << 4 | offset:
            case 0x14 | 0x15 | 0x16 | 0x17 | 0x18 | 0x19:
                return self.address[offset - 4]
            case 0x24:
                return self.sent
            case 0x2C:
                return self.interrupts
            case 0x2D:
                return self.mask
            case place:
                return _FIXED.get(place, 0) | self.registers.get(place, 0)

    def _write_byte(self, offset: int, value: int) -> None:
        if offset >= 14:
            self.bank = value & 7 if offset == 14 else self.bank
            return
        match self.bank << 4 | offset:
            case 0x20:
                self._command(value >> 5)
            case 0x2C:  # Acknowledge
                self.interrupts &= ~(value & _CAN_BE_ACKNOWLEDGED) | _INT_TX_EMPTY
                if value & _INT_TX:
                    self.sent = _NO_PACKET
            case 0x2D:
                self.mask = value
            case place if place in self.registers:
                self.registers[place] = value & _WRITABLE.get(place, 0xFF)
                if place == _RCR_HIGH and value & _SOFT_RESET:
                    self._reset()

    def _command(self, command: int) -> None:
        """Do a command of the MMU. Packet 0 is always free; the other commands release packets."""
        match command:
            case 1:
                self.interrupts |= _INT_ALLOCATED
            case 6 if not self.registers[_CONTROL_HIGH] & _AUTO_RELEASE:
                self.sent = self.registers[_PACKET_NUMBER]
                self.interrupts |= _INT_TX
            case 2 | 7:
                self.sent = _NO_PACKET

    def _reset(self) -> None:
        self.bank, self.sent, self.interrupts, self.mask = 0, _NO_PACKET, _INT_TX_EMPTY, 0
        self.registers = _RESET_VALUES.copy()
