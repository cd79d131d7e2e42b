"""What ends a turn besides what it may use: the host's time, and somebody who asks for it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from isa.arm.vectors import ExceptionKind

#: Returns True if a turn is to end early.
AskedToStop = Callable[[], bool]


class TurnWatcher:
    """The watcher of one turn (:class:`dbt.vm.run_watcher.RunWatcher`), which may last so many ``seconds``.

    ``goes_on``: nobody has changed the guest since the last turn.
    """

    hears_exceptions = False

    def __init__(self, seconds: float, goes_on: bool, stop: AskedToStop | None = None) -> None:
        self._end = monotonic() + seconds
        self._stop = stop
        self.goes_on = goes_on

    def wants_stop(self) -> bool:
        return monotonic() > self._end or (self._stop is not None and self._stop())

    def stops_in_handler(self, kind: ExceptionKind) -> bool:
        return False
