"""ARM PrimeCell UART (PL011), technical reference manual DDI 0183.

It transmits at once, so its transmit FIFO is always empty, and takes a character from the line when the
guest reads one. As QEMU's, it transmits even before UARTCR enables it, which much bare-metal code relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DR, RSR, FR, ILPR, IBRD, FBRD, LCR_H, CR = 0x00, 0x04, 0x18, 0x20, 0x24, 0x28, 0x2C, 0x30
IFLS, IMSC, RIS, MIS, ICR, DMACR = 0x34, 0x38, 0x3C, 0x40, 0x44, 0x48
FR_RXFE, FR_TXFE = 1 << 4, 1 << 7
INT_TX = 1 << 5
_IDENTIFICATION = dict(zip(range(0xFE0, 0x1000, 4), (0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1), strict=True))


@dataclass
class Pl011:
    """``transmit`` is given what the guest sends, one byte at a time. ``arrived`` says whether something can be
    received, and ``receive`` takes one byte of it; None or no byte reads as 0.
    """

    transmit: Callable[[bytes], None]
    arrived: Callable[[], bool]
    receive: Callable[[int], bytes | None]
    ilpr: int = 0
    ibrd: int = 0
    fbrd: int = 0
    lcr_h: int = 0
    cr: int = 0x300
    ifls: int = 0x12
    imsc: int = 0
    ris: int = 0
    dmacr: int = 0

    def read(self, offset: int, size: int) -> int:
        """``size`` bytes of the register at ``offset``; reserved places read as zero."""
        value = self._read_register(offset & ~3) >> 8 * (offset & 3)
        return value & (1 << 8 * size) - 1

    def _read_register(self, offset: int) -> int:
        match offset:
            case 0x00:  # UARTDR
                return int.from_bytes(self.receive(1) or b"", "little") if self.arrived() else 0
            case 0x18:  # UARTFR
                return FR_TXFE | (0 if self.arrived() else FR_RXFE)
            case 0x20:
                return self.ilpr
            case 0x24:
                return self.ibrd
            case 0x28:
                return self.fbrd
            case 0x2C:
                return self.lcr_h
            case 0x30:
                return self.cr
            case 0x34:
                return self.ifls
            case 0x38:
                return self.imsc
            case 0x3C:
                return self.ris
            case 0x40:  # UARTMIS
                return self.ris & self.imsc
            case 0x48:
                return self.dmacr
            case _:
                return _IDENTIFICATION.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """A write to the low bytes of a register; others, and reserved places, ignore it."""
        match offset:
            case 0x00:  # UARTDR
                self.transmit(bytes((value & 0xFF,)))
                self.ris |= INT_TX
            case 0x20:
                self.ilpr = value & 0xFF
            case 0x24:
                self.ibrd = value & 0xFFFF
            case 0x28:
                self.fbrd = value & 0x3F
            case 0x2C:
                self.lcr_h = value & 0xFF
            case 0x30:
                self.cr = value & 0xFFFF
            case 0x34:
                self.ifls = value & 0x3F
            case 0x38:
                self.imsc = value & 0x7FF
            case 0x44:  # UARTICR
                self.ris &= ~value
            case 0x48:
                self.dmacr = value & 0x7
