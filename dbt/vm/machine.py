"""The machine: a CPU, RAM, the board's devices and semihosting, and the loop that runs a guest.

The loop gives the tier slices of instructions and answers the exits that come back. Everything a
guest can observe is a function of its image, its arguments, its files and its input; where a slice
ends is not among them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import NEVER, TICK_END, CpuState
from dbt.abi.exits import (
    Breakpoint,
    Budget,
    DataAbort,
    HypervisorCall,
    LeaveGuest,
    PrefetchAbort,
    SecureMonitorCall,
    SupervisorCall,
    ThumbEntry,
    Undefined,
    Unsupported,
    VmExit,
    WaitForInterrupt,
)
from dbt.board import clock
from dbt.board.cpu_models import KERNEL_CPU, PROGRAM_CPU
from dbt.board.loader import Image, read_file, read_image
from dbt.board.timeline import Timeline
from dbt.board.versatile import build_board
from dbt.engine.observer import NOBODY, Observer
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.host.console import Console, HostConsole
from dbt.host.realtime import TIMEOUT_S, RealTime
from dbt.host.semihosting import SEMIHOSTING_SVC, GuestExit, Layout, Semihosting, join_arguments
from dbt.host.streams import InputPending
from dbt.inspector.symbols import SymbolTable
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import PAGE_SIZE, Ram
from dbt.vm.exception_entry import ExceptionEntry
from dbt.vm.input import ConsoleInput, InputSource
from dbt.vm.result import RunResult, StopReason
from dbt.vm.slice_sizer import SliceSizer
from isa.arm.cpus import CPUS
from isa.arm.state import PSR_F, PSR_I, Mode
from isa.arm.vectors import VECTORS, ExceptionKind

if TYPE_CHECKING:
    from dbt.backend.dump import RegionDump
    from dbt.engine.tier import JitMode, Tier
    from dbt.host.jail import FileJail

DEFAULT_MEMORY = 128 << 20
TierName = Literal["auto", "threaded", "reference"]
TIERS: tuple[TierName, ...] = ("auto", "threaded", "reference")
JIT_MODES: tuple[JitMode, ...] = ("async", "sync", "off")

#: The stack that SYS_HEAPINFO keeps free of the heap: this much, or an eighth of a small RAM.
_STACK_SIZE = 8 << 20
_FLUSH_INTERVAL = 0.01
#: After each so many instructions, whether a kernel has halted is looked at: what is seen depends on nothing else.
_HALT_INTERVAL = 1 << 24
_BRANCH_TO_SELF = 0xEAFFFFFE


def _silent(line: str) -> None:
    pass


class StepObserver(Protocol):
    """Who is told of each instruction before and after it is executed, as :mod:`dbt.debug.instruction_log` is."""

    def before_step(self, machine: Machine) -> None: ...

    def after_step(self, machine: Machine, event: str) -> None:
        """``event`` names what the instruction left the guest for, as "data abort"."""


class Machine:
    """One virtual ARM machine.

    ``memory`` is the size of its RAM, which begins at address 0, in bytes (a multiple of 4096).
    ``tier`` says what executes its code; with "auto", ``jit`` says whether hot regions are compiled
    beside the guest, in line ("sync"), or not at all, and ``optimizations`` how; ``dump`` is a directory to
    which the stages of every region that is compiled are written (:mod:`dbt.backend.dump`), and then none
    are taken from the cache directory. ``files`` is the directory whose files the guest may open by
    semihosting; None means none. ``console`` is what its UART and semihosting write to, the process's
    standard streams unless given. ``epoch`` is the time of day at its start, in seconds since 1970.
    ``notice`` is told, in one line each, what the user should know. ``cpu`` is the processor's model; unless
    given, a program has "any" and a kernel the board's. ``semihosting`` says whether SVC 0x123456 reaches the host;
    unless given, a program's does and a kernel's, which any of its processes could use, does not. With ``realtime``,
    what the guest waits takes as long on the host, unless input comes; else its time jumps to what it waits for.
    ``observer`` is told what happens (:mod:`dbt.trace`).

    After a reset it is in supervisor mode with interrupts masked, R0 to R12 and LR are 0, and SP is
    the end of RAM.
    """

    def __init__(
        self,
        memory: int = DEFAULT_MEMORY,
        tier: TierName = "auto",
        files: str | None = None,
        console: Console | None = None,
        epoch: int = clock.DEFAULT_EPOCH,
        notice: Callable[[str], None] = _silent,
        jit: JitMode = "async",
        optimizations: Optimizations = ALL,
        dump: str | None = None,
        cpu: str | None = None,
        semihosting: bool | None = None,
        realtime: bool = False,
        observer: Observer = NOBODY,
    ) -> None:
        if tier not in TIERS:
            raise ValueError(f"there is no tier {tier!r}: use one of {', '.join(TIERS)}")
        if jit not in JIT_MODES:
            raise ValueError(f"there is no JIT mode {jit!r}: use one of {', '.join(JIT_MODES)}")
        if cpu is not None and cpu not in CPUS:
            raise ValueError(f"there is no CPU {cpu!r}: use one of {', '.join(CPUS)}")
        self.console: Console = console if console is not None else HostConsole()
        self.cpu_model = cpu or PROGRAM_CPU
        self.cpu = CpuState(CPUS[self.cpu_model])
        self.ram = Ram(memory)
        self.memory = GuestMemory(self.ram)
        self.epoch = epoch
        self.notice = notice
        self.observer = observer
        self._checkpoint = observer.checkpoint_interval
        self.semihosting = Semihosting(self.memory, self.console, lambda: self.icount, _jail(files), notice, epoch)
        #: Where the guest's input comes from; a recorder or a replay may be put here before a run.
        self.input_source: InputSource = ConsoleInput(self.console)
        self.semihosting.receive = lambda size: self.input_source.read(self._now(), size)
        self.tier_name: TierName = tier
        self.jit: JitMode = jit
        self.optimizations = optimizations
        self.dump = dump
        self.semihosting_enabled = semihosting is not False
        self._chosen_cpu, self._chosen_semihosting = cpu, semihosting
        self._boot_registers: tuple[int, ...] = ()  # what a boot loader sets, from R0 on
        self._is_kernel = False
        self.image: Image | None = None
        self.symbols = SymbolTable()
        self.exit_counts: Counter[str] = Counter()
        self._tier: Tier | None = None
        self._realtime = RealTime() if realtime else None
        self._interrupted = False
        self._unknown_registers: set[tuple[str, str]] = set()  # that the user was told about
        self._reset_requested = False
        self._in_slice = False
        self._skipped = 0
        self._exceptions = ExceptionEntry(self.cpu, self.memory, lambda: self.tier)
        self.reset()

    def reset(self) -> None:
        """Registers, time and counts as at power-on. RAM keeps what it holds."""
        self.cpu.reset()
        self.semihosting.reset()
        self.icount = 0
        self._skipped = 0
        self._completed = 0
        self._build_board()
        self.exit_counts.clear()
        if self._tier is not None:
            self._tier.reset_counts()
        self.cpu.r[13] = min(self.ram.size, 0xFFFFF000)
        if self.image is not None:
            self.cpu.r[15] = self.image.entry
        for number, value in enumerate(self._boot_registers):
            self.cpu.r[number] = value

    def _build_board(self) -> None:
        """Devices as at power-on."""
        self._reset_requested = False
        self.cpu.set_native("interrupt_lines", 0)
        self.timeline = Timeline(self._now)
        self.board = build_board(
            self.console.write,
            self.ram.size,
            self.timeline,
            partial(self._set_line, PSR_I),
            partial(self._set_line, PSR_F),
            self._request_reset,
            self.epoch,
            self._receive,
            holes_read_zero=self._is_kernel,  # choice: no-device
        )
        self.memory.bus = self.board.bus

    # -- virtual time and interrupts -----------------------------------------------------------

    @property
    def progress(self) -> int:
        """The instructions retired so far, while a slice runs too."""
        return self.icount + self.tier.progress if self._in_slice else self.icount

    def _now(self) -> int:
        """Ticks: the instructions retired, and what was skipped while the guest waited."""
        return self.progress + self._skipped

    def _set_line(self, bit: int, level: bool) -> None:
        lines = self.cpu.native("interrupt_lines")
        self.cpu.set_native("interrupt_lines", lines | bit if level else lines & ~bit)

    def _request_reset(self) -> None:
        self._reset_requested = True

    @property
    def reset_requested(self) -> bool:
        """Whether the guest has asked for a reset of the machine, which ends the run."""
        return self._reset_requested

    def _allowance(self) -> int | None:
        """How many instructions the slice still has, that which has just accessed a device included, if the device has
        made them fewer.
        """
        if self._reset_requested or self.cpu.takeable_interrupts:
            return 1
        next_tick = self.timeline.next_tick
        if next_tick is None or next_tick >= self.cpu.native64[TICK_END]:
            return None
        return max(next_tick - self._now(), 1)

    def _receive(self) -> None:
        """Give the UART what has arrived at the console, as far as there is room."""
        uart = self.board.console_uart
        room = uart.room
        if room and (data := self.input_source.poll(self._now(), room)):
            uart.push(data)

    # -- programs ------------------------------------------------------------------------------

    def load(self, path: str, base: int | None = None, entry: int | None = None, args: Sequence[str] = ()) -> None:
        """Load an ELF executable, or a flat binary to ``base``, and reset; ImageError if it cannot be.

        ``args`` are the guest's arguments after its own name.
        """
        self.load_bytes(read_file(path), base, entry, args, path)

    def load_bytes(
        self,
        data: bytes,
        base: int | None = None,
        entry: int | None = None,
        args: Sequence[str] = (),
        path: str = "(bytes)",
    ) -> None:
        """As :meth:`load`, from the bytes of the file."""
        image = read_image(data, path, self.ram.size, base, entry)
        self.cpu_model = self._chosen_cpu or PROGRAM_CPU
        self.semihosting_enabled = self._chosen_semihosting is not False
        self._boot_registers = ()
        self._is_kernel = False
        self._start(image, data if image.is_elf else b"", [path.rpartition("/")[2], *args])

    def load_kernel(
        self,
        path: str,
        initrd: str | None = None,
        dtb: str | None = None,
        append: str = "",
        atags: bool = False,
        base: int | None = None,
        entry: int | None = None,
    ) -> None:
        """Load a kernel as a boot loader does (:mod:`dbt.board.boot`) and reset; ImageError if it cannot be.

        ``path`` is a zImage, uImage, ELF kernel, or a flat image, which goes to ``base``, by default 0x10000 or where
        Linux expects to be; ``initrd`` its initial RAM disk, ``append`` its command line.
        It is told about the board by the device tree ``dtb``, completed with the rest, by one that is made
        of the board's devices, or by ATAGs: where ``atags``, and a flat image that is no Linux, as by QEMU. ``entry``
        overrides the kernel's own.
        """
        if dtb is not None and atags:
            raise ValueError("a kernel is given a device tree or ATAGs, not both")
        from dbt.board.boot import read_boot

        boot = read_boot(
            path,
            self.ram.size,
            initrd,
            dtb,
            append,
            atags,
            lambda gpa: self.board.bus.has_device(Gpa(gpa), 4),
            base,
            entry,
        )
        self.cpu_model = self._chosen_cpu or KERNEL_CPU
        self.semihosting_enabled = self._chosen_semihosting is True
        self._boot_registers = boot.registers
        self._is_kernel = True
        self._start(boot.image, boot.elf, [path.rpartition("/")[2], *append.split()])

    def _start(self, image: Image, elf: bytes, arguments: Sequence[str]) -> None:
        self.cpu.model = CPUS[self.cpu_model]
        image.place(self.memory)
        self.image = image
        self.symbols = SymbolTable(elf)
        self.semihosting.command_line = join_arguments(arguments)
        self.semihosting.layout = self._layout(image)
        self.reset()

    def _layout(self, image: Image) -> Layout:
        top = self.ram.size
        stack_limit = top - min(_STACK_SIZE, top // 8)
        heap = min(-(-image.end // PAGE_SIZE) * PAGE_SIZE, stack_limit)
        return Layout(heap, stack_limit, top, stack_limit)

    # -- what a debugger sees ------------------------------------------------------------------

    @property
    def r(self) -> memoryview[int]:
        """The sixteen registers of the current mode, to read and to write."""
        return self.cpu.r

    @property
    def pc(self) -> int:
        """The address of the next instruction."""
        return self.cpu.r[15]

    @pc.setter
    def pc(self, gva: int) -> None:
        if gva & 3 or not 0 <= gva <= 0xFFFFFFFF:
            raise ValueError(f"{gva:#x} is not the address of an A32 instruction: a 32-bit multiple of 4")
        self.cpu.r[15] = gva

    @property
    def cpsr(self) -> int:
        return self.cpu.cpsr

    @cpsr.setter
    def cpsr(self, value: int) -> None:
        self.cpu.cpsr = value

    def read(self, gpa: int, size: int) -> bytes:
        """``size`` bytes of RAM; ValueError outside it."""
        return self.memory.read_ram(Gpa(gpa), size)

    def write(self, gpa: int, data: bytes) -> None:
        """Write to RAM, code included; ValueError outside it."""
        self.memory.write_ram(Gpa(gpa), data)

    def peek_word(self, gpa: int) -> int | None:
        """The word of RAM at ``gpa``, without asking devices; None outside it."""
        if gpa & 3 or gpa >= self.ram.size:
            return None
        return int.from_bytes(self.ram.bytes[gpa : gpa + 4], "little")

    def peek_code(self, gva: int) -> int | None:
        """The instruction word at a virtual address, as the guest's page tables have it now; None if there is none."""
        try:
            gpa = self.memory.locate(Gva(gva), 4, 0, Gva(gva))
        except LeaveGuest:
            return None
        return self.peek_word(gpa)

    def symbolize(self, gva: int) -> str:
        """``name+0x12``, or the address in hexadecimal where the program has no symbol."""
        return self.symbols.describe(gva)

    def describe_pc(self, pc: int) -> str:
        """``0x00008010 (main+0x10: ldr r0, [r1])``: an address for people."""
        from dbt.inspector.disassembly import disassembler

        found = self.symbols.find(pc)
        word = self.peek_code(pc)
        parts = [self.symbolize(pc)] if found else []
        parts += [disassembler()(word, pc)] if word is not None else []
        return f"{pc:#010x} ({': '.join(parts)})" if parts else f"{pc:#010x}"

    # -- running -------------------------------------------------------------------------------

    @property
    def tier(self) -> Tier:
        """What executes the code. Made when first needed, as it may have to build native code."""
        if self._tier is None:
            self._tier = self._make_tier()
            self._tier.allowance = self._allowance
        return self._tier

    def _make_tier(self) -> Tier:
        if self.tier_name == "reference":
            from dbt.engine.reference import ReferenceTier

            return ReferenceTier(self.cpu, self.memory)
        if self.tier_name == "threaded":
            from dbt.engine.threaded import ThreadedTier

            return ThreadedTier(self.cpu, self.memory, self.notice, self.observer)
        from dbt.engine.region_tier import RegionTier

        return RegionTier(
            self.cpu,
            self.memory,
            self.notice,
            self.jit,
            optimizations=self.optimizations,
            dump=self._open_dump(),
            observer=self.observer,
        )

    def _open_dump(self) -> RegionDump | None:
        if self.dump is None:
            return None
        from dbt.backend.dump import RegionDump
        from dbt.inspector.disassembly import disassembler

        left_out = self.optimizations.describe()
        title = f", without {left_out}" if left_out else ""
        try:
            return RegionDump(self.dump, disassembler, self.symbolize, title)
        except OSError as error:
            self.notice(f"cannot write regions to {self.dump}: {error.strerror}; the run goes on without")
            return None

    @property
    def retired(self) -> dict[str, int]:
        """The instructions of ``icount`` by what executed them: "region", "threaded", "reference", or "machine".

        The machine itself completes supervisor calls; the reference tier, beside another, what has to be emulated.
        """
        return {**(self._tier.retired if self._tier is not None else {}), "machine": self._completed}

    @property
    def event_counts(self) -> Counter[str]:
        """Exits, exceptions and interrupts by name, those taken in native code included."""
        counts = Counter(self.exit_counts)
        for kind, vector in VECTORS.items():
            if taken := self.cpu.native("exceptions", vector.offset >> 2):
                counts[kind.value] += taken
        return counts

    def interrupt(self) -> None:
        """Stop the run at the end of its slice, within some milliseconds. For signal handlers and threads."""
        self._interrupted = True

    def step(self) -> RunResult:
        """Execute one instruction."""
        return self.run(fuel=1)

    def run(
        self, fuel: int | None = None, timeout: float | None = None, trace: StepObserver | None = None
    ) -> RunResult:
        """Execute the guest until it exits or something stops it; then it can be run on from there.

        ``fuel``: instructions to retire at most, exactly. ``timeout``: seconds of host time.
        """
        end = None if fuel is None else self.icount + fuel
        now = time.monotonic()
        deadline = None if timeout is None else now + timeout
        next_flush = now + _FLUSH_INTERVAL
        pace = SliceSizer()
        if self._realtime is not None:
            self._realtime = RealTime()
        tier = self.tier
        self.cpu.set_native("native_exceptions", int(trace is None))
        self.cpu.set_native("semihosting_svc", SEMIHOSTING_SVC if self.semihosting_enabled else NEVER)
        try:
            while True:
                stop = self._limit_reached(end, deadline, now)
                if stop is not None:
                    return stop
                self._do_what_is_due()
                budget = self._slice_length(pace.budget if trace is None else 1, end)
                if trace is not None:
                    trace.before_step(self)
                exit_, retired = self._run_slice(tier, budget)
                self.observer.left_guest(exit_)
                stop = self._answer(exit_)
                if trace is not None:
                    trace.after_step(self, _event_name(exit_))
                if stop is not None:
                    return stop
                before, now = now, time.monotonic()
                if retired == budget:
                    pace.learn(retired, now - before)
                if now >= next_flush:
                    self.console.flush()
                    next_flush = now + _FLUSH_INTERVAL
        finally:
            self.console.flush()

    def _do_what_is_due(self) -> None:
        """Between two instructions: events, input, and an interrupt that is to be taken."""
        self.timeline.run_due()
        if self.board.console_uart.expects_input:
            self._receive()
        kind = self._exceptions.take_interrupt()
        if kind is not None:
            self.exit_counts[kind.value] += 1
            self.observer.interrupted(kind.value)

    def _slice_length(self, budget: int, end: int | None) -> int:
        """Instructions until something else is to be done, at most ``budget``."""
        if end is not None:
            budget = min(budget, end - self.icount)
        budget = min(budget, self._checkpoint - self.icount % self._checkpoint)
        if self._is_kernel:
            budget = min(budget, _HALT_INTERVAL - self.icount % _HALT_INTERVAL)
        return min([budget, *self._ticks_ahead(self._now())])

    def _run_slice(self, tier: Tier, budget: int) -> tuple[VmExit, int]:
        self.cpu.native64[TICK_END] = self._now() + budget
        self._in_slice = True
        try:
            exit_, retired = tier.run(budget)
        finally:
            self._in_slice = False
        self.icount += retired
        if retired:
            self._exceptions.retired()
        return exit_, retired

    def _limit_reached(self, end: int | None, deadline: float | None, now: float) -> RunResult | None:
        if self._interrupted:
            self._interrupted = False
            return self._stopped(StopReason.INTERRUPTED, f"interrupted after {self.icount} instructions")
        if self._reset_requested:
            return RunResult(StopReason.EXITED, 0, self.icount, self.pc, "the guest reset the machine")
        if self._is_kernel and not self.icount % _HALT_INTERVAL and self._has_halted:
            return self._kernel_halted()
        if end is not None and self.icount >= end:
            return self._stopped(StopReason.FUEL, f"the fuel is used up after {self.icount} instructions")
        if deadline is not None and now >= deadline:
            return self._stopped(StopReason.TIMEOUT, f"the time limit passed after {self.icount} instructions")
        return None

    @property
    def _has_halted(self) -> bool:
        """Whether the guest branches to itself and nothing can interrupt it: so kernels halt what has no power switch.

        A program that does so may wait for a debugger, or be a test of one. A watchdog would end the run likewise.
        """
        masks = self.cpu.cpsr & (PSR_I | PSR_F)
        masked = masks == PSR_I | PSR_F or (masks == PSR_I and not self.board.has_fast_interrupts)
        return masked and self.peek_code(self.pc) == _BRANCH_TO_SELF

    def _kernel_halted(self) -> RunResult:
        """One that was interrupted before was up, and has shut down; any other has given up while it booted."""
        message = f"the guest halted the machine: at {self.describe_pc(self.pc)} nothing can interrupt it"
        counts = self.event_counts
        if counts[ExceptionKind.IRQ.value] or counts[ExceptionKind.FIQ.value]:
            return RunResult(StopReason.EXITED, 0, self.icount, self.pc, message)
        return self._stopped(StopReason.HALTED, f"{message}, and nothing did before")

    def _stopped(self, reason: StopReason, message: str, exit_: VmExit | None = None) -> RunResult:
        return RunResult(reason, None, self.icount, self.pc, message, exit_)

    # -- answering exits -----------------------------------------------------------------------

    def _answer(self, exit_: VmExit) -> RunResult | None:
        """Do what the exit asks for; a result if the run is over."""
        match exit_:
            case Budget():
                return None
            case SupervisorCall(immediate=immediate) if immediate == SEMIHOSTING_SVC and self.semihosting_enabled:
                return self._call_semihosting(exit_)
            case SupervisorCall():
                return self._raise(exit_, ExceptionKind.SUPERVISOR_CALL)
            case Undefined():
                self._note_unknown_register(exit_.pc)
                return self._raise(exit_, ExceptionKind.UNDEFINED)
            case HypervisorCall() | SecureMonitorCall():
                return self._raise(exit_, ExceptionKind.UNDEFINED)
            case DataAbort():
                return self._raise(exit_, ExceptionKind.DATA_ABORT)
            case PrefetchAbort() | Breakpoint():
                return self._raise(exit_, ExceptionKind.PREFETCH_ABORT)
            case ThumbEntry() | Unsupported():
                return self._fault(exit_)
            case WaitForInterrupt():
                return self._wait(exit_)
            case _:
                raise AssertionError(f"the run loop has no answer to {exit_}")

    def _call_semihosting(self, exit_: SupervisorCall) -> RunResult | None:
        self.exit_counts["semihosting"] += 1
        cpu = self.cpu
        try:
            answer = self.semihosting.call(cpu.r[0], cpu.r[1])
        except InputPending:
            return None  # The instruction did not complete: it is executed again.
        self._retire(exit_.pc + 4)
        if isinstance(answer, GuestExit):
            message = f"the guest stopped: {answer.reason}" if answer.reason else ""
            return RunResult(StopReason.EXITED, answer.code, self.icount, self.pc, message)
        cpu.r[0] = answer & 0xFFFFFFFF
        return None

    def _retire(self, next_pc: int) -> None:
        """Count the instruction that has just been completed for the guest."""
        self.cpu.r[15] = next_pc & 0xFFFFFFFF
        self.icount += 1
        self._completed += 1
        self._exceptions.retired()

    def _raise(self, exit_: VmExit, kind: ExceptionKind) -> RunResult | None:
        """Take the exception if the guest can handle it."""
        refusal = self._exceptions.refusal(kind)
        if refusal:
            return self._fault(exit_, refusal)
        self.exit_counts[_event_name(exit_)] += 1
        self._exceptions.take(exit_, kind)
        if kind is ExceptionKind.SUPERVISOR_CALL:
            self._retire(self.pc)
        return None

    def _fault(self, exit_: VmExit, context: str = "") -> RunResult:
        from dbt.inspector.fault_report import explain

        what, remedy = explain(exit_, self.ram.size, self.cpu.r[7])
        message = f"guest fault at {self.describe_pc(exit_.pc)}: {what}. {context}{remedy}."
        return self._stopped(StopReason.FAULT, message, exit_)

    def _note_unknown_register(self, pc: int) -> None:
        """Tell the user, once for each, about privileged accesses to registers of CP15 that are not there."""
        word = self.peek_code(pc)
        if word is None or word & 0x0F000F10 != 0x0E000F10 or self.cpu.mode == Mode.USER:
            return
        place = f"{word >> 21 & 7}, c{word >> 16 & 15}, c{word & 15}, {word >> 5 & 7}"
        access = "MRC" if word >> 20 & 1 else "MCR"
        if (access, place) not in self._unknown_registers:
            self._unknown_registers.add((access, place))
            self.notice(
                f"{access} p15, {place} at {pc:#010x}: {self.cpu_model} has no such register, so it is undefined"
            )

    def _wait(self, exit_: VmExit) -> RunResult | None:
        """WFI: go on where a line is up, masked or not (B1.8.13); else let time pass until something may raise one."""
        if self.cpu.native("interrupt_lines"):
            self._retire(exit_.pc + 4)
            return None
        now = self._now()
        wait = min(self._ticks_ahead(now), default=None)
        if wait is not None and self._realtime is None:
            self._skipped += wait
        elif wait is None and (self.input_source.ended or not self.board.console_uart.expects_input):
            return self._halt(exit_)
        else:
            self._sleep(now, wait)
        return None

    def _ticks_ahead(self, now: int) -> list[int]:
        """How far ahead the next event is, and input of which it is known when it comes."""
        ticks = (self.timeline.next_tick, self.input_source.next_delivery)
        return [tick - now for tick in ticks if tick is not None and tick > now]

    def _sleep(self, now: int, wait: int | None) -> None:
        """Leave the host to others until ``wait`` ticks have passed, or input comes, or for as long as is polite.

        With nothing but input to wait for, virtual time goes on only if it is the host's.
        """
        self.console.flush()
        realtime = self._realtime
        if realtime is None:
            self.input_source.wait(TIMEOUT_S)
            return
        left = TIMEOUT_S if wait is None else wait / clock.TICKS_PER_SECOND - realtime.lag(now)
        if left > 0:
            self.input_source.wait(min(left, TIMEOUT_S))
        passed = int(realtime.lag(now) * clock.TICKS_PER_SECOND)
        self._skipped += passed if wait is None else min(passed, wait)

    def _halt(self, exit_: VmExit) -> RunResult:
        from dbt.inspector.fault_report import explain

        what, remedy = explain(exit_, self.ram.size, 0)
        message = f"halted at {self.describe_pc(exit_.pc)}: {what}. {remedy}."
        return self._stopped(StopReason.HALTED, message, exit_)


def _jail(files: str | None) -> FileJail | None:
    if files is None:
        return None
    from dbt.host.jail import FileJail

    return FileJail(files)


def _event_name(exit_: VmExit) -> str:
    """``DataAbort`` as ``data abort``."""
    name = type(exit_).__name__
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
