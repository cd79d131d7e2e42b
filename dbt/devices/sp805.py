"""ARM watchdog module (SP805), technical reference manual DDI 0270.

A down counter like those of :mod:`dbt.devices.sp804`. At its first zero it raises its interrupt and starts
again; if nobody has cleared the interrupt by the next zero, it resets the board.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dbt.devices.registers import WordRegisters, identification
from dbt.devices.state import Tick, Wiring, Word
from dbt.devices.wiring import Alarm, Line, Time

_IDENTIFICATION = identification(0x00141805)
INTERRUPT_ENABLE, RESET_ENABLE = 1 << 0, 1 << 1
_UNLOCK = 0x1ACCE551


@dataclass(eq=False)
class Sp805(WordRegisters):
    """The watchdog. ``frequency`` is its clock, in Hz; ``reset`` resets the board."""

    time: Wiring[Time]
    irq: Wiring[Line]
    reset: Wiring[Callable[[], None]]
    frequency: Wiring[int] = 1_000_000
    load: Word = 0xFFFFFFFF
    control: Word = 0
    #: The value while the counter stands still.
    count: Word = 0xFFFFFFFF
    #: The tick at which the counter is zero next; None while it stands still.
    zero: Tick | None = None
    raised: bool = False
    locked: bool = False
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.alarm = self.time.alarm("zero", self._expire)

    def is_possible(self) -> bool:
        # Otherwise it would be at zero again and again, without time passing.
        return self.load > 0 and (self.zero is None or self.control & INTERRUPT_ENABLE != 0)

    @property
    def _scale(self) -> int:
        return self.time.ticks_per_second // self.frequency

    @property
    def value(self) -> int:
        return self.count if self.zero is None else (self.zero - self.time.now) // self._scale & 0xFFFFFFFF

    def read_word(self, offset: int) -> int:
        match offset:
            case 0x000:  # WdogLoad
                return self.load
            case 0x004:  # WdogValue
                return self.value
            case 0x008:  # WdogControl
                return self.control
            case 0x010:  # WdogRIS
                return int(self.raised)
            case 0x014:  # WdogMIS
                return int(self.raised and self.control & INTERRUPT_ENABLE != 0)
            case 0xC00:  # WdogLock
                return int(self.locked)
            case _:
                return _IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        if offset == 0xC00:  # WdogLock
            self.locked = value != _UNLOCK
        if self.locked:
            return
        match offset:
            case 0x000:  # WdogLoad; the manual allows no 0
                self.load = max(value, 1)
                self._restart()
            case 0x008:  # WdogControl
                self._write_control(value & (INTERRUPT_ENABLE | RESET_ENABLE))
            case 0x00C:  # WdogIntClr
                self.raised = False
                self._restart()
        self.irq(self.raised and self.control & INTERRUPT_ENABLE != 0)

    def _write_control(self, value: int) -> None:
        started = value & ~self.control & INTERRUPT_ENABLE
        if not value & INTERRUPT_ENABLE:
            self.count, self.zero = self.value, None
            self._expect_zero()
        self.control = value
        if started:
            self._restart()

    def _restart(self) -> None:
        """Count down from WdogLoad, if the counter is enabled at all."""
        self.count = self.load
        if self.control & INTERRUPT_ENABLE:
            self.zero = self.time.now + self.load * self._scale
        self._expect_zero()

    def _expect_zero(self) -> None:
        if self.zero is not None:
            self.alarm.set(self.zero)
        else:
            self.alarm.cancel()

    def _expire(self) -> None:
        if self.raised and self.control & RESET_ENABLE:
            self.count, self.zero = 0, None
            self.reset()
            return
        self.raised = True
        self._restart()
        self.irq(True)
