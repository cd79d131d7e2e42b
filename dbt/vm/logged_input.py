"""The input of a machine that has a history: it is noted when it comes, and comes again after the machine has gone
back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from dbt.host.journal import HostJournal
from dbt.vm.input import Arrival, InputSource, PositionedInput
from dbt.vm.playback import Item, Playback, PlaybackPosition
from dbt.vm.recording import RecordedInput


class LoggedInput(RecordedInput):
    """An input source that notes what another one delivers, and delivers the same again.

    What has been noted and comes again is delivered first. The other source goes on where the machine repeats nothing
    more, which ``journal`` knows.
    """

    def __init__(self, inner: InputSource, journal: HostJournal) -> None:
        super().__init__(inner)
        self.inner = inner
        self._journal = journal
        self._log = Playback("what was executed first")

    def _note(self, item: Item) -> None:
        self._log.add_delivered(item)

    @property
    def _repeats(self) -> bool:
        return self._journal.repeats_until is not None

    @property
    def is_recorded(self) -> bool:
        """Whether the input also goes to a recording or comes from one."""
        return isinstance(self.inner, PositionedInput)

    @property
    def next_delivery(self) -> int | None:
        noted = self._log.next_delivery
        return noted if noted is not None or self._repeats else super().next_delivery

    @property
    def ended(self) -> bool:
        return self._log.next_uart is None and (self._repeats or super().ended)

    def due(self, now: int) -> int | None:
        if (delivery := self._log.next_uart) is not None:
            return delivery.time
        return None if self._repeats else super().due(now)

    def pass_time(self, now: int, behind: int) -> int:
        if self._repeats or self._log.next_passed is not None:
            return self._log.pass_time(now)
        return super().pass_time(now, behind)

    def poll(self, now: int, room: int, access: bool = False) -> bytes:
        if self._repeats or self._log.next_uart is not None:
            return self._log.poll(now, room, access)
        return super().poll(now, room, access)

    def read(self, now: int, size: int) -> bytes | None:
        if self._repeats or self._log.has_reads:
            return self._log.read(now, size)
        return super().read(now, size)

    def arrivals(self, now: int) -> Sequence[Arrival]:
        if self._repeats or self._log.next_arrival is not None:
            return self._log.arrivals(now)
        return super().arrivals(now)

    @property
    def has_arrivals(self) -> bool:
        return not self._repeats and self._log.next_arrival is None and super().has_arrivals

    def ask(self, now: int, operation: Callable[[], bytes]) -> bytes:
        """Ask the other source. Outcomes are noted in the journal, which comes first."""
        return self.inner.ask(now, operation)

    def wait(self, seconds: float) -> None:
        """Wait for the other source. A guest that repeats what it did gets its input at once, or has gone astray."""
        if self._repeats:
            raise self._log.diverged("the guest waits for input, and there was some when it came here first")
        super().wait(seconds)

    # -- where it stands -----------------------------------------------------------------------

    def position(self) -> object:
        """See :class:`dbt.vm.input.PositionedInput`."""
        return self._log.position

    def go_back(self, position: object) -> None:
        """See :class:`dbt.vm.input.PositionedInput`."""
        self._log.go_back(cast("PlaybackPosition", position))
        self._accesses.forget()

    def cut(self) -> None:
        """Forget what would come again: from now on all input is new."""
        self._log.cut()
