"""The performance monitors of a processor (ARM ARM C12): a cycle counter, and counters of events.

Like the generic timer they are accessed by CP15 instructions, with the numbers of :mod:`isa.arm.private`. A cycle is a
nanosecond of virtual time, as in QEMU. Two events are counted: cycles, and what software adds. Nothing counts by
itself: what has passed is settled when somebody looks, and an alarm rings only at an overflow that interrupts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dbt.devices.device import Device
from dbt.devices.shared import shared
from dbt.devices.state import Byte, Wiring, Word
from dbt.devices.wiring import Alarm, Line, Time
from isa.arm.private import (
    CONTROL,
    CYCLE_FILTER,
    CYCLES,
    ENABLE_CLEAR,
    ENABLE_SET,
    EVENT_COUNT,
    EVENT_COUNTERS,
    EVENT_TYPE,
    INTERRUPT_CLEAR,
    INTERRUPT_SET,
    NO_MONITOR,
    OVERFLOW_CLEAR,
    OVERFLOW_SET,
    SOFTWARE_INCREMENT,
)

_ENABLE, _RESET_EVENTS, _RESET_CYCLES, _DIVIDE = 1 << 0, 1 << 1, 1 << 2, 1 << 3  # PMCR
_CONTROL_KEPT = 0xF9
_EVENT = 0xFFFF
_SOFTWARE_EVENT, _CYCLE_EVENT = 0x00, 0x11
_DIVISOR = 64
_WORD = 0xFFFFFFFF
#: The cycle counter comes behind those of events, and has the highest bit of every set.
_CYCLE_COUNTER = EVENT_COUNTERS
_ALL = EVENT_COUNTERS + 1
_BITS = (1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 31)
_NEVER = 1 << 58
_CYCLES_PER_SECOND = 1_000_000_000


@shared
@dataclass(eq=False)
class PerformanceMonitors(Device):
    """The monitors of one processor. ``irq`` is the line of their overflows."""

    time: Wiring[Time]
    irq: Wiring[Line]
    #: ``tick_cycles`` cycles take ``cycle_ticks`` ticks; one of them is 1.
    tick_cycles: Wiring[int] = field(init=False)
    cycle_ticks: Wiring[int] = field(init=False)
    control: Byte = 0
    enabled: Word = 0
    interrupts: Word = 0
    overflows: Word = 0
    cycle_filter: Word = 0
    types: list[Word] = field(default_factory=lambda: [0] * EVENT_COUNTERS)
    counts: list[Word] = field(default_factory=lambda: [0] * _ALL)
    #: The tick up to which everything is counted.
    settled: int = 0
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.tick_cycles = max(_CYCLES_PER_SECOND // self.time.ticks_per_second, 1)
        self.cycle_ticks = max(self.time.ticks_per_second // _CYCLES_PER_SECOND, 1)
        self.alarm = self.time.alarm("overflow", self.rings)

    def is_possible(self) -> bool:
        return 0 <= self.settled <= self.time.now

    def counts_cycles(self, number: int) -> bool:
        """Return True if a counter is enabled and counts cycles."""
        if self.control & _ENABLE == 0 or self.enabled & _BITS[number] == 0:
            return False
        return number == _CYCLE_COUNTER or self.types[number] & _EVENT == _CYCLE_EVENT

    def settle(self) -> None:
        """Count the cycles up to now."""
        now = self.time.now * self.tick_cycles // self.cycle_ticks
        before = self.settled * self.tick_cycles // self.cycle_ticks
        for number in range(_ALL):
            if self.counts_cycles(number):
                passed = now - before
                if number == _CYCLE_COUNTER and self.control & _DIVIDE:
                    passed = now // _DIVISOR - before // _DIVISOR
                self.add(number, passed)
        self.settled = self.time.now

    def add(self, number: int, passed: int) -> None:
        """Let a counter count, and note its overflow."""
        count = self.counts[number] + passed
        if count > _WORD:
            self.overflows |= _BITS[number]
        self.counts[number] = count & _WORD

    def read_register(self, number: int) -> int:
        """Return a register: see :mod:`isa.arm.private`."""
        self.settle()
        if number == CYCLES:
            return self.counts[_CYCLE_COUNTER]
        if EVENT_COUNT <= number < EVENT_COUNT + EVENT_COUNTERS:
            return self.counts[number - EVENT_COUNT]
        if EVENT_TYPE <= number < EVENT_TYPE + EVENT_COUNTERS:
            return self.types[number - EVENT_TYPE]
        if number == CONTROL:
            return self.control
        if number == ENABLE_SET:
            return self.enabled
        if number == OVERFLOW_SET:
            return self.overflows
        if number == INTERRUPT_SET:
            return self.interrupts
        return self.cycle_filter if number == CYCLE_FILTER else 0

    def write_register(self, number: int, low: int, high: int) -> None:
        """Write a register. Its bits that are not there are 0 in ``low``."""
        self.settle()
        if number == CONTROL:
            self.write_control(low)
        elif number == CYCLES:
            self.counts[_CYCLE_COUNTER] = low
        elif EVENT_COUNT <= number < EVENT_COUNT + EVENT_COUNTERS:
            self.counts[number - EVENT_COUNT] = low
        elif EVENT_TYPE <= number < EVENT_TYPE + EVENT_COUNTERS:
            self.types[number - EVENT_TYPE] = low
        elif number == SOFTWARE_INCREMENT:
            self.increment(low)
        else:
            self.write_set(number, low)
        self.rings()

    def write_control(self, value: int) -> None:
        """Write PMCR, of which two bits are commands."""
        if value & _RESET_EVENTS:
            for number in range(EVENT_COUNTERS):
                self.counts[number] = 0
        if value & _RESET_CYCLES:
            self.counts[_CYCLE_COUNTER] = 0
        self.control = value & _CONTROL_KEPT

    def increment(self, counters: int) -> None:
        """Add 1 to those of some event counters that count what software adds."""
        for number in range(EVENT_COUNTERS):
            enabled = self.control & _ENABLE != 0 and self.enabled & counters & _BITS[number] != 0
            if enabled and self.types[number] & _EVENT == _SOFTWARE_EVENT:
                self.add(number, 1)

    def write_set(self, number: int, bits: int) -> None:
        """Set or clear bits of a set of counters."""
        if number == ENABLE_SET:
            self.enabled |= bits
        elif number == ENABLE_CLEAR:
            self.enabled &= ~bits
        elif number == INTERRUPT_SET:
            self.interrupts |= bits
        elif number == INTERRUPT_CLEAR:
            self.interrupts &= ~bits
        elif number == OVERFLOW_SET:
            self.overflows |= bits
        elif number == OVERFLOW_CLEAR:
            self.overflows &= ~bits
        elif number != NO_MONITOR:
            self.cycle_filter = bits

    def rings(self) -> None:
        """Drive the line, and have the alarm ring at the next overflow that raises it."""
        self.settle()
        due, now = _NEVER, self.settled * self.tick_cycles // self.cycle_ticks
        for number in range(_ALL):
            if self.counts_cycles(number) and self.interrupts & ~self.overflows & _BITS[number]:
                left = _WORD + 1 - self.counts[number]
                cycle = now + left
                if number == _CYCLE_COUNTER and self.control & _DIVIDE:
                    cycle = (now // _DIVISOR + left) * _DIVISOR
                due = min(due, cycle)
        if due == _NEVER:
            self.alarm.cancel()
        else:
            self.alarm.set((due * self.cycle_ticks + self.tick_cycles - 1) // self.tick_cycles)
        self.irq(self.control & _ENABLE != 0 and self.interrupts & self.overflows != 0)
