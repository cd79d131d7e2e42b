"""Replays: repeating a recorded run from its recording, and detecting differences."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from dbt.vm.input import AccessCounter, RecordingError, ReplayDiverged
from dbt.vm.recording import READ, STOPPED, UART, Delivery, End, Position, Recording, RunIdentity
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.vm.machine import Machine


class Replay:
    """An input source that delivers what a recording holds at the recorded times, and nothing afterwards.

    ReplayDiverged is raised if the guest is not ready for a delivery. At the end of the recording the input ends, so a
    read by semihosting finds the end of the file.

    A machine that was restored in the middle of the recorded run gets what comes from there on.
    """

    def __init__(self, recording: Recording, identity: RunIdentity) -> None:
        """Raise RecordingError if the recording is not one of the run that ``identity`` describes, or if a machine that
        is further than its beginning has not got the input that it had there.
        """
        differences = identity.differences(recording.identity)
        if differences:
            raise RecordingError(f"{recording.path}: this is the recording of another run: {differences}")
        self.recording = recording
        self._uart, self._reads = (
            deque(delivery for delivery in recording.deliveries if delivery.kind == kind) for kind in (UART, READ)
        )
        self._passed = deque(recording.passed)
        self._accesses = AccessCounter()
        if identity.is_later(recording.identity):
            self._skip(identity.position, recording.identity.position)
        self._between = deque(delivery.time for delivery in self._uart if not delivery.access)

    def _skip(self, here: Position, start: Position) -> None:
        """Remove what a machine has got that stands at ``here``, where its input began at ``start``."""
        while self._passed and self._passed[0].time < here.now:
            self._passed.popleft()
        last = self._skip_deliveries(self._uart, here.now, here.arrived - start.arrived)
        self._skip_deliveries(self._reads, here.now, here.received - start.received)
        if last is not None and last.time == here.now:
            self._accesses = AccessCounter(here.now, last.access)

    def _skip_deliveries(self, deliveries: deque[Delivery], now: int, size: int) -> Delivery | None:
        """Remove those before the tick ``now``, and of those at that tick as many as belong to the ``size`` bytes that
        have come. Return the last one.
        """
        last, left = None, size
        while deliveries and (deliveries[0].time < now or (deliveries[0].time == now and left > 0)):
            last = deliveries.popleft()
            left -= len(last.data)
        if left:
            raise RecordingError(
                f"{self.recording.path}: this is the recording of another run: at {now}, the guest had got "
                f"{size - left} bytes of input that has come to {size} here"
            )
        return last

    @property
    def next_delivery(self) -> int | None:
        """When a delivery between two instructions is due, or time is to pass. Accesses get theirs wherever slices
        end.
        """
        delivery = self._between[0] if self._between else None
        passing = self._passed[0].time if self._passed else None
        return passing if delivery is None or (passing is not None and passing < delivery) else delivery

    @property
    def ended(self) -> bool:
        return not self._uart

    def due(self, now: int) -> int | None:
        return self._uart[0].time if self._uart else None

    def poll(self, now: int, room: int, access: bool = False) -> bytes:
        number, queue, data = self._accesses.number(now, access), self._uart, b""
        while queue and (queue[0].time, queue[0].access) <= (now, number):
            delivery = queue.popleft()
            data += delivery.data
            if not delivery.access:
                self._between.popleft()
            if delivery.time < now or delivery.access < number:
                raise self._diverged(f"input is to arrive at {delivery.time}, and nobody asked for it until {now}")
            if len(data) > room:
                raise self._diverged(f"{len(data)} bytes arrive at {now}, and the UART has room for {room}")
        return data

    def pass_time(self, now: int, behind: int) -> int:
        if not self._passed or self._passed[0].time > now:
            return 0
        time, ticks = self._passed.popleft()
        if time < now:
            raise self._diverged(f"time is to pass at {time}, and no instruction ended there until {now}")
        return ticks

    def read(self, now: int, size: int) -> bytes | None:
        if not self._reads:
            return b""
        _, tick, data, _ = self._reads.popleft()
        if tick != now or len(data) > size:
            wanted = f"{len(data)} bytes at {tick}" if len(data) > size else f"at {tick}"
            raise self._diverged(f"the guest reads {size} bytes at {now}, and was to read {wanted}")
        return data

    def position(self) -> object:
        """See :class:`dbt.vm.input.PositionedInput`."""
        return [tuple(queue) for queue in self._queues]

    def go_back(self, position: object) -> None:
        """See :class:`dbt.vm.input.PositionedInput`."""
        for queue, held in zip(self._queues, cast("list[tuple[Any, ...]]", position), strict=True):
            queue.clear()
            queue.extend(held)
        self._accesses.forget()

    @property
    def _queues(self) -> tuple[deque[Any], ...]:
        """What is still to be delivered."""
        return self._uart, self._reads, self._between, self._passed

    def wait(self, seconds: float) -> None:
        """Wait for all the ``seconds``. Deliveries depend on virtual time only."""
        time.sleep(seconds)

    def _diverged(self, what: str) -> ReplayDiverged:
        return ReplayDiverged(f"the replay differs from {self.recording.path}: {what}")

    def fuel(self, icount: int, wanted: int | None) -> int | None:
        """Return how many instructions to run from ``icount`` on: to the recorded end, and one more if the guest ended
        by itself.
        """
        end = self.recording.end
        if end is None:
            return wanted
        left = max(0, end.icount - icount + (StopReason(end.reason) not in STOPPED))
        return left if wanted is None else min(left, wanted)

    def compare(self, machine: Machine, result: RunResult, notice: Callable[[str], None]) -> RunResult:
        """Return the result of the recorded run. Raise ReplayDiverged if this run ended otherwise.

        If the recording has no end, or the replay was stopped before it, ``notice`` is called and ``result`` is
        returned.
        """
        end = self.recording.end
        if end is None:
            notice("the recording has no end, so nothing was compared")
            return result
        recorded = StopReason(end.reason)
        if result.reason in STOPPED and result.icount < end.icount + (recorded not in STOPPED):
            notice(f"the replay was stopped before the recording's end ({end.describe()}), so nothing was compared")
            return result
        stopped = recorded in STOPPED and result.reason in STOPPED
        if result.icount == end.icount:
            machine.wait_until(end.now)  # It was stopped, or halted, after the guest had waited for so long.
        here = End.of(machine, result, end.reason if stopped else result.reason.value)
        if here.describe() != end.describe():
            raise self._diverged(f"the run is {here.describe()}, and was {end.describe()}")
        if here != end:
            raise self._diverged(f"the run is {end.describe()} as it was, but registers, RAM or devices differ")
        if not stopped:
            return result
        message = f"{end.describe()}, as recorded"
        return RunResult(recorded, result.exit_code, result.icount, result.pc, message, result.exit)
