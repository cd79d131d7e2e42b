"""Replays: a recording goes in, and the run that it was made of comes out again, or what is different."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.vm.input import RecordingError, ReplayDiverged
from dbt.vm.recording import READ, STOPPED, UART, End, Recording, RunIdentity
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.vm.machine import Machine


class Replay:
    """A road by which comes what a recording holds, when it came; after that, nothing.

    ReplayDiverged says that the guest was not ready for it. The end of the input is that of the
    recording: a read by semihosting finds the end of the file there.
    """

    def __init__(self, recording: Recording, identity: RunIdentity) -> None:
        """RecordingError if the recording is not of the run that ``identity`` describes."""
        differences = identity.differences(recording.identity)
        if differences:
            raise RecordingError(f"{recording.path}: this is the recording of another run: {differences}")
        self.recording = recording
        self._queues = {
            kind: deque((tick, data) for one, tick, data in recording.deliveries if one == kind)
            for kind in (UART, READ)
        }

    @property
    def next_delivery(self) -> int | None:
        queue = self._queues[UART]
        return queue[0][0] if queue else None

    @property
    def ended(self) -> bool:
        return not self._queues[UART]

    def poll(self, now: int, room: int) -> bytes:
        queue, data = self._queues[UART], b""
        while queue and queue[0][0] <= now:
            tick, piece = queue.popleft()
            data += piece
            if tick < now:
                raise self._diverged(f"input is to arrive at {tick}, and nobody asked for it until {now}")
            if len(data) > room:
                raise self._diverged(f"{len(data)} bytes arrive at {now}, and the UART has room for {room}")
        return data

    def read(self, now: int, size: int) -> bytes | None:
        queue = self._queues[READ]
        if not queue:
            return b""
        tick, data = queue.popleft()
        if tick != now or len(data) > size:
            wanted = f"{len(data)} bytes at {tick}" if len(data) > size else f"at {tick}"
            raise self._diverged(f"the guest reads {size} bytes at {now}, and was to read {wanted}")
        return data

    def wait(self, seconds: float) -> None:
        """What is to come is here already, and comes when it came."""
        time.sleep(seconds)

    def _diverged(self, what: str) -> ReplayDiverged:
        return ReplayDiverged(f"the replay differs from {self.recording.path}: {what}")

    def fuel(self, icount: int, wanted: int | None) -> int | None:
        """How many instructions to run from ``icount``: to the recorded end, and one more if the guest itself ended."""
        end = self.recording.end
        if end is None:
            return wanted
        left = max(0, end.icount - icount + (StopReason(end.reason) not in STOPPED))
        return left if wanted is None else min(left, wanted)

    def compare(self, machine: Machine, result: RunResult, notice: Callable[[str], None]) -> RunResult:
        """The result as the recorded run had it; ReplayDiverged if this one ended otherwise.

        If there is no end to compare with, or the replay was stopped before it, ``notice`` is told, and the
        result is returned as it is.
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
