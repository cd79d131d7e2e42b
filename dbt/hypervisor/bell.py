"""What a host's loop sleeps at: it wakes when somebody rings, or when something happens at a file descriptor."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from threading import Lock
from time import sleep

from dbt.memory.closing import Closing


class Bell(Closing):
    """Any thread may ring it; one thread waits."""

    def __init__(self) -> None:
        self._file = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = Lock()

    def ring(self) -> None:
        """Let the present wait end, or the next one. After the bell was closed, nothing happens."""
        with self._lock:
            if self._file >= 0:
                os.eventfd_write(self._file, 1)

    def wait(self, seconds: float | None, events: Mapping[int, int]) -> bool:
        """Return when the bell has rung, when one of the ``events`` is there (descriptors, and what they are looked at
        for, as poll(2) has it), or after some ``seconds``, if it is not None. Return True if it was one of the events.
        """
        milliseconds = None if seconds is None else int(seconds * 1000)
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        for descriptor, event in events.items():
            poll.register(descriptor, event)
        heard = {descriptor for descriptor, _ in poll.poll(milliseconds)}
        if self._file in heard:
            os.eventfd_read(self._file)
            heard.remove(self._file)
        elif not heard and seconds is not None and not milliseconds:
            sleep(seconds)  # poll(2) knows nothing shorter than a millisecond
        return bool(heard)

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
