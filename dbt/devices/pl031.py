"""ARM PrimeCell real time clock (PL031), technical reference manual DDI 0224.

It counts seconds of virtual time, and as QEMU's always runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dbt.devices.registers import WordRegisters, identification
from dbt.devices.shared import shared
from dbt.devices.state import Wiring, Word
from dbt.devices.wiring import Alarm, Line, Time

_IDENTIFICATION = identification(0x00141031)
_WORD = 0xFFFFFFFF
#: A tick that comes in more than ten years of any guest's time.
_LAST = 1 << 62


@shared
@dataclass(eq=False)
class Pl031(WordRegisters):
    """The clock. ``offset`` is what its counter shows at tick 0, in seconds since 1970."""

    time: Wiring[Time]
    irq: Wiring[Line]
    offset: int
    match: Word = 0
    load: Word = 0
    mask: Word = 0
    raised: bool = False
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.alarm = self.time.alarm("match", self.rings)

    @property
    def seconds(self) -> int:
        return self.offset + self.time.now // self.time.ticks_per_second & _WORD

    def read_word(self, offset: int) -> int:
        match offset:
            case 0x00:  # RTCDR
                return self.seconds
            case 0x04:  # RTCMR
                return self.match
            case 0x08:  # RTCLR
                return self.load
            case 0x0C:  # RTCCR
                return 1
            case 0x10:  # RTCIMSC
                return self.mask
            case 0x14:  # RTCRIS
                return int(self.raised)
            case 0x18:  # RTCMIS
                return int(self.raised) & self.mask
            case _:
                return _IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        match offset:
            case 0x04:  # RTCMR
                self.match = value
                self._await_match()
            case 0x08:  # RTCLR
                self.load = value
                self.offset += value - self.seconds
                self._await_match()
            case 0x10:  # RTCIMSC
                self.mask = value & 1
            case 0x1C:  # RTCICR
                self.raised = self.raised and not value & 1
            case _:
                return
        self._update()

    def _await_match(self) -> None:
        left = self.match - self.seconds & _WORD
        second = self.time.now // self.time.ticks_per_second + left
        if left:
            self.alarm.set(min(second, _LAST // self.time.ticks_per_second) * self.time.ticks_per_second)
        else:
            self.alarm.cancel()
            self.raised = True

    def rings(self) -> None:
        """The alarm rings: the clock shows what RTCMR has."""
        self.raised = True
        self._update()

    def _update(self) -> None:
        self.irq(self.raised and self.mask != 0)
