"""Replays: repeating a recorded run from its recording, and detecting differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from dbt.vm.input import Arrival, RecordingError
from dbt.vm.playback import Item, Playback, PlaybackPosition
from dbt.vm.recording import STOPPED, End, Position, Recording, RunIdentity, settled_hash
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.vm.machine import Machine
    from isa.arm.vectors import ExceptionKind


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
        self._playback = Playback(recording.path)
        items: tuple[Item, ...] = (
            *recording.deliveries,
            *recording.passed,
            *recording.arrivals,
            *recording.answers,
        )
        for item in items:
            self._playback.add(item)
        if identity.is_later(recording.identity):
            self._skip(identity.position, recording.identity.position)

    def _skip(self, here: Position, start: Position) -> None:
        """Take as delivered what a machine has got that stands at ``here``, where its input began at ``start``."""
        arrived, received = here.arrived - start.arrived, here.received - start.received
        missing = self._playback.skip(here.now, arrived, received, here.asked - start.asked)
        for size, left in zip((arrived, received), missing, strict=True):
            if left:
                raise RecordingError(
                    f"{self.recording.path}: this is the recording of another run: at {here.now}, the guest had got "
                    f"{size - left} bytes of input that has come to {size} here"
                )

    @property
    def next_delivery(self) -> int | None:
        """See :attr:`dbt.vm.playback.Playback.next_delivery`."""
        return self._playback.next_delivery

    @property
    def ended(self) -> bool:
        return self._playback.next_uart is None

    def due(self, now: int) -> int | None:
        delivery = self._playback.next_uart
        return None if delivery is None else delivery.time

    def poll(self, now: int, room: int, access: bool = False) -> bytes:
        return self._playback.poll(now, room, access)

    def pass_time(self, now: int, behind: int) -> int:
        return self._playback.pass_time(now)

    def read(self, now: int, size: int) -> bytes | None:
        return self._playback.read(now, size)

    def arrivals(self, now: int) -> Sequence[Arrival]:
        return self._playback.arrivals(now)

    @property
    def has_arrivals(self) -> bool:
        """Return False: what comes has a time."""
        return False

    def ask(self, now: int, operation: Callable[[], bytes]) -> bytes:
        """Return what was recorded. The operation is not done."""
        return self._playback.answer(now)

    def position(self) -> object:
        """See :class:`dbt.vm.input.PositionedInput`."""
        return self._playback.position

    def go_back(self, position: object) -> None:
        """See :class:`dbt.vm.input.PositionedInput`."""
        self._playback.go_back(cast("PlaybackPosition", position))

    def wait(self, seconds: float) -> None:
        """Wait for all the ``seconds``. Deliveries depend on virtual time only."""
        time.sleep(seconds)

    def fuel(self, icount: int, wanted: int | None) -> int | None:
        """Return how many instructions to run from ``icount`` on: to the recorded end, and one more if the guest ended
        by itself. Without an end, it is as far as the run is known to have got.
        """
        end, reached = self.recording.end, self.recording.reached
        if end is None:
            left = None if reached is None else max(0, reached - icount)
            return wanted if left is None else left if wanted is None else min(left, wanted)
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
        if stopped and result.icount == end.icount:
            self._come_to_end(machine, end)
            result = result._replace(icount=machine.icount, pc=machine.cpu.pc)
        elif result.icount == end.icount:
            machine.wait_until(end.now)  # It has halted after the guest had waited for so long.
        here = End.of(machine, result, end.reason if stopped else result.reason.value)
        if here.describe() != end.describe():
            raise self._playback.diverged(f"the run is {here.describe()}, and was {end.describe()}")
        if here != end:
            raise self._playback.diverged(
                f"the run is {end.describe()} as it was, but registers, RAM or devices differ"
            )
        if not stopped:
            return result
        message = f"{end.describe()}, as recorded"
        return RunResult(recorded, result.exit_code, result.icount, result.pc, message, result.exit)

    def _come_to_end(self, machine: Machine, end: End) -> None:
        """Go on from where the guest has executed as much as it had when it was stopped to where that was."""
        way = _WayToEnd(machine, self, end)
        machine.run(fuel=1, watcher=way)
        if way.waits:
            machine.wait_until(end.now)


class _WayToEnd:
    """Stops a run where a recorded one was stopped. It is a :class:`dbt.vm.run_watcher.RunWatcher`.

    Points with one instruction count differ: before a WFI, while it waits, after input that came then, and after an
    instruction that has been aborted. ``waits`` says that the guest waited at the end, for something that came later.
    """

    goes_on = True
    hears_exceptions = False

    def __init__(self, machine: Machine, replay: Replay, end: End) -> None:
        self._machine, self._replay, self._end = machine, replay, end
        self._seen = set[tuple[str, bool]]()
        self.waits = False

    def wants_stop(self) -> bool:
        machine, end = self._machine, self._end
        vcpu, now = machine.vcpu, machine.timeline.now
        if machine.icount != end.icount or now > end.now:
            return True
        if now == end.now:
            point = settled_hash(machine), vcpu.is_waiting
            if point[0] == end.state or point in self._seen:  # it may be aborted again and again
                return True
            self._seen.add(point)
        if vcpu.is_waiting and not vcpu.is_woken:
            later = [tick for tick in (machine.timeline.next_tick, self._replay.next_delivery) if tick is not None]
            self.waits = not any(now < tick <= end.now for tick in later)
        return self.waits

    def stops_in_handler(self, kind: ExceptionKind) -> bool:
        return False
