"""The compiler's share of the processors: what nobody else wants, while nobody waits for it.

A guest and its compiler often have fewer processors than they could use. The guest makes progress without the region
that is being compiled, so it goes first: SCHED_IDLE (sched(7)) lets the compiler run where a processor is idle. Any
user may give a process this policy. To leave it again takes privilege, or RLIMIT_NICE of 20 or more.
"""

from __future__ import annotations

import contextlib
import os
import time

_LOWEST_NICE = 19
#: The lowest bits of the number of a process's CPU-time clock, above which is the complement of its PID (Linux,
#: posix-timers_types.h).
_CPUCLOCK_SCHED = 2


def yield_processors(pid: int) -> None:
    """Have the main thread of a process run only where a processor is idle, or else as seldom as a nice value can."""
    with contextlib.suppress(ProcessLookupError):
        try:
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        except OSError:  # a sandbox may forbid it
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, pid, _LOWEST_NICE)


def share_processors(pid: int) -> bool:
    """Undo :func:`yield_processors`. Return False if this user may not."""
    try:
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0))
    except ProcessLookupError:  # it has ended
        return True
    except OSError:
        return False
    return True


def seconds_on_processor(pid: int) -> float:
    """Return the CPU time of a process of the same user. 0 if it has ended."""
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def seconds_without_processor(pid: int) -> float:
    """Return how long the main thread of a process has been ready to run and had no processor. 0 if nobody counts."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb", buffering=0) as file:
            return int(file.read(100).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
