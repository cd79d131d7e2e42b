"""Exceptions and interrupts that are entered outside native code.

Native code enters supervisor calls and data aborts by itself. For all others, this module decides whether the guest has
a handler, and enters it by the same routine as native code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dbt.abi.addresses import Gpa
from dbt.abi.cpu import ENTERED_BY_MACHINE, NEVER, CpuState
from dbt.abi.exits import Breakpoint, DataAbort, PrefetchAbort, VmExit
from dbt.engine.tier import Tier
from dbt.memory.guest_memory import GuestMemory
from isa.arm.state import PSR_F, SCTLR_M
from isa.arm.vectors import VECTORS, ExceptionKind


class ExceptionEntry:
    """The exception entry of one virtual CPU. ``tier`` is called when the tier is needed."""

    def __init__(self, cpu: CpuState, memory: GuestMemory, tier: Callable[[], Tier]) -> None:
        self._cpu = cpu
        self._memory = memory
        self._tier = tier
        self._entered: set[ExceptionKind] = set()  # since the last instruction that retired

    def retired(self) -> None:
        """Note that instructions have retired in the slice that has ended, which native code may have noted already."""
        self._entered.clear()

    def forget(self) -> None:
        """Note that the machine has retired an instruction itself, or has been reset."""
        self._entered.clear()
        self._cpu.set_native("last_exception", NEVER)

    @property
    def entered(self) -> list[str]:
        """The names of the exceptions that were entered since the last instruction that retired."""
        return sorted(
            kind.value for kind in self._entered | ({ExceptionKind.DATA_ABORT} if self._taken_natively else set())
        )

    @entered.setter
    def entered(self, names: Iterable[str]) -> None:
        self.forget()
        self._entered = {ExceptionKind(name) for name in names}
        if ExceptionKind.DATA_ABORT in self._entered:
            self._cpu.set_native("last_exception", ENTERED_BY_MACHINE)

    def refusal(self, kind: ExceptionKind) -> str:
        """Return why an exception that an instruction caused cannot be taken, or an empty text if it can.

        The same vector twice with no instruction retired in between would repeat for ever.
        """
        if self._taken_natively:
            self._entered.add(ExceptionKind.DATA_ABORT)
        if self._cpu["sctlr"] & SCTLR_M == 0:
            base = self._tier().call_routine("vector_base")
            assert base is not None
            vector = Gpa(base + VECTORS[kind].offset)
            if not self._memory.in_ram(vector) or not self._memory.load_physical(vector):
                return f"The guest does not handle it (nothing is at its vector {vector:#x}). "
        if kind in self._entered:
            return "Its handler raises the same exception again. "
        return ""

    @property
    def _taken_natively(self) -> bool:
        """Return True if native code has taken a data abort since the last instruction retired."""
        return self._cpu.native("last_exception") == self._cpu.native("budget")

    def take(self, exit_: VmExit, kind: ExceptionKind) -> None:
        """Enter the guest's handler for the exception that an exit stands for."""
        self._report_fault_status(exit_)
        vector = VECTORS[kind]
        link = (exit_.pc + vector.link) & 0xFFFFFFFF
        self._tier().call_routine("enter_exception", vector.mode, vector.offset, link, vector.masks)
        self._entered.add(kind)
        if kind is ExceptionKind.DATA_ABORT:
            self._cpu.set_native("last_exception", ENTERED_BY_MACHINE)

    def take_interrupt(self) -> ExceptionKind | None:
        """Enter the guest's handler for an interrupt, if one is to be taken before the next instruction."""
        takeable = self._cpu.takeable_interrupts
        if not takeable:
            return None
        self._tier().call_routine("take_interrupt", takeable)
        return ExceptionKind.FIQ if takeable & PSR_F else ExceptionKind.IRQ

    def _report_fault_status(self, exit_: VmExit) -> None:
        """Set the fault status and address registers as an abort does (B3.13)."""
        call = self._tier().call_routine
        match exit_:
            case DataAbort(gva=gva, write=write, reason=reason, domain=domain):
                call("report_data_abort", gva, reason | domain << 4, int(write))
            case PrefetchAbort(pc=pc, reason=reason, domain=domain):
                call("report_prefetch_abort", pc, reason | domain << 4)
            case Breakpoint():
                call("report_breakpoint")
