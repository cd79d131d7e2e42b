"""The host's side of a run: slice after slice, until the guest ends or something stops it.

This module has all that the virtual CPU does not know: limits, the console, the host's time and signals. What a guest
can observe depends on its image, its arguments, its files and its input. It does not depend on where slices end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from dbt.abi.addresses import Gva
from dbt.abi.cpu import NATIVE_EXCEPTIONS, NATIVE_WAITS, NEVER, SEMIHOSTING_SLOT
from dbt.abi.exits import Budget
from dbt.engine.observer import Observer
from dbt.host.console import Console
from dbt.host.journal import HostJournal
from dbt.host.output_queue import OutputQueue
from dbt.host.semihosting import SEMIHOSTING_SVC
from dbt.inspector.inspector import Inspector
from dbt.vm.exit_handler import ExitHandler, Personality, event_name
from dbt.vm.input import InputPort
from dbt.vm.peripherals import Peripherals
from dbt.vm.result import RunResult, StopReason
from dbt.vm.signal_deferral import SignalDeferral
from dbt.vm.slice_sizer import SliceSizer
from dbt.vm.vcpu import Vcpu
from isa.arm.state import PSR_F, PSR_I
from isa.arm.vectors import ExceptionKind

if TYPE_CHECKING:
    from dbt.host.realtime import RealTime
    from dbt.hypervisor.xen.domain import XenDomain
    from dbt.vm.meter import Meter
    from dbt.vm.run_watcher import RunWatcher
    from dbt.vm.silent_kernel import SilentKernel

_FLUSH_INTERVAL = 0.01
#: Seconds without Python's lock after each of these intervals, if the process has other threads. That is what it takes
#: the host to wake one that waits for the lock. Python itself would let it wait for seconds: to release the lock for a
#: moment, as each entry of native code and each system call does, starts the waiting of ``sys.getswitchinterval()``
#: afresh, and the guest has the lock again before another thread is awake.
_OTHERS_TURN = 1e-4
#: The longest sleep of a waiting guest, in seconds. Afterwards the loop checks for Ctrl-C and for limits.
_LONGEST_SLEEP_S = 0.05
#: The interval in instructions at which a halted kernel is looked for. It is fixed, so that runs do not depend on
#: slices.
_HALT_INTERVAL = 1 << 24
_BRANCH_TO_SELF = 0xEAFFFFFE
#: More instructions than native code executes between two looks at the host's clock by Python.
_LONGEST = 1 << 40


#: A function that is given the tick, and says by how many virtual time is behind the host's clock, or 0 if few.
TicksBehind = Callable[[int], int]


class Runnable(Personality, Protocol):
    """What the loop needs to know of the present guest."""

    @property
    def is_kernel(self) -> bool: ...


class StepListener(Protocol):
    """Is called before and after each instruction."""

    def before_step(self) -> None: ...
    def after_step(self, event: str) -> None: ...


class HostLoop:
    """The loop. With ``realtime``, guest idle time passes in real time, and virtual time is raised to the host's clock
    where a guest that computes is slower. Otherwise virtual time jumps to the next event while the guest waits, in
    native code too, unless something may come for it from ``hears_outside`` or the console.
    ``silence`` returns what watches a kernel's output.
    """

    def __init__(
        self,
        vcpu: Vcpu,
        peripherals: Peripherals,
        inspector: Inspector,
        exits: ExitHandler,
        port: InputPort,
        output: OutputQueue,
        console: Console,
        observer: Observer,
        realtime: bool,
        hears_outside: bool,
        signals: SignalDeferral,
        journal: HostJournal,
        silence: Callable[[], SilentKernel],
    ) -> None:
        self._vcpu = vcpu
        self._peripherals = peripherals
        self._inspector = inspector
        self._exits = exits
        self._port = port
        self._output = output
        self._console = console
        self._observer = observer
        self._checkpoint = observer.checkpoint_interval
        self._is_realtime = realtime
        self._hears_outside = hears_outside
        #: Somebody hears or sees what happens in the present run: nothing waits in native code, and slices are short.
        self._is_watched = True
        self._realtime: RealTime | None = None
        self._ticks_behind: TicksBehind | None = None
        self._interrupted = False
        self._signals = signals
        self._journal = journal
        self._silence = silence
        self._pace = SliceSizer()
        self._watcher: RunWatcher | None = None  # of the present run
        self._ended: RunResult | None = None  # by semihosting, and the caller has not been told
        #: The last slice has ended with its budget, and nothing has happened since. At other ends an exception may have
        #: been entered, which takes no time: then the tick does not tell where in the guest's run this is.
        self._is_between = False

    def reset(self) -> None:
        """Forget what the last run left to report, because the machine is reset."""
        self.ended = None
        self._pace = SliceSizer()
        self._exits.reset()

    @property
    def ended(self) -> RunResult | None:
        """The end of the guest by semihosting that the caller of :meth:`run` has not been told."""
        return self._ended

    @ended.setter
    def ended(self, result: RunResult | None) -> None:
        self._ended = result
        self._is_between = False  # the guest is elsewhere

    def interrupt(self) -> None:
        """Stop the run at the end of its slice. Signal handlers and other threads may call it."""
        self._interrupted = True

    @property
    def must_stop(self) -> bool:
        """Return True if the slice is to end soon, because of :meth:`interrupt` or a signal."""
        return self._interrupted or self._signals.is_waiting

    def run(
        self,
        machine: Runnable,
        fuel: int | None,
        timeout: float | None,
        listener: StepListener | None,
        watcher: RunWatcher | None = None,
        ticks_behind: TicksBehind | None = None,
    ) -> RunResult:
        """See :meth:`dbt.vm.machine.Machine.run`.

        ``ticks_behind``: see :meth:`dbt.vm.controlled_machine.ControlledMachine.run_metered`.
        """
        cpu = self._vcpu.cpu
        self._signals.release()
        if watcher is None or not watcher.goes_on:
            self._exits.begin_run()
        if machine.is_kernel:
            self._silence().begin_run(self._vcpu.icount)
        _ = self._vcpu.tier  # to make it may take seconds, and can be broken off
        self._follow_time()
        self._ticks_behind = ticks_behind or self._ticks_behind
        self._watcher = watcher
        hears_exceptions = watcher is not None and watcher.hears_exceptions
        cpu.native32[NATIVE_EXCEPTIONS] = listener is None and not hears_exceptions
        self._is_watched = (
            self._vcpu.meter is not None
            or listener is not None
            or watcher is not None
            or self._is_realtime
            or self._hears_outside
            or self._observer.hears_exits
        )
        cpu.native64[SEMIHOSTING_SLOT] = SEMIHOSTING_SVC if machine.semihosting_enabled else NEVER
        try:
            result = self._run(machine, fuel, timeout, listener)
        finally:
            self._output.collect()
            try:
                self._signals.release()
            finally:
                self._output.deliver()
                self._console.flush()
                self._signals.hold()
        self._ended = None
        return self._silence().explain(result, machine.cpu_model) if machine.is_kernel else result

    def _follow_time(self) -> None:
        """Let time pass in real time from now on, if it is to. What is repeated is not waited for."""
        follows = self._is_realtime and self._journal.repeats_until is None
        self._realtime = self._ticks_behind = None
        if follows:
            from dbt.host.realtime import RealTime

            self._realtime = RealTime(self._vcpu.timeline.ticks_per_second)
            self._ticks_behind = self._realtime.ticks_behind

    def _run(
        self, machine: Runnable, fuel: int | None, timeout: float | None, listener: StepListener | None
    ) -> RunResult:
        vcpu, signals, is_kernel = self._vcpu, self._signals, machine.is_kernel
        end = None if fuel is None else vcpu.icount + fuel
        now = time.monotonic()
        deadline = None if timeout is None else now + timeout
        next_flush = now + _FLUSH_INTERVAL
        pace: SliceSizer | Meter = self._pace if vcpu.meter is None else vcpu.meter
        self._pace.begin_run()
        while True:
            signals.hold()
            stop = self._ended or self._limit_reached(machine, end, deadline, now)
            if stop is not None:
                return stop
            if self._journal.repeats_until is not None:
                self._journal.arrive(vcpu.icount)
                self._follow_time()
            vcpu.timeline.run_due()
            if self._can_receive:
                self._peripherals.receive_expected()
            retired, budget = 0, 1
            if vcpu.is_waiting:
                waited_since = vcpu.now()
                stop = self._wait(listener)
                if vcpu.now() != waited_since:
                    self._peripherals.take_arrivals()
            else:
                if vcpu.cpu.takeable_interrupts and (stop := self._take_interrupt()) is not None:
                    return stop
                is_due = self._peripherals.expect_input() and not self._can_receive
                if vcpu.meter is not None and self._port.source.has_arrivals:
                    is_due = True  # what came while others executed comes at once
                budget = self._slice_length(is_kernel, pace.budget if listener is None and not is_due else 1, end)
                limit = 0
                if self._pace.is_longest and not self._is_watched and not is_due:
                    limit = self._slice_length(is_kernel, _LONGEST, end)
                if listener is not None:
                    listener.before_step()
                stop, retired = self._run_slice(machine, budget, listener, limit, now)
            if stop is not None:
                return stop
            before, now = now, time.monotonic()
            pace.learn(budget, retired, now - before)
            if now >= next_flush:
                signals.release()
                self._console.flush()
                if threading.active_count() > 1:
                    time.sleep(_OTHERS_TURN)
                next_flush = now + _FLUSH_INTERVAL

    @property
    def _can_receive(self) -> bool:
        """Return True if input may come now: at a point that a replay finds by its tick. A replay is at one."""
        vcpu = self._vcpu
        if vcpu.is_waiting:
            return vcpu.can_receive
        return self._is_between or self._port.source.next_delivery is not None

    def _run_slice(
        self, machine: Runnable, budget: int, listener: StepListener | None, limit: int, now: float
    ) -> tuple[RunResult | None, int]:
        """Execute a slice and answer its exit. Return the result if the run is over, and how many have retired.

        It may go on up to ``limit`` instructions, until the console is to be flushed. The time is ``now``.
        """
        vcpu, hypervisor = self._vcpu, self._peripherals.hypervisor
        vcpu.cpu.native32[NATIVE_WAITS] = not self._is_watched and self._may_wait_natively(hypervisor)
        try:
            exit_, retired = vcpu.run(budget, limit, int((now + _FLUSH_INTERVAL) * 1e9) if limit else 0)
        finally:
            if vcpu.waited and hypervisor is not None:
                hypervisor.processor.has_waited(vcpu.waited)
        self._output.collect()
        self._signals.release()
        self._vcpu.latch.raise_kept()
        self._output.deliver()
        self._signals.hold()
        self._observer.left_guest(exit_)
        self._is_between = bool(retired) and type(exit_) is Budget
        if self._is_between:
            self._catch_up()
            self._peripherals.take_arrivals()
        stop = self._exits.answer(exit_, machine)
        if stop is not None and stop.reason is StopReason.EXITED:
            self._ended = stop
        if stop is None and self._exits.raised is not None:
            stop = self._stop_in_handler(self._exits.raised)
        if listener is not None and not self._vcpu.is_waiting:
            listener.after_step(event_name(exit_))
        return stop, retired

    def _may_wait_natively(self, hypervisor: XenDomain | None) -> bool:
        """Return True if nobody sees in the next slice that the guest waits, and nothing comes then."""
        source = self._port.source
        if self._journal.repeats_until is not None or source.next_delivery is not None:
            return False
        if self._peripherals.expects_input and not source.ended:
            return False
        return hypervisor is None or hypervisor.waits_unseen

    def _catch_up(self) -> None:
        """Raise virtual time to the host's clock between two instructions, if it is slower and passes in real time.

        Events that are due by then happen now. By how much is input to the guest: it is recorded, and a replay repeats
        it. The slice has ended with its budget, so a replay's slice can end there too.
        """
        vcpu, source = self._vcpu, self._port.source
        now = vcpu.now()
        behind = 0 if self._ticks_behind is None else self._ticks_behind(now)
        if behind and (delivery := source.next_delivery) is not None:
            behind = max(0, min(behind, delivery - now))
        if passed := source.pass_time(now, behind):
            vcpu.skip(passed)

    def _take_interrupt(self) -> RunResult | None:
        kind = self._vcpu.take_interrupt()
        if kind is None:
            return None
        self._observer.interrupted(kind.value)
        return self._stop_in_handler(kind)

    def _stop_in_handler(self, kind: ExceptionKind) -> RunResult | None:
        """Return the result if a debugger wants the guest to stop in the handler of an exception."""
        if self._watcher is None or not self._watcher.stops_in_handler(kind):
            return None
        return self._stopped(StopReason.STOPPED, f"{kind.value} after {self._vcpu.icount} instructions")

    def _slice_length(self, is_kernel: bool, budget: int, end: int | None) -> int:
        """Return the number of instructions until something else must be done, at most ``budget``."""
        icount = self._vcpu.icount
        if end is not None:
            budget = min(budget, end - icount)
        if (repeats_until := self._journal.repeats_until) is not None:
            budget = min(budget, repeats_until - icount)
        budget = min(budget, self._checkpoint - icount % self._checkpoint)
        if is_kernel:
            budget = min(budget, _HALT_INTERVAL - icount % _HALT_INTERVAL)
        now, tick = icount + self._vcpu.skipped, self._port.source.next_delivery
        if tick is not None and now < tick < now + budget:
            budget = tick - now
        return budget

    # -- what ends a run -----------------------------------------------------------------------

    def _limit_reached(
        self, machine: Runnable, end: int | None, deadline: float | None, now: float
    ) -> RunResult | None:
        icount = self._vcpu.icount
        watcher_stops = self._watcher is not None and self._watcher.wants_stop()
        if watcher_stops or self._interrupted:
            if not watcher_stops:  # else the user's interrupt is for the next run
                self._interrupted = False
            return self._stopped(StopReason.INTERRUPTED, f"interrupted after {icount} instructions")
        if self._vcpu.reset_requested:
            return self._exited("the guest reset the machine")
        if not icount % _HALT_INTERVAL and machine.is_kernel:
            if self._has_halted:
                return self._kernel_halted()
            self._silence().look(icount, machine.cpu_model, self._describe_place)
        if end is not None and icount >= end:
            return self._stopped(StopReason.FUEL, f"the fuel is used up after {icount} instructions")
        if self._vcpu.meter is not None and not self._vcpu.meter.begin_slice(icount):
            return self._stopped(StopReason.FUEL, f"the allowance is used up after {icount} instructions")
        if deadline is not None and now >= deadline:
            return self._stopped(StopReason.TIMEOUT, f"the time limit passed after {icount} instructions")
        return None

    @property
    def _has_halted(self) -> bool:
        """True if the guest branches to itself and nothing can interrupt it. This is how kernels halt a machine.

        It is looked at for kernels only: a program that does so may wait for a debugger.
        """
        cpu = self._vcpu.cpu
        masks = cpu.cpsr & (PSR_I | PSR_F)
        masked = masks == PSR_I | PSR_F or (masks == PSR_I and not self._peripherals.board.has_fast_interrupts)
        return masked and self._inspector.peek_code(Gva(cpu.r[15])) == _BRANCH_TO_SELF

    def _kernel_halted(self) -> RunResult:
        """Return the result for a halted kernel. If it was interrupted before, it was up and has shut down; otherwise
        it has given up while it booted.
        """
        message = f"the guest halted the machine: at {self._describe_place()} nothing can interrupt it"
        counts = self._vcpu.event_counts
        if counts[ExceptionKind.IRQ.value] or counts[ExceptionKind.FIQ.value]:
            return self._exited(message)
        return self._stopped(StopReason.HALTED, f"{message}, and nothing did before")

    def _describe_place(self) -> str:
        return self._inspector.describe_pc(Gva(self._vcpu.cpu.r[15]))

    def _exited(self, message: str) -> RunResult:
        return RunResult(StopReason.EXITED, 0, self._vcpu.icount, self._vcpu.cpu.pc, message)

    def _stopped(self, reason: StopReason, message: str) -> RunResult:
        return RunResult(reason, None, self._vcpu.icount, self._vcpu.cpu.pc, message)

    # -- waiting -------------------------------------------------------------------------------

    def _wait(self, listener: StepListener | None) -> RunResult | None:
        """Complete a WFI if an interrupt line is up; otherwise let time pass until something may raise one."""
        vcpu, hypervisor = self._vcpu, self._peripherals.board.hypervisor
        if hypervisor is not None and vcpu.is_woken:
            hypervisor.processor.unblock()
        if vcpu.end_wait():
            if listener is not None:
                listener.after_step("wait for interrupt")
            return None
        now, source = vcpu.now(), self._port.source
        if source.has_arrivals:
            vcpu.skip(1)
            return None
        if not vcpu.can_receive and self._peripherals.expects_input:
            due = source.due(now)
            if due is not None and due <= now:
                vcpu.skip(1)
                return None
        wait = min(self._ticks_ahead(now), default=None)
        if vcpu.meter is not None:
            return self._stopped(StopReason.WAITING, f"the guest waits after {vcpu.icount} instructions")
        if wait is not None and self._realtime is None:
            vcpu.skip(wait)
        elif wait is None and (source.ended or not self._peripherals.expects_input):
            return self._exits.halt()
        else:
            self._sleep(now, wait)
        return None

    def wait_until(self, tick: int, until_woken: bool) -> None:
        """See :meth:`dbt.vm.controlled_machine.ControlledMachine.wait_until`."""
        vcpu = self._vcpu
        while (now := vcpu.now()) < tick:
            vcpu.timeline.run_due()
            if vcpu.can_receive:
                self._peripherals.receive_expected()
            if until_woken and vcpu.is_woken:
                return
            vcpu.skip(min([tick - now, *self._ticks_ahead(now)]))

    def wait_ahead(self) -> int | None:
        """Return for how many ticks a waiting guest waits, or None if it waits for something from outside."""
        return min(self._ticks_ahead(self._vcpu.now()), default=None)

    def _ticks_ahead(self, now: int) -> list[int]:
        """Return the ticks until the next event, and until input whose time is known."""
        ticks = (self._vcpu.timeline.next_tick, self._port.source.next_delivery)
        return [tick - now for tick in ticks if tick is not None and tick > now]

    def _sleep(self, now: int, wait: int | None) -> None:
        """Sleep until ``wait`` ticks have passed or input arrives, for a limited time.

        If the guest waits for input only, virtual time advances only with ``realtime``.
        """
        self._output.collect()
        self._signals.release()
        self._output.deliver()
        self._console.flush()
        realtime, rate = self._realtime, self._vcpu.timeline.ticks_per_second
        if realtime is None:
            self._port.source.wait(_LONGEST_SLEEP_S)
            return
        left = _LONGEST_SLEEP_S if wait is None else wait / rate - realtime.lag(now)
        if left > 0:
            self._port.source.wait(min(left, _LONGEST_SLEEP_S))
        passed = int(realtime.lag(now) * rate)
        self._vcpu.skip(passed if wait is None else min(passed, wait))
