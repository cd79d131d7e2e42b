"""A machine as a debugger sees and drives it: registers, memory, breakpoints, watchpoints, and running up to a stop.

It implements :class:`dbt.gdb.target.Target`. Nothing that it does is seen by the guest, but for writes to registers and
memory. How the guest stops is in :mod:`dbt.backend.debug_points`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.exits import BreakpointHit, DataAbort, PrefetchAbort, VmExit, WatchpointHit
from dbt.abi.layout import MAX_WATCHPOINTS, PAGE_SIZE
from dbt.engine.debug_points import Watchpoint
from dbt.gdb.target import BreakpointKind, Condition, LogEnd, Register, Stop, StopSignal, TargetError, WatchKind
from dbt.memory.virtual import BadAddress
from dbt.vm.debug_registers import CPSR, FEATURES, PC, read_register, write_system_register
from dbt.vm.debugged_run import DebuggedRun, NoPartner, RunPartner
from dbt.vm.result import RunResult, StopReason
from isa.arm.vectors import ExceptionKind

if TYPE_CHECKING:
    from dbt.vm.controlled_machine import ControlledMachine
    from dbt.vm.history import History
    from dbt.vm.hits import Hit

#: The most breakpoints, and the most bytes of a watchpoint: all of this may come from a socket.
MAX_BREAKPOINTS, MAX_WATCHED = 4096, 1 << 20
_END = 1 << 32
_INTERRUPTS = frozenset((ExceptionKind.IRQ, ExceptionKind.FIQ))


class SaveError(Exception):
    """Raised by whoever saves the machine for a debugger, with a message for its user."""


class _Breakpoint(NamedTuple):
    kind: BreakpointKind
    conditions: Collection[Condition]


class _Place(NamedTuple):
    """Where a step is to go on after an interrupt: the same code of the same thread."""

    pc: Gva
    sp: int
    mode: int
    ttbr0: int


class Debugger:
    """The debugger's side of a machine. At most one may be in use at a time.

    ``fuel`` is the number of instructions after which the guest stops for good, and ``timeout`` that of seconds for
    which it may run. With a ``history`` it can be run backwards. ``save`` saves the machine and returns where, or
    raises SaveError. ``partner`` controls the run as well.
    """

    vcpus: Sequence[int] = (1,)
    goes_on = False
    features: Mapping[str, Sequence[Register]] = FEATURES

    def __init__(
        self,
        machine: ControlledMachine,
        fuel: int | None = None,
        timeout: float | None = None,
        history: History | None = None,
        save: Callable[[], str] | None = None,
        partner: RunPartner | None = None,
    ) -> None:
        self._partner = partner or NoPartner()
        self._runs = DebuggedRun(machine, fuel, timeout, history, self._partner, self.restart)
        self.machine, self.history, self._save = machine, history, save
        self._told_end = False  # the user has been told that the guest has ended, and may go back
        self._behind_access: tuple[int, Gva] | None = None  # where it has stopped for a watchpoint, backwards
        self._breakpoints: dict[Gva, list[_Breakpoint]] = {}
        self._watchpoints: dict[Watchpoint, WatchKind] = {}
        self._told_watchpoints: frozenset[Watchpoint] = frozenset()  # that the tier knows
        self.caught: set[ExceptionKind] = set()  # the exceptions at whose handlers the guest stops
        self.limits: dict[Gva, tuple[str, int]] = {}  # breakpoints of one address space: a register and its value
        self.physical = False  # memory is that of physical addresses
        self.steps_into_interrupts = False  # a step that is interrupted ends at the handler
        self._stepping = False
        self._entered: ExceptionKind | None = None  # the exception at whose handler the guest has stopped
        self._awaited: _Place | None = None  # where a step goes on after an interrupt
        self._hit: BreakpointKind | None = None  # the last breakpoint that has stopped the guest
        self._stopped_at: tuple[int, Gva] | None = None  # icount and PC of the breakpoint or watchpoint that was hit

    @property
    def result(self) -> RunResult | None:
        """How the run has ended, or the last one."""
        return self._runs.ended or self._runs.result

    @property
    def is_over(self) -> bool:
        """Return True if the partner has ended the run."""
        return self._runs.ended is not None

    # -- registers and memory ------------------------------------------------------------------

    def describe_vcpu(self, vcpu: int) -> str:
        """See :class:`dbt.gdb.target.Target`."""
        from isa.arm.state import Mode

        cpu, what = self.machine.cpu, "waiting for an interrupt" if self.machine.vcpu.is_waiting else "stopped"
        return f"{Mode(cpu.mode).name.lower()} mode, {what}"

    def read_register(self, vcpu: int, number: int) -> int:
        """See :class:`dbt.gdb.target.Target`."""
        try:
            return read_register(self.machine.cpu, number)
        except KeyError:
            raise TargetError(f"there is no register {number}") from None

    def write_register(self, vcpu: int, number: int, value: int) -> None:
        """See :class:`dbt.gdb.target.Target`."""
        self._note_edit()
        try:
            if number == PC:
                self.machine.pc = value
            elif 0 <= number < PC:
                self.machine.r[number] = value
            elif number == CPSR:
                self.machine.cpsr = value
            elif (name := write_system_register(self.machine.cpu, number, value)) is not None:
                raise TargetError(f"{name} can only be read here: only the guest itself can write it")
        except KeyError:
            raise TargetError(f"there is no register {number}") from None
        except ValueError as error:
            raise TargetError(str(error)) from None

    def read_memory(self, address: int, size: int) -> bytes:
        """See :class:`dbt.gdb.target.Target`."""
        found = bytearray()
        while len(found) < size:
            at = address + len(found)
            piece = min(size - len(found), PAGE_SIZE - at % PAGE_SIZE)
            try:
                found += self._read(at, piece)
            except (BadAddress, ValueError):
                break
        if not found:
            raise TargetError(f"there is no RAM to be read at {address:#x}")
        return bytes(found)

    def _read(self, address: int, size: int) -> bytes:
        if self.physical:
            return self.machine.read(address, size)
        return self.machine.inspector.read_virtual(Gva(address), size)

    def write_memory(self, address: int, data: bytes) -> None:
        """See :class:`dbt.gdb.target.Target`. What is written to code takes effect at once."""
        self._note_edit()
        try:
            if self.physical:
                self.machine.write(address, data)
            else:
                self.machine.inspector.write_virtual(Gva(address), data)
        except (BadAddress, ValueError):
            raise TargetError(f"there is no RAM to be written at {address:#x}") from None

    def _note_edit(self) -> None:
        """The user is about to change the guest. Raise TargetError if it is in its past."""
        if self.history is not None:
            from dbt.vm.history import HistoryError

            try:
                self.history.note_edit()
            except HistoryError as error:
                raise TargetError(str(error)) from None
        self._stopped_at = None

    # -- breakpoints and watchpoints: also implements dbt.engine.debug_points.DebugPoints ------------

    @property
    def breakpoints(self) -> Collection[Gva]:
        """The addresses of all breakpoints."""
        return self._breakpoints.keys() | (() if self._awaited is None else (self._awaited.pc,))

    @property
    def watchpoints(self) -> Collection[Watchpoint]:
        """All watchpoints."""
        return self._watchpoints.keys()

    def insert_breakpoint(self, kind: BreakpointKind, gva: Gva, conditions: Collection[Condition] = ()) -> None:
        """See :class:`dbt.gdb.target.Target`. A breakpoint of the same kind that is there already is replaced."""
        if gva & 3 or not 0 <= gva < _END:
            raise TargetError(f"{gva:#x} is not the address of an A32 instruction: a 32-bit multiple of 4")
        if len(self._breakpoints) >= MAX_BREAKPOINTS:
            raise TargetError(f"a machine has {MAX_BREAKPOINTS} breakpoints at most")
        others = [there for there in self._breakpoints.get(gva, ()) if there.kind is not kind]
        self._breakpoints[gva] = [*others, _Breakpoint(kind, conditions)]

    def remove_breakpoint(self, kind: BreakpointKind, gva: Gva) -> None:
        """See :class:`dbt.gdb.target.Target`. One that is not there is no error."""
        others = [there for there in self._breakpoints.get(gva, ()) if there.kind is not kind]
        if others:
            self._breakpoints[gva] = others
        else:
            self._breakpoints.pop(gva, None)

    def insert_watchpoint(self, kind: WatchKind, gva: Gva, size: int) -> None:
        """See :class:`dbt.gdb.target.Target`."""
        watchpoint = _watchpoint(kind, gva, size)
        if len(self._watchpoints) >= MAX_WATCHPOINTS and watchpoint not in self._watchpoints:
            raise TargetError(f"a machine has {MAX_WATCHPOINTS} watchpoints at most")
        self._watchpoints[watchpoint] = kind

    def remove_watchpoint(self, kind: WatchKind, gva: Gva, size: int) -> None:
        """See :class:`dbt.gdb.target.Target`. One that is not there is no error."""
        self._watchpoints.pop(_watchpoint(kind, gva, size), None)

    def stops_at(self, pc: Gva) -> bool:
        """See :class:`dbt.engine.debug_points.DebugPoints`."""
        self._hit = None
        if self._awaited is not None and self._awaited == self._place:
            return True
        if self._stepping or pc not in self._breakpoints or self._was_stopped_here:
            return False
        self._hit = self._breakpoint_at(pc)
        return self._hit is not None or self._runs.cuts()

    def _breakpoint_at(self, pc: Gva) -> BreakpointKind | None:
        """Return the kind of a breakpoint whose condition holds in the present address space, or None."""
        if self.limits and (limit := self.limits.get(pc)) is not None and self.machine.cpu[limit[0]] != limit[1]:
            return None
        for kind, conditions in self._breakpoints.get(pc, ()):
            if not conditions:
                return kind
            for holds in conditions:  # any() would take longer, and there may be 10,000 hits in a search
                if holds():
                    return kind
        return None

    def stops_for(self, gva: Gva, size: int, write: bool) -> bool:
        """See :class:`dbt.engine.debug_points.DebugPoints`."""
        return not self._was_stopped_here and self._watchpoint_of(gva, size, write) is not None

    def _watchpoint_of(self, gva: Gva, size: int, write: bool) -> Watchpoint | None:
        return next((there for there in self._watchpoints if there.touches(gva, size, write)), None)

    # -- running: also implements dbt.vm.run_watcher.RunWatcher ----------------------------------------

    @property
    def hears_exceptions(self) -> bool:
        """See :class:`dbt.vm.run_watcher.RunWatcher`."""
        return self._stepping or bool(self.caught)

    def wants_stop(self) -> bool:
        """See :class:`dbt.vm.run_watcher.RunWatcher`."""
        return self._runs.wants_stop()

    def stops_in_handler(self, kind: ExceptionKind) -> bool:
        """See :class:`dbt.vm.run_watcher.RunWatcher`."""
        self._entered = kind
        return self._stepping or kind in self.caught

    def resume(self, interrupted: Callable[[], bool]) -> Stop:
        """See :class:`dbt.gdb.target.Target`. What it has stopped at is executed now."""
        self._tell_tier()
        is_past, was_told = self._is_past, self._told_end
        self._partner.note_debugger(holds=False)
        stop = self._stop(self._runs.run(None, interrupted, self))
        if stop.exit_code is None and not self.is_over:
            self._partner.note_debugger(holds=True)
        if is_past and not self._is_past and stop == Stop(StopSignal.TRAP):
            return stop._replace(log_end=LogEnd.NEWEST)
        if self.history is not None and stop.exit_code is not None and not was_told:
            self._told_end = True
            message = f"the guest has ended with {stop.exit_code}: go back, or continue to leave it. {stop.message}"
            return Stop(StopSignal.TRAP, message=message.strip(), log_end=LogEnd.NEWEST)
        return stop

    @property
    def _here(self) -> tuple[int, Gva]:
        return self.machine.progress, self.machine.cpu.pc

    @property
    def _was_stopped_here(self) -> bool:
        return self._stopped_at is not None and self._stopped_at == self._here  # which takes some time to compute

    def step(self, start: Gva, end: Gva, interrupted: Callable[[], bool]) -> Stop:
        """See :class:`dbt.gdb.target.Target`. An exception that is entered ends a step.

        Interrupts are handled before the step goes on, unless ``steps_into_interrupts``. The guest's time is the same
        either way.

        gdb removes breakpoints and watchpoints before it steps over them, and inserts them again. So the tier is only
        told of watchpoints that it does not know.
        """
        if not self._watchpoints.keys() <= self._told_watchpoints:
            self._tell_tier()
        self._stepping = True
        try:
            while True:
                result = self._run_step(interrupted)
                pc = self.machine.cpu.pc
                if result.reason is not StopReason.FUEL or self._runs.is_at_end or not start <= pc < end:
                    break
                if (kind := self._breakpoint_at(pc)) is not None:
                    return Stop(StopSignal.TRAP, kind)
            return self._stop(result)
        finally:
            self._stepping = False

    def _run_step(self, interrupted: Callable[[], bool]) -> RunResult:
        """Execute an instruction, and before it the handlers of interrupts."""
        while True:
            place, self._entered = self._place, None
            result = self._runs.run(1, interrupted, self)
            if self.steps_into_interrupts or self._entered not in _INTERRUPTS - self.caught:
                return result
            self._stepping, self._awaited = False, place
            try:
                self._tell_tier()
                result = self._runs.run(None, interrupted, self)
            finally:
                self._stepping, self._awaited = True, None
            if self._place != place:
                return result

    @property
    def _place(self) -> _Place:
        cpu = self.machine.cpu
        return _Place(cpu.pc, cpu.r[13], cpu.mode, cpu["ttbr0"])

    def _tell_tier(self) -> None:
        self.machine.tier.use_debug_points(self)
        self._told_watchpoints = frozenset(self._watchpoints)

    def _stop(self, result: RunResult) -> Stop:
        """Return the result of a run as gdb is told of it."""
        match result.reason:
            case StopReason.EXITED:
                return Stop(StopSignal.TRAP, None, None, result.message, result.exit_code)
            case StopReason.STOPPED:
                return self._debug_stop(result.exit, result.message)
            case StopReason.INTERRUPTED:
                return Stop(StopSignal.INTERRUPT)
            case StopReason.FUEL if not self._runs.is_at_end:
                return Stop(StopSignal.TRAP)
            case StopReason.FAULT:
                is_access = isinstance(result.exit, DataAbort | PrefetchAbort)
                return Stop(StopSignal.FAULT if is_access else StopSignal.ILLEGAL, message=result.message)
            case _:
                return Stop(StopSignal.TRAP, message=result.message)

    def _debug_stop(self, exit_: VmExit | None, message: str) -> Stop:
        if exit_ is not None:
            self._stopped_at = self._here
        match exit_:
            case BreakpointHit() if self._runs.is_cut:
                return Stop(StopSignal.INTERRUPT)
            case BreakpointHit():
                return Stop(StopSignal.TRAP, self._hit)
            case WatchpointHit(_, gva, size, write):
                found = self._watchpoint_of(gva, size, write)
                if found is not None:
                    return Stop(StopSignal.TRAP, self._watchpoints[found], found.gva)
        return Stop(StopSignal.TRAP, message=message)

    # -- backwards -----------------------------------------------------------------------------

    @property
    def goes_back(self) -> bool:
        """See :class:`dbt.gdb.target.Target`."""
        return self.history is not None

    @property
    def _is_past(self) -> bool:
        return self.history is not None and self.history.is_past

    def step_back(self) -> Stop:
        """See :class:`dbt.gdb.target.Target`. Handlers of interrupts are not left out."""
        assert self.history is not None
        self._stopped_at, self._told_end = None, False
        moved = self.history.step_back(self)
        self._tell_tier()
        return Stop(StopSignal.TRAP, log_end=None if moved else LogEnd.OLDEST)

    def last_write(self, gva: Gva, size: int, interrupted: Callable[[], bool]) -> Hit | None:
        """See :meth:`dbt.vm.history.History.last_write`."""
        assert self.history is not None
        try:
            return self.history.last_write(gva, size, interrupted)
        finally:
            self._tell_tier()

    def seek(self, icount: int, interrupted: Callable[[], bool]) -> bool:
        """See :meth:`dbt.vm.history.History.run_to`."""
        assert self.history is not None
        self._stopped_at, self._told_end = None, False
        found = self.history.run_to(icount, interrupted)
        self._tell_tier()
        return found

    def resume_back(self, interrupted: Callable[[], bool]) -> Stop:
        """See :class:`dbt.gdb.target.Target`."""
        assert self.history is not None
        self._stopped_at, self._told_end = None, False
        if self._behind_access == self._here:
            self.history.step_back(self)  # so that the same access is not found again
            if (stop := self._breakpoint_here()) is not None:
                self._tell_tier()
                return stop
        from dbt.vm.history import SearchInterrupted

        try:
            hit = self.history.last_hit(self, interrupted, self.caught)
            if hit is not None and hit.access is not None:
                self.history.pass_instruction()
        except SearchInterrupted:
            return Stop(StopSignal.INTERRUPT)
        finally:
            self._tell_tier()  # that it stops for them again
        if hit is None:
            return Stop(StopSignal.TRAP, log_end=LogEnd.OLDEST)
        if hit.entered is not None:
            return Stop(StopSignal.TRAP, message=f"{hit.entered.value} after {hit.icount} instructions")
        if hit.access is None:
            return self._breakpoint_here() or Stop(StopSignal.TRAP)
        found = self._watchpoint_of(*hit.access)
        assert found is not None
        self._behind_access = self._here
        return Stop(StopSignal.TRAP, self._watchpoints[found], found.gva)

    def _breakpoint_here(self) -> Stop | None:
        """Return the stop for a breakpoint in front of which the machine has come backwards, or None."""
        self._hit = self._breakpoint_at(Gva(self.machine.cpu.pc))
        if self._hit is None:
            return None
        self._stopped_at = self._here
        return Stop(StopSignal.TRAP, self._hit)

    def is_ended(self) -> bool:
        """See :class:`dbt.gdb.target.Target`."""
        return self._runs.is_ended()

    def restart(self) -> None:
        """See :class:`dbt.gdb.target.Target`."""
        self._note_edit()
        self._runs.note_restart()
        self.machine.restart()

    def monitor(self, words: Sequence[str], interrupted: Callable[[], bool]) -> str:
        """See :class:`dbt.gdb.target.Target`."""
        from dbt.vm.debug_commands import run_command

        return run_command(self, words, interrupted)

    def save(self) -> str:
        """Save the machine as it is, and return where. Raise TargetError if it cannot be."""
        if self._save is None:
            raise TargetError("nobody has said where to: start the run with dbt run --gdb ... --save FILE")
        try:
            return self._save()
        except SaveError as error:
            raise TargetError(f"nothing was saved: {error}") from None

    def detach(self) -> None:
        """See :class:`dbt.gdb.target.Target`. From now on the guest runs as without a debugger."""
        self._breakpoints.clear()
        self._watchpoints.clear()
        self.caught.clear()
        self.limits.clear()
        self.physical = self.steps_into_interrupts = False
        self._tell_tier()

    def translate(self, gva: Gva) -> Gpa | None:
        """Return the physical address of a virtual one by the guest's present page tables, or None."""
        try:
            return self.machine.inspector.locate(gva)
        except BadAddress:
            return None


def _watchpoint(kind: WatchKind, gva: Gva, size: int) -> Watchpoint:
    if not 0 < size <= MAX_WATCHED or not 0 <= gva <= _END - size:
        raise TargetError(f"{size} bytes at {gva:#x} cannot be watched: it is 1 byte to {MAX_WATCHED} bytes of 4 GiB")
    return Watchpoint(gva, size, kind is not WatchKind.WRITE, kind is not WatchKind.READ)
