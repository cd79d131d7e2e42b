"""The threaded tier, which executes predecoded ops by native handlers that tail-call each other.

Python takes part only when native code leaves: to make a code page, to access a device, or to return an exit to the
run loop.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol

from dbt.abi import exits
from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.abi.cpu import (
    ENTERED_BY_MACHINE,
    NATIVE,
    NATIVE_EXCEPTIONS,
    NEVER,
    SEMIHOSTING_SLOT,
    SLICE_END,
    TICK_END,
    WAITED,
    WAITS,
    CpuState,
)
from dbt.abi.device_windows import WINDOW_WORDS, window_word
from dbt.abi.exits import ExitCode, Heat, LeaveGuest, VmExit
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import PAGE_SHIFT, TARGET_ENTRIES
from dbt.engine.code_pages import CodePages
from dbt.engine.native import NativeCode
from dbt.engine.observer import NOBODY, Observer
from dbt.engine.shadow_tables import ShadowPage, ShadowTables
from dbt.engine.stale_pages import StalePages
from dbt.engine.stitched import StitchActivity, StitchedCode, Thresholds
from dbt.engine.tier import Allowance, HostCall, unanswered, unlimited
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.translation import Translation
from isa.arm.faults import AccessKind, Fault
from isa.arm.state import LAYOUT

if TYPE_CHECKING:
    from dbt.engine.debug_points import DebugPoints, NativeDebugPoints
    from dbt.engine.reference import ReferenceTier
    from dbt.engine.stitch_log import StitchLog

_BUDGET = NATIVE["budget"].offset // 8
_EXIT_ARGS = NATIVE["exit_args"].offset // 8
_MMIO_COUNT, _MMIO_CURSOR, _MMIO_VALUE = (NATIVE[f"mmio_{name}"].offset // 4 for name in ("count", "cursor", "value"))
_EXIT_KIND, _LAST_EXCEPTION = NATIVE["exit_kind"].offset // 4, NATIVE["last_exception"].offset // 8
_WINDOWS = NATIVE["windows"].offset // 8
_STALE_COUNT = NATIVE["stale_count"].offset // 4
_ARCHITECTURE = LAYOUT["architecture"].index
#: The numbers of exits by name, for the loop that answers them. To look up a member of an enumeration takes 50 ns.
_CODES = SimpleNamespace(**{code.name: int(code) for code in ExitCode})
#: A run ends early after this many exits that Python answered, so that it takes some tens of milliseconds at most.
MAX_ANSWERS = 1000


def _fault(status: int) -> tuple[Fault, int]:
    """Return fault and domain of a walk's status."""
    return Fault(status & 15), status >> 4 & 15


def notify(line: str) -> None:
    print(f"dbt: {line}", file=sys.stderr)


class CodeListener(Protocol):
    """A listener that is told of hot code, and of writes to code before they are done."""

    def code_is_hot(self, gva: Gva, gpa: Gpa, heat: Heat) -> None:
        """Hear that an op has become warm or hot."""

    def breakpoint_is_set(self, gpa: Gpa) -> None:
        """Hear that the guest is to stop at a word. Nothing may keep code that was made from it."""

    def breakpoint_is_cleared(self) -> None:
        """Hear that the guest is no longer to stop at some words."""

    def guest_writes_code(self, gpa: Gpa, size: int) -> None:
        """Hear that the guest is about to store to words that regions were made from."""

    def host_writes(self, gpa: Gpa, size: int) -> None:
        """Hear that the hypervisor is about to write to pages that have code."""

    def code_page_is_given_up(self, page: int) -> None:
        """Hear that a page of RAM, by its number, has no code page any more. Its ops must not be reached from anywhere:
        what leads to one of them is to be dropped. No region was made from the page. The guest does not execute.
        """


class _NoListener:
    def code_is_hot(self, gva: Gva, gpa: Gpa, heat: Heat) -> None:
        pass

    def breakpoint_is_set(self, gpa: Gpa) -> None:
        pass

    def breakpoint_is_cleared(self) -> None:
        pass

    def guest_writes_code(self, gpa: Gpa, size: int) -> None:
        raise AssertionError("there are no regions")

    def host_writes(self, gpa: Gpa, size: int) -> None:
        pass

    def code_page_is_given_up(self, page: int) -> None:
        pass


_NO_LISTENER = _NoListener()


class ThreadedTier:
    """Executes the instructions of one virtual CPU natively: see :class:`dbt.engine.tier.Tier`.

    It registers with ``memory``, so that the hypervisor's own writes undo predecoded ops too.
    """

    name = "threaded"

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        notice: Callable[[str], None] = notify,
        observer: Observer = NOBODY,
        allowance: Allowance = unlimited,
        listener: CodeListener = _NO_LISTENER,
        stitch: bool = False,
        host_call: HostCall = unanswered,
        thresholds: Thresholds | None = None,
    ) -> None:
        """With ``stitch``, warm code is stitched: see :mod:`dbt.backend.stitcher`. ``thresholds`` say when the listener
        hears of stitched code; without them it never does.

        If the observer hears of exits, ``host_call`` is not used.
        """
        self._observer = observer
        self._cpu = cpu
        self._memory = memory
        self._allowance = allowance
        self._host_call = unanswered if observer.hears_exits else host_call
        self._listener = listener
        self.native = native = NativeCode.share(notice)
        self.code_pages = CodePages(cpu, memory.ram, native)
        self._stale_pages = StalePages(cpu, self.code_pages, listener.code_page_is_given_up)
        self.shadow_tables = ShadowTables(cpu, memory.ram.address, self.code_pages.address)
        self.targets = HostRange(8 * TARGET_ENTRIES)
        self._tell_native_code()
        self.stitched: StitchedCode | None = None
        if stitch:
            measures, logs = observer.wants_stitched_insns, observer.wants_stitch_log
            self.stitched = StitchedCode(cpu, native, thresholds, measures, logs)
        self._routines: dict[str, Callable[..., int]] = {}  # the routines that were called
        self._enter = native.function("enter")
        self._flush = native.function("tlb_flush")
        self._choose_space = native.function("regime_changed")
        self._begin_epoch, self._forget_epoch = native.function("begin_epoch"), native.function("forget_epoch")
        self._forget_writes = native.function("forget_writes", ctypes.c_uint64)
        self._undo_stores = native.function("undo_stores")
        walk = native.function("translate", ctypes.c_uint32, ctypes.c_uint32, result=ctypes.c_uint64)
        self.debug_points: NativeDebugPoints | None = None  # there is a debugger, or was
        # Native code keeps its translations in the shadow page tables.
        memory.connect(Translation(cpu, partial(walk, cpu.address), keep=False), self, self._host_writes)
        self._accessed_at = -1  # the tick of the last instruction whose device access Python made
        self._decoded_for = cpu.words[_ARCHITECTURE]  # the architecture for which ops have been decoded
        self._began = 0  # the tick at which the slice began, without those in which the guest waited
        self._retired = 0  # by whatever means
        self._emulated = 0
        self._called = 0  # instructions that host_call has completed, and waits: the machine counts them as its own
        self._closed = False

    def _tell_native_code(self) -> None:
        """Write the addresses of everything that native code uses into CpuState."""
        ram, native = self._memory.ram, self.native
        for name, address in (
            ("ram_host", ram.address),
            ("page_flags", ram.page_flags_address),
            ("dirty_log", ram.dirty_log.address),
            ("code_pages", self.code_pages.address),
            ("targets", self.targets.address),
            ("image", native.address),
            ("image_size", native.size),
            ("host_clock", native.host_clock),
            *((name, native.entry(name)) for name in ("arrive", "bypass", "writable", "code_at")),
            *native.decoder_tables(),
        ):
            self._cpu.set_native(name, address)

    # -- running -------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[VmExit, int]:
        """See :meth:`dbt.engine.tier.Tier.run`."""
        self._check_open()
        if self._decoded_for != self._cpu.words[_ARCHITECTURE]:
            self._decoded_for = self._cpu.words[_ARCHITECTURE]
            self.code_pages.forget_all()  # the architecture decides which words are instructions
        if self._cpu.takeable_interrupts:
            return exits.Budget(self._cpu.pc), 0
        try:
            exit_, retired = self._run(budget)
        except BaseException:
            self._retired += self.progress
            raise
        finally:
            self._called += self._cpu.native64[WAITS]
        self._retired += retired
        return exit_, retired

    def _check_open(self) -> None:
        """Raise RuntimeError after :meth:`close`: the memory of the native code and of its tables is gone."""
        if self._closed:
            raise RuntimeError("this tier has been closed")

    def begin_slice(self) -> None:
        """Set the counts so that no instruction of the slice has retired, until native code is entered."""
        self._began = self._now - self._cpu.native64[WAITED]

    @property
    def _now(self) -> int:
        """The virtual time in ticks. Native code may move the budget and its end, but both together."""
        words = self._cpu.native64
        return words[TICK_END] - words[_BUDGET]

    @property
    def progress(self) -> int:
        return self._now - self._cpu.native64[WAITED] - self._began

    @property
    def retired(self) -> dict[str, int]:
        """See :class:`dbt.engine.tier.Tier`. The count ``reference`` has what the emulator executed.

        Where it is not measured what stitched code executes, ``threaded`` has that too.
        """
        found = {"threaded": self._retired - self._emulated - self._called, "reference": self._emulated}
        stitched = None if self.stitched is None else self.stitched.retired
        return found if stitched is None else {"stitched": stitched, **found, "threaded": found["threaded"] - stitched}

    @property
    def callouts(self) -> dict[str, int]:
        counts = {name: self._cpu.native("callout_counts", at) for at, name in enumerate(self.native.callouts)}
        return {name: count for name, count in counts.items() if count}

    @property
    def callout_places(self) -> dict[Gpa, int]:
        """See :class:`dbt.engine.tier.Tier`."""
        self._check_open()
        return self.code_pages.callout_places()

    @property
    def regions(self) -> None:
        """This tier makes no regions."""
        return None

    @property
    def stitching(self) -> StitchActivity | None:
        """See :class:`dbt.engine.tier.Tier`."""
        return None if self.stitched is None else self.stitched.activity

    @property
    def stitch_log(self) -> StitchLog | None:
        """See :class:`dbt.engine.tier.Tier`."""
        return None if self.stitched is None else self.stitched.log

    def native_symbols(self) -> Iterator[tuple[Hva, int, str]]:
        """See :class:`dbt.engine.tier.Tier`."""
        self._check_open()
        return self.native.symbols()

    def is_decoded(self, gpa: Gpa) -> bool:
        """See :class:`dbt.engine.tier.Tier`."""
        self._check_open()
        return self.code_pages.is_decoded(gpa)

    def branch_targets(self) -> Iterator[tuple[Gpa, Gva]]:
        """See :class:`dbt.engine.tier.Tier`. Of the pairs that share an entry, the table keeps the newest."""
        self._check_open()
        for entry in self.targets.view().cast("Q")[:TARGET_ENTRIES].tolist():
            gpa = self.code_pages.find_op(entry & 0xFFFFFFFF) if entry else None
            if gpa is not None:
                yield gpa, Gva(entry >> 32)

    def shadow_pages(self) -> Iterator[tuple[int, Iterator[ShadowPage]]]:
        """See :class:`dbt.engine.tier.Tier`."""
        self._check_open()
        return self.shadow_tables.pages()

    def reset_counts(self) -> None:
        self._check_open()
        self.code_pages.reset_callouts()
        self._retired = self._emulated = self._called = 0
        if self.stitched is not None:
            self.stitched.reset_counts()
        for name in ("callout_counts", "exceptions", "fills", "device_answers", "events_rung", "hypercalls"):
            for number in range(NATIVE[name].count):
                self._cpu.set_native(name, 0, number)

    def call_routine(self, name: str, *arguments: int) -> int | None:
        """Call a routine: see :mod:`isa.ir.routines`. The result is undefined if the routine has none."""
        self._check_open()
        function = self._routines.get(name)
        if function is None:
            types = [ctypes.c_uint32] * len(arguments)
            function = self._routines[name] = self.native.function(name, *types, result=ctypes.c_uint64)
        result: int = function(self._cpu.address, *arguments)
        return result

    def _run(self, budget: int) -> tuple[VmExit, int]:
        cpu, address = self._cpu, self._cpu.address
        words, halves = cpu.native64, cpu.native32
        entered = words[_LAST_EXCEPTION] in (ENTERED_BY_MACHINE, words[_BUDGET])  # and nothing has retired since
        words[_LAST_EXCEPTION] = budget if entered else NEVER
        words[_BUDGET] = budget
        self.begin_slice()
        halves[_MMIO_COUNT] = halves[_MMIO_CURSOR] = 0
        self._accessed_at = -1
        self._choose_space(address)
        if halves[_STALE_COUNT]:
            self._stale_pages.give_up()
        if self.stitched is not None:
            self.stitched.leave_written()
        semihosting = words[SEMIHOSTING_SLOT] if halves[NATIVE_EXCEPTIONS] else NEVER
        answers = 0
        while True:
            self._enter(address)
            answers += 1
            match halves[_EXIT_KIND]:
                case _CODES.BUDGET:  # by far the most frequent, so it comes first
                    return exits.Budget(cpu.pc), self.progress
                case _CODES.DEVICE_READ | _CODES.DEVICE_WRITE as kind if (
                    answers <= MAX_ANSWERS or self._now == self._accessed_at
                ):
                    if not self._answer_device(kind):
                        return self._exit(ExitCode(kind)), self.progress
                    if (left := self._allowance()) is not None:
                        self._shorten(left)
                case _CODES.SUPERVISOR_CALL if words[_EXIT_ARGS] == semihosting:
                    if answers > MAX_ANSWERS:
                        return exits.Budget(cpu.pc), self.progress
                    if not self._host_call():
                        return self._exit(ExitCode.SUPERVISOR_CALL), self.progress
                    words[_BUDGET] -= 1
                    self._called += 1
                    if words[SLICE_END] < words[TICK_END]:  # the call was charged
                        self._shorten(max(words[SLICE_END] - self._now, 0))
                case _CODES.DEVICE_READ | _CODES.DEVICE_WRITE:
                    return exits.Budget(cpu.pc), self.progress
                case _CODES.TRAP if answers > MAX_ANSWERS and self._now != self._accessed_at:
                    return exits.Budget(cpu.pc), self.progress
                case _CODES.BREAK | _CODES.WATCH as kind:
                    exit_ = self._debug_stop(kind)
                    if exit_ is None:
                        exit_ = exits.Budget(cpu.pc) if answers > MAX_ANSWERS else self._emulate()
                    if exit_ is not None:
                        return exit_, self.progress
                case _CODES.HOT:
                    gpa = self.code_pages.gpa_of(Hva(cpu.native("exit_args", 0)))
                    self._listener.code_is_hot(cpu.pc, gpa, Heat(cpu.native("exit_args", 1)))
                case _CODES.CODE_WRITE:
                    self._listener.guest_writes_code(Gpa(cpu.native("exit_args", 0)), cpu.native("exit_args", 1))
                case _CODES.TRAP:
                    if self.debug_points is not None and self.debug_points.stops_emulation(cpu.pc):
                        return exits.BreakpointHit(cpu.pc), self.progress
                    if (exit_ := self._emulate()) is not None:
                        return exit_, self.progress
                case _CODES.ARM:
                    assert self.debug_points is not None
                    self.debug_points.arm(Gva(words[_EXIT_ARGS]), Gpa(words[_EXIT_ARGS + 1]))
                case code:
                    return self._exit(ExitCode(code)), self.progress

    def _emulate(self) -> VmExit | None:
        """Execute the instruction at the PC by the emulator. Return an exit if the slice is over.

        Device accesses that it has made already are not made again.
        """
        accesses = self._memory.device_accesses
        if answered := self._answered:
            self._memory.replay(self._cpu.native32[_MMIO_VALUE : _MMIO_VALUE + answered].tolist())
        try:
            self._emulator.step()
        except LeaveGuest as leave:
            return leave.exit
        finally:
            if answered:
                self._memory.replay([])
        self._cpu.native64[_BUDGET] -= 1
        self._emulated += 1
        accessed = self._memory.device_accesses != accesses
        if self._cpu.takeable_interrupts or (accessed and self._allowance() is not None):
            return exits.Budget(self._cpu.pc)
        return None

    def _shorten(self, left: int) -> None:
        """Limit the slice to that many more instructions, including the current one."""
        words = self._cpu.native64
        less = words[_BUDGET] - left
        if less > 0:
            words[TICK_END] -= less
            words[_BUDGET] = left

    @cached_property
    def _emulator(self) -> ReferenceTier:
        """The emulator of sensitive instructions. It is made late, because many guests have none."""
        from dbt.engine.reference import ReferenceTier

        return ReferenceTier(self._cpu, self._memory, self._forget)

    def _forget(self) -> None:
        """Flush the shadow page tables, after the emulator has executed a TLB operation."""
        self._flush(self._cpu.address)
        self._choose_space(self._cpu.address)

    def _exit(self, code: ExitCode) -> VmExit:
        pc = self._cpu.pc
        first, second, third, fourth = self._cpu.native64[_EXIT_ARGS : _EXIT_ARGS + 4]
        match code:
            case ExitCode.PREFETCH_ABORT:
                return exits.PrefetchAbort(pc, *_fault(first))
            case ExitCode.UNDEFINED:
                return exits.Undefined(pc)
            case ExitCode.SUPERVISOR_CALL:
                return exits.SupervisorCall(pc, first)
            case ExitCode.BREAKPOINT:
                return exits.Breakpoint(pc, first)
            case ExitCode.HYPERVISOR_CALL:
                return exits.HypervisorCall(pc, first)
            case ExitCode.SECURE_MONITOR_CALL:
                return exits.SecureMonitorCall(pc, first)
            case ExitCode.THUMB:
                return exits.ThumbEntry(pc, Gva(first))
            case ExitCode.UNSUPPORTED:
                from isa.arm.callouts import UNSUPPORTED

                return exits.Unsupported(pc, UNSUPPORTED[first])
            case ExitCode.WAIT:
                return exits.WaitForInterrupt(pc)
            case ExitCode.DATA_ABORT:
                return exits.DataAbort(pc, Gva(first), second, bool(third), *_fault(fourth))
            case ExitCode.DEVICE_READ | ExitCode.DEVICE_WRITE:
                return exits.DataAbort(pc, Gva(fourth), second, code == ExitCode.DEVICE_WRITE, Fault.EXTERNAL)
            case _:
                raise AssertionError(f"{code!r} is answered in run")

    # -- a debugger ----------------------------------------------------------------------------

    def use_debug_points(self, points: DebugPoints) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        from dbt.engine.debug_points import DebugHooks, NativeDebugPoints, access_hook

        self._check_open()
        if self.debug_points is None:
            restore = self._listener.breakpoint_is_cleared
            hooks = DebugHooks(self._drop_code_of, restore, self._forget, self._locate_code)
            self.debug_points = NativeDebugPoints(points, self._cpu, self.code_pages, hooks)
        self.debug_points.use(points)
        self._memory.watch(access_hook(points, self._has_accessed))

    def _debug_stop(self, kind: int) -> VmExit | None:
        """Return the exit of a breakpoint or an access that is watched, if the debugger wants the guest to stop.

        An instruction that has accessed a device is completed, because the access must not be made again.
        """
        assert self.debug_points is not None
        pc, points = self._cpu.pc, self.debug_points.points
        if kind == ExitCode.BREAK:
            if points.stops_at(pc):
                return exits.BreakpointHit(pc)
            self.debug_points.disarm_stale(pc)
            return None
        if self._answered:
            return None
        place, size, write, _ = self._cpu.native64[_EXIT_ARGS : _EXIT_ARGS + 4]
        gva, is_write = Gva(place), bool(write)
        return exits.WatchpointHit(pc, gva, size, is_write) if points.stops_for(gva, size, is_write) else None

    def _has_accessed(self) -> bool:
        return bool(self._answered) or self._emulator.has_accessed()

    def _drop_code_of(self, gpa: Gpa) -> None:
        """Drop regions and stitched code that were made from a word, which is to have a breakpoint."""
        self._listener.breakpoint_is_set(gpa)
        if self.stitched is not None:
            self.stitched.drop_page(gpa >> PAGE_SHIFT)

    def _locate_code(self, gva: Gva) -> Gpa | None:
        """Return the GPA in RAM from which an instruction at a GVA would be fetched now, or None."""
        try:
            gpa = self._memory.locate(gva, 4, AccessKind.EXECUTE, gva)
        except LeaveGuest:
            return None
        return gpa if gpa in self._memory.ram else None

    # -- exits that are answered here ----------------------------------------------------------

    def _answer_device(self, kind: int) -> bool:
        """Make the device access for which native code left, and latch its result. Return False if there is no device.

        Answers to earlier accesses of the same instruction are kept, and those of other instructions dropped. The
        time tells them apart, because every instruction takes a tick.
        """
        # Some guests do little else, so the slots are not looked up by name here.
        words, halves, memory = self._cpu.native64, self._cpu.native32, self._memory
        gpa, size = Gpa(words[_EXIT_ARGS]), words[_EXIT_ARGS + 1]
        if not memory.bus.covers(gpa, size):
            return False
        now = words[TICK_END] - words[_BUDGET]
        answered = halves[_MMIO_COUNT] if now == self._accessed_at else 0
        self._accessed_at = now
        is_write = kind == _CODES.DEVICE_WRITE
        if is_write:
            value = words[_EXIT_ARGS + 2]
            memory.write_device(gpa, size, value)
        else:
            value = memory.read_device(gpa, size)
        if words[_WINDOWS + window_word(gpa)] != (gpa >> PAGE_SHIFT) + 1:
            self._open_window(gpa)
        self._observer.device_accessed(gpa, size, value, is_write)
        halves[_MMIO_VALUE + answered] = value & 0xFFFFFFFF
        halves[_MMIO_COUNT] = answered + 1
        halves[_MMIO_CURSOR] = 0
        return True

    @property
    def _answered(self) -> int:
        """The device accesses of the present instruction that Python has made. Their answers are in CpuState."""
        return self._cpu.native32[_MMIO_COUNT] if self._now == self._accessed_at else 0

    def _open_window(self, gpa: Gpa) -> None:
        """Let native code make the next accesses to the device there, if it can."""
        found = self._memory.bus.native_device(gpa)
        at = _WINDOWS + window_word(gpa)
        words = (0, 0, 0) if found is None else found
        self._cpu.native64[at : at + WINDOW_WORDS] = array("Q", ((gpa >> PAGE_SHIFT) + 1, *words))

    def _host_writes(self, gpa: Gpa, size: int) -> None:
        """Reset the ops of words in RAM that the hypervisor is about to write."""
        self._listener.host_writes(gpa, size)
        self.code_pages.invalidate(gpa, size)

    # -- implements dbt.memory.dirty_log.Executor ------------------------------------------------

    def begin_epoch(self) -> None:
        """Null the entries of the shadow page tables for stores."""
        self._begin_epoch(self._cpu.address)

    def forget_stores(self, page: int) -> None:
        """Null the entries for stores to the page."""
        self._forget_writes(self._cpu.address, self._memory.ram.address + (page << PAGE_SHIFT))

    def undo_stores(self) -> bool:
        """Do it in native code."""
        self._undo_stores(self._cpu.address)
        return True

    def roll_back(self, recent: bool) -> None:
        """Null these, and what was filled from page tables that the guest had not written then."""
        (self._forget_epoch if recent else self._flush)(self._cpu.address)

    def rest(self, deep: bool) -> None:
        """See :meth:`dbt.engine.tier.Tier.rest`."""
        if deep:
            self._stale_pages.give_up_all()
            if self.stitched is not None:
                self.stitched.give_back()
        self._forget()
        self.shadow_tables.give_back()

    @property
    def cpu_address(self) -> Hva:
        """The HVA of CpuState."""
        return self._cpu.address

    def close(self) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        if self._closed:
            return
        self._closed = True
        self._memory.disconnect()
        if self.debug_points is not None:
            self.debug_points.close()
        self.shadow_tables.close()
        self.code_pages.close()
        self.targets.close()
        if self.stitched is not None:
            self.stitched.close()
        self.native.close()
