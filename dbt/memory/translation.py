"""Translation of guest virtual to guest physical addresses for Python code, by the guest's page tables."""

from __future__ import annotations

from collections.abc import Callable

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import CpuState
from dbt.abi.exits import DataAbort, LeaveGuest, PrefetchAbort
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from isa.arm.faults import FAULT_MASK, PARTIAL, AccessKind, Fault
from isa.arm.state import LAYOUT, PSR_MODE, SCTLR_M, Mode

#: The compiled :func:`isa.arm.vmsa.translate`: a function from address and access to its 64-bit result.
Walk = Callable[[Gva, int], int]

_SCTLR, _PSR = LAYOUT["sctlr"].index, LAYOUT["psr"].index


class Translation:
    """The translation of one virtual CPU.

    With ``keep``, results are kept until :meth:`forget`, which must be called when the guest executes TLB maintenance.
    """

    def __init__(self, cpu: CpuState, walk: Walk, *, keep: bool) -> None:
        self._keep = keep
        self._words = cpu.words
        self.walk = walk
        self._known: dict[tuple[int, int], Gpa] = {}  # by page and access: the page in physical memory

    def locate(self, gva: Gva, size: int, access: int, pc: Gva, *, anew: bool = False) -> Gpa:
        """Return the GPA of an access within a page. Raise LeaveGuest with the abort if there is none. ``anew``: as the
        page tables are now, and not as they were when a result was kept.
        """
        if not self._words[_SCTLR] & SCTLR_M:
            return Gpa(gva)
        if self._words[_PSR] & PSR_MODE == Mode.USER:
            access |= AccessKind.USER
        key = gva >> PAGE_SHIFT, access
        page = self._known.get(key)
        if page is not None and not anew:
            return Gpa(page | gva & PAGE_SIZE - 1)
        found = self.walk(gva, access)
        status = found >> 32
        if status & FAULT_MASK:
            fault, domain = Fault(status & 15), status >> 4 & 15
            if access & AccessKind.EXECUTE:
                raise LeaveGuest(PrefetchAbort(pc, fault, domain))
            raise LeaveGuest(DataAbort(pc, gva, size, bool(access & AccessKind.WRITE), fault, domain))
        gpa = Gpa(found & 0xFFFFFFFF)
        if self._keep and not anew and not status & PARTIAL:
            self._known[key] = Gpa(gpa & -PAGE_SIZE)
        return gpa

    def forget(self) -> None:
        """Forget results that were kept, because the guest's page tables may have changed."""
        self._known.clear()
