"""ARM PrimeCell UART (PL011), technical reference manual DDI 0183.

It transmits at once, so its transmit FIFO is always empty. As QEMU's, it transmits and receives even before UARTCR
enables it, which much bare-metal code relies on.

Receive interrupts are those of QEMU and of the manual together, because guests were written for either:

- UARTRXINTR is raised by every character, as QEMU raises it by the first one, whatever the level in UARTIFLS. By the
  manual (2.8.2) fewer characters than that level would raise UARTRTINTR only, and guests that enable UARTRXINTR
  alone would not hear of them.
- UARTRTINTR is raised by the manual (2.8.4) when the FIFO is not empty and nothing has arrived for 32 bit periods.
  QEMU 7.2 never raises it. If it is cleared while characters are left, another 32 bit periods begin. So a guest that
  empties the FIFO and then clears its interrupts hears of a character that came between the two.

No character arrives from outside with an error. In loopback a character can find the FIFO full, and the guest can
send itself a break.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dbt.devices.fields import LARGEST_COUNT
from dbt.devices.registers import WordRegisters, identification
from dbt.devices.shared import asks_for_input, shared
from dbt.devices.state import Byte, Tick, Wiring, Word
from dbt.devices.wiring import Alarm, Line, Time, Transmit, no_input

FR_CTS, FR_DSR, FR_DCD, FR_RXFE, FR_RXFF, FR_TXFE, FR_RI = 1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 8
INT_RX, INT_TX, INT_RT, INT_BE, INT_OE = 1 << 4, 1 << 5, 1 << 6, 1 << 9, 1 << 10
LCR_BRK, LCR_FEN = 1 << 0, 1 << 4
CR_LBE = 1 << 7
#: What UARTDR says of a character beside its eight bits; UARTRSR has the same four bits from bit 0 on.
DR_FE, DR_PE, DR_BE, DR_OE = 1 << 8, 1 << 9, 1 << 10, 1 << 11
FIFO_SIZE = 16
#: UARTCLK of the board, in Hz (ARM DUI 0224, "UART interface").
CLOCK_HZ = 24_000_000
#: The bit rate while UARTIBRD is 0, with which the manual has none.
DEFAULT_BIT_RATE = 115_200
_MICRO = 1_000_000
_TIMEOUT_BITS = 32
_INTERRUPTS = 0x7FF
_IDENTIFICATION = identification(0x00141011)
#: In loopback, outputs of UARTCR are the modem's answers in UARTFR: DTR as DSR, RTS as CTS, Out1 as DCD, Out2 as RI.
_LOOPED_BACK = ((1 << 10, FR_DSR), (1 << 11, FR_CTS), (1 << 12, FR_DCD), (1 << 13, FR_RI))


@shared
@dataclass(eq=False, repr=False)
class Pl011(WordRegisters):
    """The UART. ``transmit`` is given each byte that the guest sends; ``irq`` is the combined interrupt."""

    time: Wiring[Time]
    transmit: Wiring[Transmit]
    irq: Wiring[Line]
    #: The receive FIFO: characters with the bits of UARTDR above them, the oldest first, and zeros behind them.
    received: list[Word] = field(default_factory=lambda: [0] * FIFO_SIZE)
    #: The number of characters in the receive FIFO.
    held: Byte = 0
    #: A character found the FIFO full. The next one that enters it says so (2.4.3, "Overrun bit").
    overrun: bool = False
    #: The tick at which UARTRTINTR is raised, unless something changes before; None if nothing waits for it.
    timeout: Tick | None = None
    rsr: Word = 0
    ilpr: Word = 0
    ibrd: Word = 0
    fbrd: Word = 0
    lcr_h: Word = 0
    cr: Word = 0x300
    ifls: Word = 0x12
    imsc: Word = 0
    ris: Word = 0
    dmacr: Word = 0
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.alarm = self.time.alarm("receive time-out", self.rings)

    def is_possible(self) -> bool:
        entries = list(self.received)
        return self.held <= self.capacity and max(entries) <= 0xFFF and not any(entries[self.held :])

    @property
    def capacity(self) -> int:
        """The number of characters that the receiver can hold: 16 with the FIFO, 1 without (2.4.3)."""
        return FIFO_SIZE if self.lcr_h & LCR_FEN else 1

    @property
    def room(self) -> int:
        """The number of characters that :meth:`push` takes now. It is 0 in loopback, which cuts off the line."""
        return 0 if self.cr & CR_LBE else self.capacity - self.held

    @property
    def expects_input(self) -> bool:
        """True if the guest has enabled an interrupt for what arrives."""
        return bool(self.imsc & (INT_RX | INT_RT))

    def push(self, data: bytes) -> None:
        """Receive ``data``, at most :attr:`room` bytes; what is more is lost, as on an overrun line."""
        if not self.cr & CR_LBE:
            for character in data:
                self._receive(character)
            self._update()

    def _receive(self, entry: int) -> None:
        if self.held >= self.capacity:
            self.overrun = True
            self.rsr |= DR_OE >> 8
            self.ris |= INT_OE
            return
        if self.overrun:
            self.overrun = False
            entry |= DR_OE
        self.received[self.held] = entry
        self.held += 1
        self.ris |= INT_RX | (INT_BE if entry & DR_BE else 0)
        self._await_timeout()

    def _await_timeout(self) -> None:
        """Let 32 bit periods begin, at the rate that UARTIBRD and UARTFBRD make of UARTCLK (3.3.6)."""
        ticks = self.time.ticks_per_second
        if self.ibrd:
            period = _TIMEOUT_BITS * 16 * (64 * self.ibrd + self.fbrd) * (ticks // _MICRO) // (64 * CLOCK_HZ // _MICRO)
        else:
            period = _TIMEOUT_BITS * ticks // DEFAULT_BIT_RATE
        self.timeout = self.time.now + max(1, period)

    def settle(self) -> None:
        """Raise the receive time-out interrupt if its time has come."""
        if self.timeout is not None and self.time.now >= self.timeout:
            self.timeout = None
            self.ris |= INT_RT

    def _read_data(self) -> int:
        if not self.held:
            return 0  # Undefined in the manual.
        entry = self.received[0]
        self.held -= 1
        for place in range(self.held):
            self.received[place] = self.received[place + 1]
        self.received[self.held] = 0
        self.rsr = self.rsr & DR_OE >> 8 | entry >> 8 & 7
        if not self.held:
            self._emptied()
            self._update()
        return entry

    def _emptied(self) -> None:
        self.timeout = None
        self.ris &= ~(INT_RX | INT_RT)

    @property
    def _flags(self) -> int:
        flags = FR_TXFE
        if not self.held:
            flags |= FR_RXFE
        elif self.held >= self.capacity:
            flags |= FR_RXFF
        if self.cr & CR_LBE:
            for output, flag in _LOOPED_BACK:
                if self.cr & output:
                    flags |= flag
        return flags

    def read_word(self, offset: int) -> int:
        match offset:
            case 0x00:  # UARTDR
                return self._read_data()
            case 0x04:  # UARTRSR
                return self.rsr
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
                self.settle()
                return self.ris
            case 0x40:  # UARTMIS
                self.settle()
                return self.ris & self.imsc
            case 0x48:
                return self.dmacr
            case _:
                return _IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        match offset:
            case 0x00:  # UARTDR
                self._send(value & 0xFF)
                self.ris |= INT_TX
            case 0x04:  # UARTECR: whatever is written clears the errors
                self.rsr = 0
            case 0x20:
                self.ilpr = value & 0xFF
            case 0x24:
                self.ibrd = value & 0xFFFF
            case 0x28:
                self.fbrd = value & 0x3F
            case 0x2C:
                self._control_line(value & 0xFF)
            case 0x30:
                self.cr = value & 0xFFFF
            case 0x34:
                self.ifls = value & 0x3F
            case 0x38:
                self.imsc = value & _INTERRUPTS
            case 0x44:
                self._clear(value)
            case 0x48:
                self.dmacr = value & 0x7
            case _:
                return
        self._update()

    def _control_line(self, value: int) -> None:
        """Write UARTLCR_H. To turn the FIFO off empties it.

        To turn it on keeps a character that is there, because the holding register is the FIFO's bottom entry (2.4.3).
        QEMU drops it, but would not have received it so soon: there the guest would lose what the user typed early.
        """
        changed = self.lcr_h ^ value
        self.lcr_h = value
        if changed & LCR_FEN and not value & LCR_FEN:
            self.held = 0
            for place in range(FIFO_SIZE):
                self.received[place] = 0
            self._emptied()
        if changed & value & LCR_BRK and self.cr & CR_LBE:
            self._receive(DR_BE)

    def _clear(self, interrupts: int) -> None:
        """Write UARTICR. If characters are left, the guest hears of them after another time-out."""
        self.settle()
        self.ris &= ~interrupts
        if self.held and interrupts & INT_RT and self.timeout is None:
            self._await_timeout()

    def _send(self, character: int) -> None:
        if self.cr & CR_LBE:
            self._receive(character)
        else:
            self.transmit(character)

    def rings(self) -> None:
        """The alarm rings: nothing has arrived for 32 bit periods."""
        self._update()

    def _update(self) -> None:
        """Drive the line, and ask to be called at the time-out if that will change it."""
        self.settle()
        if self.timeout is not None and self.imsc & INT_RT:
            self.alarm.set(self.timeout)
        else:
            self.alarm.cancel()
        self.irq(self.ris & self.imsc != 0)


#: Registers from which the guest learns whether something has been received: UARTDR, UARTFR, UARTRIS, UARTMIS.
_SHOW_RECEPTION = frozenset((0x00, 0x18, 0x3C, 0x40))
#: Registers whose writing may make the guest expect input, or make room for it: UARTLCR_H, UARTCR, UARTIMSC.
_CHANGE_RECEPTION = frozenset((0x2C, 0x30, 0x38))


@shared
@dataclass(eq=False, repr=False)
class ConsoleUart(Pl011):
    """A UART that asks for input where the program looks for it, so that the program alone decides where it arrives.

    ``refill`` pushes what has arrived at the console, as far as there is room. It is called

    - before a read that shows whether something has been received,
    - and, while a receive interrupt is enabled, after an access that may have made room.

    Before a guest does either, its input waits, and nothing that it sets up can lose it.
    ``arrived`` counts the bytes that have come from the console: the UART's position in the input.
    """

    refill: Wiring[Callable[[], None]] = no_input
    arrived: int = 0

    def is_possible(self) -> bool:
        return super().is_possible() and 0 <= self.arrived < LARGEST_COUNT

    def push(self, data: bytes) -> None:
        self.arrived += len(data)
        super().push(data)

    def read_word(self, offset: int) -> int:
        if offset in _SHOW_RECEPTION:
            self._ask_for_input()
            self.refill()
        value = super().read_word(offset)
        if offset == 0 and self.expects_input:
            self.refill()
        return value

    def write_word(self, offset: int, value: int) -> None:
        if offset in _CHANGE_RECEPTION:
            self._ask_for_input()
        super().write_word(offset, value)
        if offset in _CHANGE_RECEPTION and self.expects_input:
            self.refill()

    @asks_for_input
    def _ask_for_input(self) -> None:
        """Ask before anything changes."""
