"""The rule that one thread at a time may use a machine, in the process that made it, until it is closed."""

from __future__ import annotations

import os
from threading import Lock, get_ident


class Ownership:
    """Refuses uses that would break a machine, with a RuntimeError that says what to do instead."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._closed = False
        self._lock = Lock()
        self._runner = 0  # the thread that runs the machine

    @property
    def closed(self) -> bool:
        return self._closed

    def check(self) -> None:
        """Raise RuntimeError unless the calling thread may look at the machine and change it."""
        if self._closed:
            raise RuntimeError("this machine is closed: make another one")
        if os.getpid() != self._process:
            raise RuntimeError(
                "this machine belongs to the process that made it: a forked process must make a machine of its own"
            )
        if self._runner and self._runner != get_ident():
            raise RuntimeError(
                "another thread runs this machine: use it from one thread at a time, but for interrupt()"
            )

    def check_stopped(self) -> None:
        """Do :meth:`check`, and raise RuntimeError if the machine is running, for what a callback cannot do."""
        self.check()
        if self._runner:
            raise RuntimeError("this machine is running: a callback cannot run, load, reset or close it")

    def acquire(self) -> None:
        """Make the calling thread the one that runs the machine. :meth:`release` must follow."""
        if not self._lock.acquire(blocking=False):
            self.check_stopped()
            raise RuntimeError("another thread runs this machine: use it from one thread at a time")
        try:
            self.check()
        except RuntimeError:
            self._lock.release()
            raise
        self._runner = get_ident()

    def release(self) -> None:
        self._runner = 0
        self._lock.release()

    def close(self) -> bool:
        """Refuse everything from now on. Return False if the machine was closed already."""
        if self._closed:
            return False
        self.check_stopped()
        self._closed = True
        return True
