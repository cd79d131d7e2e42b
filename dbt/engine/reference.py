"""The reference tier, which executes one instruction at a time by evaluating its uops in Python.

It does on concrete values what the specification says of an instruction word. It is the readable definition that the
native tiers are compared with, and the emulator for the instructions that they leave to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.abi.cpu import CpuState
from dbt.abi.exits import (
    BreakpointHit,
    Budget,
    LeaveGuest,
    PrefetchAbort,
    ThumbEntry,
    Undefined,
    Unsupported,
    VmExit,
    WaitForInterrupt,
)
from dbt.engine.evaluator import compile_routine, compile_word
from dbt.engine.shadow_tables import ShadowPage
from dbt.engine.tier import Allowance, unlimited
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.translation import Translation
from isa.arm.callouts import UNSUPPORTED
from isa.arm.faults import AccessKind
from isa.arm.state import LAYOUT

if TYPE_CHECKING:
    from dbt.engine.debug_points import DebugPoints

_ARCHITECTURE = LAYOUT["architecture"].index


class ReferenceTier:
    """Implements :class:`dbt.engine.tier.Tier`, and the callouts that are the hypervisor's own."""

    name = "reference"

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        forget: Callable[[], None] | None = None,
        allowance: Allowance = unlimited,
    ) -> None:
        """``forget`` is for an emulator beside another tier, by whose ``memory`` it translates addresses. It makes that
        tier forget its translations.
        """
        self.cpu = cpu
        self.memory = memory
        self._allowance = allowance
        self.callouts: Counter[str] = Counter()
        self.callout_places: Counter[Gpa] = Counter()
        self._place = Gpa(0)  # GPA of the current instruction
        self._code = memory.ram.bytes.cast("I")
        self._retired = 0
        self._progress = 0
        if forget is None:
            walk = partial(compile_routine("translate"), cpu.r, cpu.words, memory)
            translation = Translation(cpu, walk, keep=True)
            memory.connect(translation, self)
            forget = translation.forget
        self._forget = forget
        self._debug_points: DebugPoints | None = None
        self._accesses_before = 0  # device accesses of all instructions before the present one

    @property
    def retired(self) -> dict[str, int]:
        return {"reference": self._retired}

    @property
    def progress(self) -> int:
        return self._progress

    @property
    def regions(self) -> None:
        """This tier makes no regions."""
        return None

    @property
    def stitching(self) -> None:
        """This tier does not stitch."""
        return None

    @property
    def stitch_log(self) -> None:
        """This tier does not stitch."""
        return None

    def native_symbols(self) -> Iterator[tuple[Hva, int, str]]:
        """This tier has no native code."""
        return iter(())

    def is_decoded(self, gpa: Gpa) -> bool:
        """Return False: this tier keeps no record of what it executed."""
        return False

    def branch_targets(self) -> Iterator[tuple[Gpa, Gva]]:
        """Return nothing: this tier does not note branch targets."""
        return iter(())

    def shadow_pages(self) -> Iterator[tuple[int, Iterator[ShadowPage]]]:
        """This tier has no shadow page tables."""
        return iter(())

    def rest(self, deep: bool) -> None:
        """Nothing is kept that can be made again."""

    def close(self) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        self.memory.disconnect()
        self._code.release()

    # -- implements dbt.memory.dirty_log.Executor ------------------------------------------------

    def begin_epoch(self) -> None:
        """Every store of this tier gives notice."""

    def forget_stores(self, page: int) -> None:
        """Every store of this tier looks at the flags."""

    def undo_stores(self) -> bool:
        """Leave it to the log: this tier has no native code."""
        return False

    def roll_back(self, recent: bool) -> None:
        """Forget translations that were kept."""
        self._forget()

    def reset_counts(self) -> None:
        self._retired = 0
        self.callouts.clear()
        self.callout_places.clear()

    def step(self) -> None:
        """Execute the instruction at ``cpu.r[15]``. Raises LeaveGuest if it cannot be completed.

        The registers are then as they were before it, and ``cpu.r[15]`` is the address in the exit.
        """
        cpu, memory = self.cpu, self.memory
        pc = Gva(cpu.r[15] & 0xFFFFFFFC)
        self._accesses_before = memory.device_accesses
        try:
            self._place = gpa = self._locate_code(pc)
            execute = compile_word(self._code[gpa >> 2], cpu.words[_ARCHITECTURE])
            cpu.r[15] = execute(cpu.r, cpu.words, memory.load, memory.store, self, pc)
            self._retired += 1
        except LeaveGuest as leave:
            cpu.r[15] = leave.exit.pc
            raise

    def run(self, budget: int) -> tuple[VmExit, int]:
        memory, points = self.memory, self._debug_points
        accesses = memory.device_accesses
        for self._progress in range(budget):
            if self.cpu.takeable_interrupts:
                return Budget(self.cpu.pc), self._progress
            if points is not None and self.cpu.r[15] in points.breakpoints and points.stops_at(self.cpu.pc):
                return BreakpointHit(self.cpu.pc), self._progress
            try:
                self.step()
            except LeaveGuest as leave:
                return leave.exit, self._progress
            if memory.device_accesses != accesses:
                accesses = memory.device_accesses
                if self._allowance() is not None:
                    return Budget(self.cpu.pc), self._progress + 1
        return Budget(self.cpu.pc), budget

    def use_debug_points(self, points: DebugPoints) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        from dbt.engine.debug_points import access_hook

        self._debug_points = points
        self.memory.watch(access_hook(points, self.has_accessed))

    def has_accessed(self) -> bool:
        """Return True if the instruction that is being executed has accessed a device."""
        return self.memory.device_accesses != self._accesses_before

    def fetch(self, pc: Gva) -> int:
        """Return the instruction word at the GVA ``pc``, a multiple of 4."""
        return self._code[self._locate_code(pc) >> 2]

    def _locate_code(self, pc: Gva) -> Gpa:
        gpa = self.memory.locate(pc, 4, AccessKind.EXECUTE, pc)
        if gpa not in self.memory.ram:
            raise LeaveGuest(PrefetchAbort(pc))
        return gpa

    def call_routine(self, name: str, *arguments: int) -> int | None:
        """Call a routine of the architecture: see :mod:`isa.ir.routines`."""
        result: int | None = compile_routine(name)(self.cpu.r, self.cpu.words, self.memory, *arguments)
        return result

    # -- callouts ------------------------------------------------------------------------------

    def count_place(self) -> None:
        self.callout_places[self._place] += 1

    def count(self, name: str, pc: Gva) -> None:
        self.callouts[name] += 1

    def enter_thumb(self, pc: Gva, target: Gva) -> None:  # choice: no-thumb
        raise LeaveGuest(ThumbEntry(pc, target))

    def unsupported(self, pc: Gva, what: int) -> None:
        raise LeaveGuest(Unsupported(pc, UNSUPPORTED[what]))

    def wait_for_interrupt(self, pc: Gva) -> None:
        raise LeaveGuest(WaitForInterrupt(pc))

    def translate_address(self, pc: Gva, mva: Gva, access: int) -> None:
        translation = self.memory.translation
        found = mva if translation is None else translation.walk(mva, access)
        self.call_routine("report_translation", found & 0xFFFFFFFF, found >> 32)

    def read_private(self, pc: Gva, number: int) -> int:
        value = self.memory.read_private(number)
        if value is None:
            raise LeaveGuest(Undefined(pc))  # a processor without the peripheral
        return value

    def read_lines(self, pc: Gva) -> int:
        return self.cpu.native("interrupt_lines")

    def write_private(self, pc: Gva, number: int, low: int, high: int) -> None:
        if not self.memory.write_private(number, low, high):
            raise LeaveGuest(Undefined(pc))

    def regime_changed(self, pc: Gva) -> None:
        self._forget()

    def tlb_flush(self, pc: Gva) -> None:
        self.regime_changed(pc)

    def tlb_flush_page(self, pc: Gva, mva: Gva) -> None:
        self.regime_changed(pc)
