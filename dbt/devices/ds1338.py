"""DS1338 real time clock with 56 bytes of RAM, as on the serial bus of Versatile/PB (its data sheet; a DS1307's twin).

It shows virtual time, in 24-hour mode only. The day of the week goes with the date, as QEMU's, when this is set;
the control register does nothing.
"""

from __future__ import annotations

import time as calendar_time
from dataclasses import dataclass, field

from dbt.devices.serialbus import Chip
from dbt.devices.state import Byte, Wiring
from dbt.devices.wiring import Time

ADDRESS = 0x68
_SIZE = 64
#: In seconds: far more than the clock's two digits of the year can set, and still a date.
_LARGEST_OFFSET = 1 << 40
_CONTROL = 7
#: The control register's bits that are there, and the one, OSF, that can be cleared but not set.
_CONTROL_BITS, _STOPPED = 0xB3, 1 << 5
#: Which bits of the seven time registers can be set.
_MASKS = (0x7F, 0x7F, 0x3F, 0x07, 0x3F, 0x1F, 0xFF)


def _to_bcd(number: int) -> int:
    return number // 10 << 4 | number % 10


def _from_bcd(value: int) -> int:
    return (value >> 4) * 10 + (value & 15)


@dataclass(eq=False)
class Ds1338(Chip):
    """The chip. ``offset`` is the time of day at tick 0, in seconds since 1970. Years are those of this century."""

    time: Wiring[Time]
    offset: int
    memory: list[Byte] = field(default_factory=lambda: [0] * _SIZE)
    pointer: Byte = 0
    #: The next byte written is the pointer.
    addressed: bool = False
    weekday_shift: int = 0

    def is_possible(self) -> bool:
        return abs(self.offset) < _LARGEST_OFFSET and len(self.memory) == _SIZE and self.pointer < _SIZE

    @property
    def _seconds(self) -> int:
        return self.offset + self.time.now // self.time.ticks_per_second

    def start(self, reading: bool) -> None:
        """Begin a transfer, for which the time is latched (data sheet, "Clock and Calendar")."""
        self.addressed = not reading
        self._latch()

    def _latch(self) -> None:
        now = calendar_time.gmtime(self._seconds)
        weekday = (now.tm_wday + 1 + self.weekday_shift) % 7 + 1  # Sunday is 1
        self.memory[:7] = (
            *map(_to_bcd, (now.tm_sec, now.tm_min, now.tm_hour)),
            weekday,
            *map(_to_bcd, (now.tm_mday, now.tm_mon, now.tm_year % 100)),
        )

    def read(self) -> int:
        value = self.memory[self.pointer]
        self._advance()
        return value

    def write(self, value: int) -> None:
        if self.addressed:
            self.addressed, self.pointer = False, value % _SIZE
            return
        if self.pointer < len(_MASKS):
            self._set_time(self.pointer, value & _MASKS[self.pointer])
        elif self.pointer == _CONTROL:
            self.memory[_CONTROL] = value & _CONTROL_BITS & (self.memory[_CONTROL] | ~_STOPPED)
        else:
            self.memory[self.pointer] = value
        self._advance()

    def _advance(self) -> None:
        self.pointer = (self.pointer + 1) % _SIZE
        if not self.pointer:
            self._latch()

    def _set_time(self, register: int, value: int) -> None:
        """Set one of the time registers, and with it the clock.

        While registers are written one after the other, the date can be one that does not exist. It then runs over into
        the next month.
        """
        import calendar  # Three milliseconds, which few guests need.

        if register == 3:
            self.weekday_shift += value - self.memory[3]
            self.memory[3] = value
            return
        self.memory[register] = value
        second, minute, hour, _, day, month, year = map(_from_bcd, self.memory[:7])
        months = (2000 + year) * 12 + max(month, 1) - 1
        first = calendar.timegm((months // 12, months % 12 + 1, 1, hour, minute, second))
        self.offset += first + (max(day, 1) - 1) * 86400 - self._seconds
