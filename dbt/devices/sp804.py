"""ARM dual timer module (SP804), technical reference manual DDI 0271.

Two down counters. A running counter is a tick, that of its next zero, from which its value follows, so nothing
is rounded more than once and nothing drifts. What has happened since is settled when someone looks; only a zero
that raises an interrupt is an event of the timeline.

A counter that is loaded with N is zero N counts later, by the manual's formula for the interval, and then begins
its next N at once. Until then its value is the number of whole counts that are left, as QEMU's. Unlike QEMU's,
writing the control register reloads a counter only if a one-shot has come to its end, a free-running counter
starts from what was loaded, and its period is a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dbt.devices.registers import WordRegisters, identification
from dbt.devices.shared import shared
from dbt.devices.state import Byte, Part, Stateful, Tick, Wiring, Word
from dbt.devices.wiring import Alarm, DeviceInput, Line, Time

_IDENTIFICATION = identification(0x00141804)
ONE_SHOT, SIZE_32, INTERRUPT_ENABLE, PERIODIC, ENABLE = 1 << 0, 1 << 1, 1 << 5, 1 << 6, 1 << 7
_PRESCALE = 3 << 2
#: TimerPrescale to the counter's clock divisor; 3 is undefined, and taken as 256.
_DIVISORS = (1, 16, 256, 256)


@shared
@dataclass(eq=False)
class Timer(Stateful):
    """One of the two timers, number 0 or 1. A cycle of its clock takes ``ticks`` ticks of virtual time."""

    time: Wiring[Time]
    number: Wiring[int]
    ticks: Wiring[int]
    output: Wiring[Line]
    load: Word = 0
    control: Word = INTERRUPT_ENABLE
    #: The value while the counter stands still.
    count: Word = 0xFFFFFFFF
    #: The tick at which the counter is zero next; None while it stands still.
    zero: Tick | None = None
    raised: bool = False
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.alarm = self.time.alarm(f"zero of timer {self.number}", self.rings)

    @property
    def _mask(self) -> int:
        return 0xFFFFFFFF if self.control & SIZE_32 else 0xFFFF

    @property
    def _scale(self) -> int:
        """The ticks that a count takes."""
        return self.ticks * _DIVISORS[(self.control & _PRESCALE) >> 2]

    @property
    def _period(self) -> int:
        """Counts from one zero to the next; 0 if there is no next one."""
        if self.control & ONE_SHOT:
            return 0
        return self.load & self._mask if self.control & PERIODIC else self._mask + 1

    @property
    def value(self) -> int:
        """TimerValue now."""
        self.settle()
        if self.zero is None:
            return self.count & self._mask
        return (self.zero - self.time.now) // self._scale & self._mask

    def read(self, offset: int) -> int:
        match offset:
            case 0x04:  # TimerValue
                return self.value
            case 0x00 | 0x18:  # TimerLoad, TimerBGLoad
                return self.load
            case 0x08:  # TimerControl
                return self.control
            case 0x10:  # TimerRIS
                self.settle()
                return int(self.raised)
            case 0x14:  # TimerMIS
                self.settle()
                return int(self.raised and self.control & INTERRUPT_ENABLE != 0)
            case _:
                return 0

    def write(self, offset: int, value: int) -> None:
        self.settle()
        match offset:
            case 0x00:  # TimerLoad
                self.load = self.count = value
                if self.control & ENABLE:
                    self._start(self.count & self._mask)
            case 0x08:  # TimerControl
                self._write_control(value & 0xFF)
            case 0x0C:  # TimerIntClr
                self.raised = False
            case 0x18:  # TimerBGLoad: counts from the next zero on
                self.load = value
            case _:
                return
        self.settle()
        self._update()

    def _write_control(self, value: int) -> None:
        """Write TimerControl. The counter goes on undisturbed unless its rate or size changes, or it is stopped."""
        changed = self.control ^ value
        count = self.count if self.zero is None else self.value
        at_end = self.zero is None and self.control & ENABLE != 0
        self.control = value
        if not value & ENABLE:
            self.count, self.zero = count, None
        elif changed & (ENABLE | _PRESCALE | SIZE_32) or (at_end and changed & ONE_SHOT):
            count &= self._mask
            self._start(count if count or not value & (ONE_SHOT | PERIODIC) else self.load & self._mask)

    def _start(self, count: int) -> None:
        """Run from ``count``. A zero is reached at once, except in free-running mode, where the counter wraps."""
        if not count and not self.control & (ONE_SHOT | PERIODIC):
            count = self._period
        self.zero = self.time.now + count * self._scale

    def settle(self) -> None:
        """Account for the zeros up to now."""
        zero, now = self.zero, self.time.now
        if zero is None or now < zero:
            return
        self.raised = True
        period = self._period * self._scale
        if period:
            self.zero = zero + ((now - zero) // period + 1) * period
        else:  # A one-shot, or periods of no length: it stands still.
            self.count, self.zero = 0, None

    def _update(self) -> None:
        """Drive the line, and ask to be called at the next zero if that will change it."""
        enabled = self.control & INTERRUPT_ENABLE != 0
        if enabled and not self.raised and self.zero is not None:
            self.alarm.set(self.zero)
        else:
            self.alarm.cancel()
        self.output(self.raised and enabled)

    def rings(self) -> None:
        """The alarm rings: the counter is zero."""
        self.settle()
        self._update()


@shared
@dataclass(eq=False)
class Sp804(WordRegisters):
    """The module. ``irq`` is the line that both timers share; ``frequency`` is their clock, in Hz."""

    time: Wiring[Time]
    irq: Wiring[Line]
    frequency: Wiring[int] = 1_000_000
    timers: Part[list[Timer]] = field(init=False, metadata={"count": 2})
    #: A bit for each timer that asserts its interrupt.
    levels: Byte = 0

    def __post_init__(self) -> None:
        ticks = self.time.ticks_per_second // self.frequency
        self.timers = [Timer(self.time, number, ticks, DeviceInput(self, number)) for number in range(2)]

    def is_possible(self) -> bool:
        return self.levels < 4

    def drive(self, number: int, level: bool) -> None:
        """Take the level of a timer's interrupt."""
        bit = 1 << number
        self.levels = self.levels | bit if level else self.levels & ~bit
        self.irq(self.levels != 0)

    def read_word(self, offset: int) -> int:
        if offset < 0x40:
            return self.timers[offset >> 5].read(offset & 0x1F)
        return _IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        if offset < 0x40:
            self.timers[offset >> 5].write(offset & 0x1F, value)
