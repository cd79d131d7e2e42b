"""The words in which a board's timeline is, for Python (:mod:`dbt.board.timeline`) and for native code.

All are signed 64-bit words. A few are followed by the records of the alarms, in the order in which they were made.
"""

from __future__ import annotations

#: How many alarms there are, and how many times one has been set.
COUNT, SCHEDULED = 0, 1
FIRST_ALARM = 2
#: The words of a record: the tick that the alarm is set for, its order among those of the same tick, and the device
#: that native code is to tell, by the number of its class (0: none) and the address of its block.
TICK, ORDER, DEVICE_CLASS, DEVICE = range(4)
ALARM_WORDS = 4
#: The tick of an alarm that is not set. No time comes to it.
UNSET = (1 << 63) - 1
MAX_ALARMS = 96
TIMELINE_WORDS = FIRST_ALARM + MAX_ALARMS * ALARM_WORDS
