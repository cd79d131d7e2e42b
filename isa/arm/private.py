"""The registers of private peripherals: devices of the processor that software accesses by coprocessor instructions.

What such an instruction reads or writes depends on the time or drives an interrupt line. So it makes a callout with one
of these numbers, and a device answers. A number that is read stands for 32 bits. A write has 64 bits, of which a
register of 32 bits ignores the upper half.
"""

from __future__ import annotations

#: The generic timer (ARM ARM B8.1): the physical count, which the virtual count equals, as its lower and upper word.
COUNT = 0
#: Its two comparators, and in each of them TimerValue, Control, and CompareValue as its lower and upper word.
PHYSICAL_TIMER, VIRTUAL_TIMER = 8, 12
TIMER_VALUE, TIMER_CONTROL, TIMER_COMPARE = 0, 1, 2
#: Numbers of the second peripheral begin here, and so on.
NUMBERS_OF_EACH = 32
#: The performance monitors (ARM ARM C12): the second peripheral. To these numbers MONITORS is added.
MONITORS = NUMBERS_OF_EACH
(
    CONTROL, ENABLE_SET, ENABLE_CLEAR, OVERFLOW_CLEAR, SOFTWARE_INCREMENT, CYCLES, INTERRUPT_SET, INTERRUPT_CLEAR,
    OVERFLOW_SET, CYCLE_FILTER, NO_MONITOR,
) = range(11)  # fmt: skip
#: Count and type of each event counter.
EVENT_COUNT, EVENT_TYPE = 16, 24
#: The event counters that a processor can have.
EVENT_COUNTERS = 6
