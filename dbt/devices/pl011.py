"""ARM PrimeCell UART (PL011), technical reference manual DDI 0183.

It transmits at once, so its transmit FIFO is always empty. As QEMU's, it transmits even before UARTCR enables
it, which much bare-metal code relies on.

Also as QEMU's, the receive interrupt is raised by the first character, whatever the FIFO level in UARTIFLS, and
the receive time-out interrupt, which tells of characters below that level, is never needed. Guests that enable
either one or the other, and only one, were all written for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dbt.devices.registers import WordRegisters, identification
from dbt.devices.wiring import Line, unconnected

FR_CTS, FR_DSR, FR_DCD, FR_RXFE, FR_RXFF, FR_TXFE, FR_RI = 1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 8
INT_RX, INT_TX, INT_RT = 1 << 4, 1 << 5, 1 << 6
LCR_FEN = 1 << 4
CR_LBE = 1 << 7
FIFO_SIZE = 16
_INTERRUPTS = 0x7FF
_IDENTIFICATION = identification(0x00141011)
#: In loopback, outputs of UARTCR are the modem's answers in UARTFR: DTR as DSR, RTS as CTS, Out1 as DCD, Out2 as RI.
_LOOPED_BACK = ((1 << 10, FR_DSR), (1 << 11, FR_CTS), (1 << 12, FR_DCD), (1 << 13, FR_RI))


@dataclass(eq=False)
class Pl011(WordRegisters):
    """``transmit`` is given what the guest sends, one byte at a time; ``irq`` is the combined interrupt."""

    transmit: Callable[[bytes], None]
    irq: Line = unconnected
    received: bytes = b""
    ilpr: int = 0
    ibrd: int = 0
    fbrd: int = 0
    lcr_h: int = 0
    cr: int = 0x300
    ifls: int = 0x12
    imsc: int = 0
    ris: int = 0
    dmacr: int = 0

    @property
    def capacity(self) -> int:
        """Characters that the receiver holds."""
        return FIFO_SIZE if self.lcr_h & LCR_FEN else 1

    @property
    def room(self) -> int:
        """How many characters :meth:`push` takes now; none in loopback, in which the line is cut off."""
        return 0 if self.cr & CR_LBE else self.capacity - len(self.received)

    @property
    def expects_input(self) -> bool:
        """Whether the guest is to be interrupted by what arrives, without looking."""
        return bool(self.imsc & (INT_RX | INT_RT))

    def push(self, data: bytes) -> None:
        """Receive ``data``, at most :attr:`room` bytes; what is more is lost, as on an overrun line."""
        if not self.cr & CR_LBE:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        data = data[: self.capacity - len(self.received)]
        if data:
            if not self.received:
                self.ris |= INT_RX
            self.received += data
            self._update()

    def _read_data(self) -> int:
        if not self.received:
            return 0  # Undefined in the manual.
        character = self.received[0]
        self.received = self.received[1:]
        if not self.received:
            self.ris &= ~INT_RX
            self._update()
        return character

    @property
    def _flags(self) -> int:
        flags = FR_TXFE
        if not self.received:
            flags |= FR_RXFE
        elif len(self.received) >= self.capacity:
            flags |= FR_RXFF
        if self.cr & CR_LBE:
            flags |= sum(flag for output, flag in _LOOPED_BACK if self.cr & output)
        return flags

    def read_word(self, offset: int) -> int:
        match offset:
            case 0x00:  # UARTDR
                return self._read_data()
            case 0x18:  # UARTFR
                return self._flags
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
            case _:  # UARTRSR among them: no character is received with an error
                return _IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        match offset:
            case 0x00:  # UARTDR
                self._send(value & 0xFF)
            case 0x20:
                self.ilpr = value & 0xFF
            case 0x24:
                self.ibrd = value & 0xFFFF
            case 0x28:
                self.fbrd = value & 0x3F
            case 0x2C:  # UARTLCR_H; a break is not sent
                if (self.lcr_h ^ value) & LCR_FEN:
                    self.received = b""
                self.lcr_h = value & 0xFF
            case 0x30:
                self.cr = value & 0xFFFF
            case 0x34:
                self.ifls = value & 0x3F
            case 0x38:
                self.imsc = value & _INTERRUPTS
                self._update()
            case 0x44:  # UARTICR
                self.ris &= ~value
                self._update()
            case 0x48:
                self.dmacr = value & 0x7

    def _send(self, character: int) -> None:
        if self.cr & CR_LBE:
            self._receive(bytes((character,)))
        else:
            self.transmit(bytes((character,)))
        self.ris |= INT_TX
        self._update()

    def _update(self) -> None:
        self.irq(self.ris & self.imsc != 0)
