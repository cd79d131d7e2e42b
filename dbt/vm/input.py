"""Input: everything that the host gives a running guest comes from one input source, at a known time.

Between two slices the machine asks the source for bytes to push into the UART; semihosting reads the
console through it. Where the bytes come from is the source's business: the console, or a recording
(:mod:`dbt.vm.recording`), whose bytes arrive at the times at which they came when it was made. Times are
those of the machine's clock, in ticks, and never go back.
"""

from __future__ import annotations

from typing import Protocol

from dbt.host.console import Console
from dbt.vm.error_latch import ErrorLatch


class InputSource(Protocol):
    """What a machine takes its input from."""

    @property
    def next_delivery(self) -> int | None:
        """The time at which :meth:`poll` has something, where that is known beforehand: a slice must end there."""

    @property
    def ended(self) -> bool:
        """Whether it is certain that nothing comes any more."""

    def poll(self, now: int, room: int) -> bytes:
        """What has arrived for the UART, at most ``room`` bytes; never waits."""

    def read(self, now: int, size: int) -> bytes | None:
        """What semihosting reads: up to ``size`` bytes, ``b""`` at the end, None if there is nothing yet."""

    def wait(self, seconds: float) -> None:
        """Return when something may have arrived, or after so long. For a guest that does nothing but wait."""


class RecordingError(Exception):
    """A file that is no recording, or one of another run; or a recording that cannot be written."""


class ReplayDiverged(Exception):
    """The guest did something else than when it was recorded."""


class ConsoleInput:
    """The input source that is a console: what arrives now is for now."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @property
    def next_delivery(self) -> int | None:
        return None

    @property
    def ended(self) -> bool:
        return self._console.ended

    def poll(self, now: int, room: int) -> bytes:
        if room <= 0 or not self._console.arrived():
            return b""
        return self._console.read(room) or b""

    def read(self, now: int, size: int) -> bytes | None:
        return self._console.read(size)

    def wait(self, seconds: float) -> None:
        self._console.wait(seconds)


class InputPort:
    """Where a machine's input source is connected. It starts with ``source``; :meth:`attach` connects another one."""

    def __init__(self, source: InputSource, latch: ErrorLatch) -> None:
        self.source = source
        self._latch = latch

    def attach(self, source: InputSource) -> None:
        """Take the input from ``source`` from now on."""
        self.source = source

    def poll(self, now: int, room: int) -> bytes:
        """:meth:`InputSource.poll` of the source, inside a slice: what it raises is kept until the slice has ended."""
        if self._latch.is_set:
            return b""
        try:
            return self.source.poll(now, room)
        except BaseException as error:  # whatever it is, it is raised when the slice has ended
            self._latch.keep(error)
            return b""
