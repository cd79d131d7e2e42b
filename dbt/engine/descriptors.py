"""File descriptors: which of them are ready, and leaving those that a forked process must not keep."""

from __future__ import annotations

import os
import select
from collections.abc import Collection, Mapping


def ready(events: Mapping[int, int], seconds: float | None) -> set[int]:
    """Return the descriptors with which a read (for POLLIN) or a write (for POLLOUT) would not wait, within
    ``seconds``; None waits without a limit. ``events`` has for each descriptor which of the two matters, or 0.

    That is also so at the end of the input, and for a descriptor that is closed.
    """
    poll = select.poll()  # not select, which refuses descriptors over 1023
    for descriptor, event in events.items():
        poll.register(descriptor, event)
    return {descriptor for descriptor, _ in poll.poll(None if seconds is None else 1000 * seconds)}


def is_ready(descriptor: int, seconds: float | None, event: int = select.POLLIN) -> bool:
    """Return True if a descriptor is :func:`ready`."""
    return bool(ready({descriptor: event}, seconds))


def leave_all_but(kept: Collection[int]) -> None:
    """Let every other descriptor of this process be one of /dev/null, which a forked process calls that goes on.

    What the parent has open is then closed when the parent closes it: sockets, whose other ends wait for that, locked
    files, and pipes. No number becomes free. So an object that the parent has left here cannot close what this process
    opens later.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor in kept or descriptor == null:
            continue
        try:
            os.fstat(descriptor)
        except OSError:  # the one by which the directory was read
            continue
        os.dup2(null, descriptor, inheritable=descriptor < 3)
    os.close(null)
