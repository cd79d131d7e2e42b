"""The history of a run: going back to any instruction of it, and finding what happened last.

A history has a ring of checkpoints and all input since the oldest of them. To go to an instruction, the machine is
rolled back to the checkpoint before it, and executes the guest again from there. The same input comes at the same
instructions (:mod:`dbt.vm.logged_input`, :mod:`dbt.host.journal`), so the guest does the same. What it sends is not
sent again, and no file is written again, until it has come to the *newest point*: the furthest that it has ever been.

A guest that is executed can only go forward. To find what happened last before an instruction, the stretches between
checkpoints are executed again, the newest first, and each event is noted until one stretch has had some.

A *moment* is a place where a run can stop: the arrival at an instruction count, and then the entries into handlers of
exceptions before another instruction has retired.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gva
from dbt.engine.debug_points import DebugPoints
from dbt.vm.checkpoint import Checkpoint
from dbt.vm.hits import EveryHandler, Hit, Hits, NoPoints, WritesTo, never
from dbt.vm.logged_input import LoggedInput
from dbt.vm.result import RunResult, StopReason
from isa.arm.vectors import ExceptionKind

if TYPE_CHECKING:
    from dbt.host.semihosting import KeptHandles
    from dbt.vm.controlled_machine import ControlledMachine
    from dbt.vm.parts import Parts
    from dbt.vm.run_watcher import RunWatcher

#: Bytes that all checkpoints of a history take together, unless the user wants it otherwise.
DEFAULT_MEMORY = 256 << 20
#: The seconds that the guest needs from one checkpoint to the next. A step back takes about as long.
_SPACING_S = 0.02
#: The spacing in instructions: at the beginning, the least and the largest.
_FIRST_SPACING, _LEAST_SPACING, _LARGEST_SPACING = 100_000, 1_000, 1 << 28
#: Checkpoints at most, however small they are.
_MOST_CHECKPOINTS = 1024


class HistoryError(Exception):
    """Raised if a history cannot do what is asked. The message is for the user."""


class SearchInterrupted(HistoryError):
    """Raised if a search in a history was interrupted. The machine is somewhere in between."""


class _Moment(NamedTuple):
    icount: int
    registers: bytes


class History:
    """The history of a machine from now on: see :meth:`dbt.vm.controlled_machine.ControlledMachine.begin_history`.

    While it exists, the machine is run by :meth:`run`, which makes checkpoints on the way. ``memory`` is how many bytes
    they may take; when it is used up, older ones are thinned out, and at last the beginning is forgotten.
    """

    def __init__(self, machine: ControlledMachine, parts: Parts, memory: int = DEFAULT_MEMORY) -> None:
        self._machine, self._parts, self._memory = machine, parts, memory
        self._journal = parts.journal
        self._input = LoggedInput(parts.port.source, parts.journal)
        self._ring: list[Checkpoint] = []  # in order; none is later than the present moment
        self._newest: int | None = None  # if the machine has gone back from it
        self._files: KeptHandles | None = None  # those of the newest point
        self._ended: RunResult | None = None  # the guest's end, at the newest point
        self._edited = self.is_closed = False
        self._spacing = _FIRST_SPACING
        self._worked = 0.0  # the seconds that the guest has needed since the last checkpoint
        parts.port.attach(self._input)
        self._begin()

    def close(self) -> None:
        """Give up the history. The machine stays where it is; its past is forgotten, and what it repeated is not
        repeated any more. A second call does nothing.
        """
        if self.is_closed:
            return
        self.is_closed = True
        self._forget()
        self._journal.end()
        if self._parts.port.source is self._input:
            self._parts.port.attach(self._input.inner)

    def _forget(self) -> None:
        for checkpoint in self._ring:
            checkpoint.close()
        self._ring.clear()
        self._input.cut()
        self._newest = self._ended = None
        if self._files is not None:
            self._files.close()
            self._files = None

    def _begin(self) -> None:
        """Begin anew: here is the oldest moment."""
        self._forget()
        self._journal.begin()
        self._edited = False
        self._ring.append(self._machine.checkpoint())
        self._worked = 0.0

    # -- where it stands -----------------------------------------------------------------------

    @property
    def oldest(self) -> int:
        """The icount of the oldest moment to which the machine can go back."""
        return self._machine.icount if self._edited else self._ring[0].icount

    @property
    def newest(self) -> int:
        """The icount of the newest point."""
        return max(self._newest or 0, self._machine.icount)

    @property
    def is_past(self) -> bool:
        """Whether the machine is before the newest point."""
        return self._newest is not None and self._machine.icount < self._newest

    @property
    def end(self) -> RunResult | None:
        """The guest's end, if the machine is there."""
        return None if self.is_past else self._ended

    @property
    def checkpoints(self) -> int:
        """How many checkpoints there are now."""
        return len(self._ring)

    @property
    def kept_bytes(self) -> int:
        """How many bytes the checkpoints and what was read from files take, nearly."""
        return self._parts.memory.epochs.kept_bytes + self._journal.size

    def note_edit(self) -> None:
        """Say that the user changes the guest. Its past does not lead here any more, so the history begins anew.

        Raise HistoryError if the machine is in the past.
        """
        self.check_present()
        self._edited = True

    def check_present(self) -> None:
        """Raise HistoryError if the machine is in the past, which cannot be changed."""
        if self.is_past:
            raise HistoryError(
                f"the guest is {self.newest - self._machine.icount} instructions before the newest point of its "
                "history, and its past cannot be changed: let it go there, or begin another course from here "
                "(monitor branch)"
            )

    def branch(self) -> None:
        """Let this moment be the newest point: what came after it is forgotten, and the guest may be changed.

        What it has sent and written to files stays. Raise HistoryError if it cannot go on otherwise than it did.
        """
        if not self.is_past:
            return
        if self._input.is_recorded:
            raise HistoryError("the input of this run is recorded or comes from a recording, so it has one course only")
        if (name := self._parts.semihosting.lost_file()) is not None:
            text = name.decode("utf-8", "backslashreplace")
            raise HistoryError(f"here the guest has the file {text!r} open, which has been closed since")
        if (lost := self._parts.attachments.lost_file()) is not None:
            raise HistoryError(f"here the guest has the shared file {lost[0]!r} open, and now: {lost[1]}")
        self._newest = self._ended = None
        self._input.cut()
        self._journal.cut()
        self._leave_past()

    # -- forward -------------------------------------------------------------------------------

    def run(
        self, fuel: int | None = None, timeout: float | None = None, watcher: RunWatcher | None = None
    ) -> RunResult:
        """Do as :meth:`dbt.vm.machine.Machine.run`, and make checkpoints on the way.

        It does not stop at the newest point. At the guest's end it returns how the guest ended.
        """
        machine = self._machine
        self._settle()
        if self.end is not None:
            return self.end
        end = None if fuel is None else machine.icount + fuel
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            before = machine.icount
            ahead = self._ring[-1].icount + self._spacing - before
            stretch = max(min(ahead, self._spacing // 2), self._spacing // 8, 1)
            limit = stretch if end is None else min(stretch, end - before)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            started = time.thread_time()
            result = machine.run(limit, left, watcher=watcher)
            executed, seconds = machine.icount - before, time.thread_time() - started
            self._worked += seconds
            if result.reason is StopReason.FUEL and executed:
                is_due = machine.icount - self._ring[-1].icount >= self._spacing or self._worked >= _SPACING_S
                if executed >= self._spacing // 2:
                    self._learn(executed, seconds)
                if is_due:
                    self._mark()
            if self._newest is not None and not self.is_past:
                self._leave_past()
            if result.reason is StopReason.EXITED and not self.is_past:
                self._ended = result
            if result.reason is not StopReason.FUEL or machine.icount == end:
                return result

    def _settle(self) -> None:
        if self._edited:
            self._begin()

    def _leave_past(self) -> None:
        """The machine is at the newest point, or beyond."""
        if self._files is not None:
            self._files.close()
            self._files = None

    def _learn(self, executed: int, seconds: float) -> None:
        """Choose the spacing by how many instructions the guest executes in a second."""
        wanted = int(executed * _SPACING_S / max(seconds, 1e-6))
        wanted = min(max(wanted, self._spacing // 4), self._spacing * 4)
        self._spacing = min(max(wanted, _LEAST_SPACING), _LARGEST_SPACING)

    def _mark(self) -> None:
        """Make a checkpoint. Precondition: the machine has just arrived at its icount."""
        self._ring.append(self._machine.checkpoint())
        self._worked = 0.0
        while len(self._ring) > 2 and (len(self._ring) > _MOST_CHECKPOINTS or self.kept_bytes > self._memory):
            self._thin_out()

    def _thin_out(self) -> None:
        """Give up the checkpoint that is missed least: its neighbours are close to each other, seen from here.

        If the rest is sparse already, give up the oldest.
        """
        ring, here = self._ring, self._machine.icount + self._spacing
        icounts = [checkpoint.icount for checkpoint in ring]
        neighbours = zip(icounts, icounts[1:-1], icounts[2:], strict=False)
        gaps = [(after - before) / (here - icount) for before, icount, after in neighbours]
        least = min(range(len(gaps)), key=gaps.__getitem__)
        if gaps[least] < 1:
            ring.pop(least + 1).close()
            self._parts.memory.epochs.merge()
        else:
            ring.pop(0).close()
            self._journal.forget(ring[0].journal_position)

    # -- back ----------------------------------------------------------------------------------

    def run_to(self, icount: int, interrupted: Callable[[], bool] = never) -> bool:
        """Go to the arrival at an instruction count, back or forward. Return False if that was interrupted on the way,
        or if the guest ends before.

        Raise HistoryError for a moment before the oldest one.
        """
        self._settle()
        self._stop_at_nothing(NoPoints())
        if icount < self.oldest:
            raise HistoryError(f"the history begins at {self.oldest} instructions, and {icount} is before")
        return self._arrive(icount, Hits(NoPoints(), self._machine, interrupted))

    def step_back(self, points: DebugPoints | None = None) -> bool:
        """Go to the moment before this one. Return False if this is the oldest one.

        ``points`` are the debug points that the tier knows. They stop nothing on the way. (The same ones need less time
        than others.)
        """
        self._settle()
        self._stop_at_nothing(points or NoPoints())
        here = self._moment
        self._go(max(here.icount - 1, self.oldest))
        if self._moment == here:
            return False
        self._creep(here)
        return True

    def last_hit(
        self,
        points: DebugPoints,
        interrupted: Callable[[], bool] = never,
        caught: Collection[ExceptionKind] = (),
    ) -> Hit | None:
        """Go back to the last moment before this one at which the debug points would have stopped the guest, or at
        which it had just entered the handler of an exception that is ``caught``.

        Return None if there is none, and the machine is at the oldest moment. Raise SearchInterrupted if
        ``interrupted`` has returned True, or if the run was interrupted otherwise. Afterwards the tier knows these
        debug points, but they stop nothing.
        """
        self._settle()
        here = self._moment
        upper, end = here.icount + 1, here.icount
        tier = self._machine.tier
        while any(checkpoint.icount < upper for checkpoint in self._ring):
            start = self._roll_back(upper - 1)
            hits = Hits(points, self._machine, interrupted, end, caught)
            tier.use_debug_points(hits)
            try:
                if not self._forward(end, hits):
                    raise self._interruption()
                if end == here.icount and self._moment != here:
                    hits.end += 1
                    self._creep(here)
            finally:
                hits.finish()
            if hits.last is not None:
                return self._go_to_hit(hits.last)
            upper = end = start
        self._roll_back(self.oldest)
        return None

    def last_write(self, gva: Gva, size: int = 4, interrupted: Callable[[], bool] = never) -> Hit | None:
        """Return which instruction before this moment has written last to any of ``size`` bytes at ``gva``, or None if
        none has since the history began.

        The machine is where it was. Raise SearchInterrupted as :meth:`last_hit`.
        """
        here = self._moment
        hit = self.last_hit(WritesTo(gva, size), interrupted)
        if not self.run_to(here.icount, interrupted):
            raise self._interruption()
        self._creep_up_to(here)
        return hit

    def _interruption(self) -> SearchInterrupted:
        self._machine.run(0)  # the machine's user has been heard, too
        return SearchInterrupted(f"interrupted after {self._machine.icount} instructions")

    def _stop_at_nothing(self, points: DebugPoints) -> None:
        hits = Hits(points, self._machine, never)
        hits.finish()
        self._machine.tier.use_debug_points(hits)

    def pass_instruction(self) -> None:
        """Go to the next moment, within the past."""
        machine = self._machine
        self._uninterrupted(machine.icount + 1, lambda fuel: machine.run(fuel, watcher=EveryHandler()))

    def _uninterrupted(self, end: int, run: Callable[[int], RunResult]) -> None:
        """Let ``run`` execute the guest up to an icount, whoever interrupts it meanwhile: who looks next is told.

        What is done here takes no longer than a step back. Half done, it would leave the guest at a wrong moment.
        """
        asked = False
        while run(max(end - self._machine.icount, 0)).reason is StopReason.INTERRUPTED:
            asked = True
        if asked:
            self._machine.interrupt()

    @property
    def _moment(self) -> _Moment:
        return _Moment(self._machine.icount, self._machine.cpu.snapshot())

    def _roll_back(self, icount: int) -> int:
        """Go back to the last checkpoint that is not after ``icount``, and forget later ones. Return its icount."""
        ring = self._ring
        if not self.is_past:
            self._newest = self._machine.icount
            if self._files is None:
                self._files = self._parts.semihosting.keep()
        later = [checkpoint for checkpoint in ring if checkpoint.icount > icount]
        del ring[len(ring) - len(later) :]
        for checkpoint in later:
            checkpoint.close()
        self._put_back(ring[-1])
        return ring[-1].icount

    def _put_back(self, checkpoint: Checkpoint) -> None:
        self._machine.rollback(checkpoint)
        self._worked = 0.0
        if self._newest is not None:
            self._journal.repeat_until(self._newest)

    def _arrive(self, icount: int, watcher: RunWatcher | None = None) -> bool:
        """Go to the arrival at ``icount``. Return False if that was interrupted."""
        if icount <= self._machine.icount:
            self._roll_back(icount)
        return self._forward(icount, watcher)

    def _go(self, icount: int) -> None:
        """Go to the arrival at ``icount``, which has been there before."""
        if icount <= self._machine.icount:
            self._roll_back(icount)
        if icount > self._machine.icount:
            self._uninterrupted(icount, self.run)

    def _forward(self, icount: int, watcher: RunWatcher | None = None) -> bool:
        """Execute up to the arrival at ``icount``. Return False if that was interrupted."""
        if icount > self._machine.icount:
            result = self.run(icount - self._machine.icount, watcher=watcher)
            if result.reason is StopReason.INTERRUPTED:
                return False  # even if it has arrived: who interrupted does not do so again
        return self._machine.icount == icount

    def _creep(self, here: _Moment) -> None:
        """Go to the last moment before ``here``. Precondition: the machine is at an earlier one, but not by far."""
        machine = self._machine
        while True:
            with machine.checkpoint() as checkpoint:
                now = self._moment
                self.pass_instruction()
                reached = self._moment
                if reached in (here, now) or reached.icount > here.icount:
                    self._put_back(checkpoint)
                    return

    def _creep_up_to(self, here: _Moment) -> None:
        """Go to a moment that has the icount at which the machine has arrived."""
        if self._moment != here:
            self._creep(here)
            self.pass_instruction()

    def _go_to_hit(self, hit: Hit) -> Hit:
        """Go to the moment of a hit, in front of its instruction."""
        self._go(hit.icount)
        while self._machine.cpu.pc != hit.pc and self._machine.icount == hit.icount:
            self.pass_instruction()
        return hit
