"""The rule that one thread at a time may use a machine, in the process that made it, until it is closed."""

from __future__ import annotations

import os
from threading import get_ident

_RUNNER = "runner"
#: How many forks lie between this process and the first one: to ask the host for the process takes much longer.
_generation = 0


def _note_fork() -> None:
    global _generation  # noqa: PLW0603 - of the process
    _generation += 1


os.register_at_fork(after_in_child=_note_fork)


class Ownership:
    """Refuses uses that would break a machine, with a RuntimeError that says what to do instead."""

    def __init__(self) -> None:
        self._generation = _generation
        self._closed = False
        self._forbidden = ""
        self._run: dict[str, list[int]] = {}  # the thread that runs the machine, under _RUNNER

    @property
    def closed(self) -> bool:
        return self._closed

    def check(self) -> None:
        """Raise RuntimeError unless the calling thread may look at the machine and change it."""
        if self._closed:
            raise RuntimeError("this machine is closed: make another one")
        if self._generation != _generation:
            raise RuntimeError(
                "this machine belongs to the process that made it: a forked process must make a machine of its own"
            )
        run = self._run.get(_RUNNER)
        if run is not None and run[0] != get_ident():
            raise RuntimeError(
                "another thread runs this machine: use it from one thread at a time, but for interrupt()"
            )

    def check_stopped(self) -> None:
        """Do :meth:`check`, and raise RuntimeError if the machine is running, for what a callback cannot do."""
        self.check()
        if self._run:
            raise RuntimeError("this machine is running: a callback cannot run, load, reset or close it")

    def forbid(self, why: str) -> None:
        """Let nobody run the machine from now on, because of ``why``; if that is empty, let it be run again."""
        self.check_stopped()
        self._forbidden = why

    def acquire(self, run: list[int]) -> None:
        """Make the calling thread the one that runs the machine. ``run`` is a new list that holds its number.

        :meth:`release` must follow, even if this is interrupted.
        """
        self.check()
        if self._forbidden:
            raise RuntimeError(self._forbidden)
        if self._run.setdefault(_RUNNER, run) is not run:  # one step, whatever threads and signals do meanwhile
            self.check_stopped()

    def release(self, run: list[int]) -> bool:
        """Let others use the machine. Return False if this run has not acquired it."""
        if self._run.get(_RUNNER) is not run:
            return False
        del self._run[_RUNNER]
        return True

    def close(self) -> bool:
        """Refuse everything from now on. Return False if the machine was closed already."""
        if self._closed:
            return False
        self.check_stopped()
        self._closed = True
        return True
