"""The generic timer of a processor (ARM ARM B8.1): a counter, and two timers that compare it with a value.

It has no addresses. Software accesses it by CP15 instructions, which make callouts with the numbers of
:mod:`isa.arm.private`. The counter does not count: it follows from the virtual time, at 62.5 MHz. A timer has an alarm
only while its line is going to rise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

from dbt.devices.device import Device
from dbt.devices.shared import shared
from dbt.devices.state import Byte, Part, Stateful, Wiring
from dbt.devices.wiring import Alarm, Line, Time
from isa.arm.private import PHYSICAL_TIMER, TIMER_COMPARE, TIMER_CONTROL, TIMER_VALUE

#: Counts in a second.
FREQUENCY = 62_500_000
ENABLE, MASK = 1 << 0, 1 << 1
_CONDITION_SHIFT = 2  # CNTx_CTL.ISTATUS
_WORD = 0xFFFFFFFF
_SIGN = 1 << 31
#: A comparison with this count, or a later one, is true in more than a hundred years: never.
_NEVER = 1 << 58
#: And so is one that is true at this tick, which comes in more than ten years.
_NEVER_TICK = 1 << 62
#: Where the counter stops, so that no sum exceeds eight signed bytes. A guest that does nothing but wait gets there.
_LAST = (1 << 60) - 1


@shared
@dataclass(eq=False)
class Comparator(Stateful):
    """One of the timers. ``count_ticks`` counts take ``tick_counts`` ticks of virtual time."""

    time: Wiring[Time]
    name: Wiring[str]
    tick_counts: Wiring[int]
    count_ticks: Wiring[int]
    output: Wiring[Line]
    #: CompareValue. It has 64 bits without a sign; here its upper half counts as negative, and is never reached.
    compare: int = 0
    #: The bits of Control that can be written.
    control: Byte = 0
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.alarm = self.time.alarm(f"{self.name} condition", self.rings)

    def is_possible(self) -> bool:
        return self.control <= ENABLE | MASK

    @property
    def count(self) -> int:
        """The counter now."""
        return min(self.time.now * self.tick_counts // self.count_ticks, _LAST)

    @property
    def condition(self) -> bool:
        """ISTATUS: the timer is enabled, and its time has come."""
        return self.control & ENABLE != 0 and 0 <= self.compare <= self.count

    def read(self, number: int) -> int:
        """Return a word of the timer."""
        if number == TIMER_VALUE:
            return self.compare - self.count & _WORD
        if number == TIMER_CONTROL:
            return self.control | int(self.condition) << _CONDITION_SHIFT
        if number == TIMER_COMPARE:
            return self.compare & _WORD
        return self.compare >> 32 & _WORD

    def write(self, number: int, low: int, high: int) -> None:
        """Write a register of the timer."""
        if number == TIMER_VALUE:
            self.compare = self.count + ((low ^ _SIGN) - _SIGN)
        elif number == TIMER_CONTROL:
            self.control = low & (ENABLE | MASK)
        else:
            self.compare = ((high ^ _SIGN) - _SIGN) << 32 | low
        self.rings()

    def rings(self) -> None:
        """Drive the line, and have the alarm ring when it rises."""
        condition = self.condition
        if (
            self.control == ENABLE
            and not condition
            and 0 <= self.compare < min(_NEVER, _NEVER_TICK // self.count_ticks)
        ):
            self.alarm.set((self.compare * self.count_ticks + self.tick_counts - 1) // self.tick_counts)
        else:
            self.alarm.cancel()
        self.output(condition and self.control & MASK == 0)


@shared
@dataclass(eq=False)
class GenericTimer(Device):
    """The timer of one processor. ``irq_physical`` and ``irq_virtual`` are the lines of its two timers."""

    time: Wiring[Time]
    irq_physical: Wiring[Line]
    irq_virtual: Wiring[Line]
    tick_counts: Wiring[int] = field(init=False)
    count_ticks: Wiring[int] = field(init=False)
    timers: Part[list[Comparator]] = field(init=False, metadata={"count": 2})

    def __post_init__(self) -> None:
        shared_factor = gcd(FREQUENCY, self.time.ticks_per_second)
        self.tick_counts = FREQUENCY // shared_factor
        self.count_ticks = self.time.ticks_per_second // shared_factor
        self.timers = [
            Comparator(self.time, name, self.tick_counts, self.count_ticks, line)
            for name, line in (("physical", self.irq_physical), ("virtual", self.irq_virtual))
        ]

    def read_register(self, number: int) -> int:
        """Return a word of the timer: see :mod:`isa.arm.private`."""
        if number < PHYSICAL_TIMER:
            count = min(self.time.now * self.tick_counts // self.count_ticks, _LAST)
            return count >> 32 * number & _WORD
        return self.timers[number >> 2 & 1].read(number & 3)

    def write_register(self, number: int, low: int, high: int) -> None:
        """Write a register of one of the timers. The counter cannot be written."""
        self.timers[number >> 2 & 1].write(number & 3, low, high)
