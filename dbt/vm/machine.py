"""The machine: a virtual CPU, RAM, the board's devices and semihosting, as one object to build, run and close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dbt.abi.addresses import Gpa, Gva
from dbt.board import clock
from dbt.board.loader import Image, read_file
from dbt.board.timeline import Timeline
from dbt.board.versatile import Board
from dbt.engine.observer import NOBODY, Observer
from dbt.engine.tier import JitMode, Tier
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.host.console import Console, HostConsole
from dbt.inspector.symbols import SymbolTable
from dbt.vm.guest import NO_GUEST, Guest, read_kernel, read_program
from dbt.vm.guest_access import GuestAccess
from dbt.vm.input import InputSource
from dbt.vm.options import DEFAULT_MEMORY, JIT_MODES, TIERS, MachineOptions, TierFactory, TierName, silent
from dbt.vm.parts import build_parts
from dbt.vm.result import RunResult
from isa.arm.cpus import CPUS

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DEFAULT_MEMORY", "JIT_MODES", "TIERS", "JitMode", "Machine", "StepObserver", "TierName"]


class StepObserver(Protocol):
    """Who is told of each instruction before and after it is executed, as :mod:`dbt.debug.instruction_log` is."""

    def before_step(self, machine: Machine) -> None: ...

    def after_step(self, machine: Machine, event: str) -> None:
        """``event`` names what the instruction left the guest for, as "data abort"."""


def _gpa(address: int | None) -> Gpa | None:
    return None if address is None else Gpa(address)


def _gva(address: int | None) -> Gva | None:
    return None if address is None else Gva(address)


@dataclass(frozen=True, slots=True)
class _BoundListener:
    """A step observer that is told which machine it is."""

    machine: Machine
    observer: StepObserver

    def before_step(self) -> None:
        self.observer.before_step(self.machine)

    def after_step(self, event: str) -> None:
        self.observer.after_step(self.machine, event)


class Machine(GuestAccess):
    """One virtual ARM machine.

    ``memory`` is the size of its RAM, which begins at address 0, in bytes (a multiple of 4096).
    ``tier`` says what executes its code, by name or as a function that makes a tier; with "auto", ``jit`` says whether
    hot regions are compiled beside the guest, in line ("sync"), or not at all, and ``optimizations`` how; ``dump`` is a
    directory to which the stages of every region that is compiled are written (:mod:`dbt.backend.dump`), and then none
    are taken from the cache directory. ``files`` is the directory whose files the guest may open by
    semihosting; None means none. ``console`` is what its UART and semihosting write to, the process's
    standard streams unless given. ``epoch`` is the time of day at its start, in seconds since 1970.
    ``notice`` is told, in one line each, what the user should know. ``cpu`` is the processor's model; unless
    given, a program has "any" and a kernel the board's. ``semihosting`` says whether SVC 0x123456 reaches the host;
    unless given, a program's does and a kernel's, which any of its processes could use, does not. With ``realtime``,
    what the guest waits takes as long on the host, unless input comes; else its time jumps to what it waits for.
    ``observer`` is told what happens (:mod:`dbt.trace`). Raises ValueError for arguments that make no sense.

    After a reset it is in supervisor mode with interrupts masked, R0 to R12 and LR are 0, and SP is
    the end of RAM.

    It is used by one thread at a time, in the process that made it; anything else is a RuntimeError. :meth:`close`, or
    leaving a ``with`` block, gives back every process, file descriptor and mapping at once.
    """

    def __init__(
        self,
        memory: int = DEFAULT_MEMORY,
        tier: TierName | TierFactory = "auto",
        files: str | None = None,
        console: Console | None = None,
        epoch: int = clock.DEFAULT_EPOCH,
        notice: Callable[[str], None] = silent,
        jit: JitMode = "async",
        optimizations: Optimizations = ALL,
        dump: str | None = None,
        cpu: str | None = None,
        semihosting: bool | None = None,
        realtime: bool = False,
        observer: Observer = NOBODY,
    ) -> None:
        self.options = MachineOptions(memory, tier, files, epoch, jit, optimizations, dump, cpu, semihosting, realtime)
        self.console: Console = console if console is not None else HostConsole()
        super().__init__(build_parts(self.options, self.console, notice, observer))
        self.vcpu, self.semihosting = self._parts.vcpu, self._parts.semihosting
        self._guest = NO_GUEST
        self.reset()

    def __enter__(self) -> Machine:
        self._ownership.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back every process, file descriptor and mapping of the machine, at once. A second call does nothing.

        Afterwards everything but ``icount`` and the counts is a RuntimeError.
        """
        if self._ownership.close():
            self._parts.close()

    def reset(self) -> None:
        """Set registers, devices, time and counts as at power-on. RAM keeps what it holds."""
        self._ownership.check_stopped()
        self.semihosting.reset()
        self.vcpu.reset()
        self._parts.peripherals.reset(holes_read_zero=self._guest.is_kernel)  # choice: no-device
        self._parts.loop.reset()
        guest = self._guest
        if guest.image is not None:
            self.cpu.r[15] = guest.image.entry
        for number, value in enumerate(guest.registers):
            self.cpu.r[number] = value

    # -- programs ------------------------------------------------------------------------------

    def load(self, path: str, base: int | None = None, entry: int | None = None, args: Sequence[str] = ()) -> None:
        """Load an ELF executable, or a flat binary to ``base``, and reset; ImageError if it cannot be.

        ``args`` are the guest's arguments after its own name.
        """
        self.load_bytes(read_file(path, self.ram.size), base, entry, args, path)

    def load_bytes(
        self,
        data: bytes,
        base: int | None = None,
        entry: int | None = None,
        args: Sequence[str] = (),
        path: str = "(bytes)",
    ) -> None:
        """As :meth:`load`, from the bytes of the file."""
        self._ownership.check_stopped()
        self._start(read_program(data, path, self.ram.size, _gpa(base), _gva(entry), args))

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
        self._ownership.check_stopped()
        has_device, size = self.board.bus.has_device, self.ram.size
        guest = read_kernel(
            path, size, lambda gpa: has_device(gpa, 4), initrd, dtb, append, atags, _gpa(base), _gpa(entry)
        )
        self._start(guest)

    def _start(self, guest: Guest) -> None:
        assert guest.image is not None
        self._guest = guest
        self.cpu.use_model(CPUS[self.cpu_model])
        guest.image.place(self.memory)
        self.inspector.use_symbols(SymbolTable(guest.elf))
        self.semihosting.describe_program(guest.command_line, guest.layout)
        self.reset()

    # -- running -------------------------------------------------------------------------------

    def run(
        self, fuel: int | None = None, timeout: float | None = None, trace: StepObserver | None = None
    ) -> RunResult:
        """Execute the guest until it exits or something stops it; then it can be run on from there.

        ``fuel``: instructions to retire at most, exactly. ``timeout``: seconds of host time. An exception, of a signal
        handler, the console or an observer, comes out between two instructions, and the guest can be run on too.
        """
        self._ownership.acquire()
        try:
            return self._parts.loop.run(self, fuel, timeout, None if trace is None else _BoundListener(self, trace))
        finally:
            self._ownership.release()

    def step(self) -> RunResult:
        """Execute one instruction."""
        return self.run(fuel=1)

    def interrupt(self) -> None:
        """Stop the run at the end of its slice, within some milliseconds. For signal handlers and threads."""
        self._parts.loop.interrupt()

    def wait_until(self, tick: int) -> None:
        """Let virtual time pass up to ``tick``, as for a guest that waits. Precondition: the guest is at a WFI."""
        self._ownership.acquire()
        try:
            self._parts.loop.wait_until(tick)
        finally:
            self._ownership.release()

    def attach_input(self, source: InputSource) -> None:
        """Take the guest's input from ``source`` from now on: a recorder, a replay, or something of your own."""
        self._ownership.check()
        self._parts.port.attach(source)

    # -- what it is and where it stands --------------------------------------------------------

    @property
    def tier(self) -> Tier:
        """What executes the code. Made when first needed, as it may have to build native code."""
        self._ownership.check()
        return self.vcpu.tier

    @property
    def tier_name(self) -> str:
        return self.options.tier if isinstance(self.options.tier, str) else self.tier.name

    @property
    def jit(self) -> JitMode:
        return self.options.jit

    @property
    def optimizations(self) -> Optimizations:
        return self.options.optimizations

    @property
    def cpu_model(self) -> str:
        """The processor of the present guest."""
        return self.options.cpu or self._guest.cpu_model

    @property
    def semihosting_enabled(self) -> bool:
        """Whether SVC 0x123456 of the present guest reaches the host."""
        chosen = self.options.semihosting
        return self._guest.semihosting if chosen is None else chosen

    @property
    def is_kernel(self) -> bool:
        return self._guest.is_kernel

    @property
    def image(self) -> Image | None:
        """What was loaded last."""
        return self._guest.image

    @property
    def symbols(self) -> SymbolTable:
        return self.inspector.symbols

    @property
    def board(self) -> Board:
        """The devices, which a reset makes anew."""
        return self._parts.peripherals.board

    @property
    def timeline(self) -> Timeline:
        return self.vcpu.timeline

    @property
    def input_source(self) -> InputSource:
        """Where the guest's input comes from: see :meth:`attach_input`."""
        return self._parts.port.source

    @property
    def icount(self) -> int:
        """The instructions retired since the reset."""
        return self.vcpu.icount

    @property
    def progress(self) -> int:
        """As ``icount``, while a slice runs too."""
        return self.vcpu.progress

    @property
    def retired(self) -> dict[str, int]:
        """See :attr:`dbt.vm.vcpu.Vcpu.retired`."""
        return self.vcpu.retired

    @property
    def event_counts(self) -> Counter[str]:
        """See :attr:`dbt.vm.vcpu.Vcpu.event_counts`."""
        return self.vcpu.event_counts
