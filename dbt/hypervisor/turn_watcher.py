"""What ends a turn besides what it may use: the host's time."""

from __future__ import annotations

from time import monotonic

from isa.arm.vectors import ExceptionKind


class TurnWatcher:
    """The watcher of one turn (:class:`dbt.vm.run_watcher.RunWatcher`), which may last so many ``seconds``.

    ``goes_on``: nobody has changed the guest since the last turn.
    """

    hears_exceptions = False

    def __init__(self, seconds: float, goes_on: bool) -> None:
        self._end = monotonic() + seconds
        self.goes_on = goes_on

    def wants_stop(self) -> bool:
        return monotonic() > self._end

    def stops_in_handler(self, kind: ExceptionKind) -> bool:
        return False
