"""VmExit: the typed reasons why guest execution stopped before its budget was used up.

When an exit occurs, the instruction at ``pc`` has changed nothing. So the exit can be answered by emulating the
instruction, by repeating it, or by entering the guest's exception handler. Only the budget exit lies between two
instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from dbt.abi.addresses import Gva
from isa.arm.faults import Fault


@dataclass(frozen=True, slots=True)
class VmExit:
    """An exit. ``pc`` is the address of the instruction that could not be completed, or of the next one for Budget."""

    pc: Gva


@dataclass(frozen=True, slots=True)
class Budget(VmExit):
    """The budget is used up."""


@dataclass(frozen=True, slots=True)
class Undefined(VmExit):
    """An undefined instruction."""


@dataclass(frozen=True, slots=True)
class SupervisorCall(VmExit):
    """An SVC instruction. ``immediate`` is its 24-bit comment field."""

    immediate: int


@dataclass(frozen=True, slots=True)
class Breakpoint(VmExit):
    """A BKPT instruction. ``immediate`` is its 16-bit comment field."""

    immediate: int


@dataclass(frozen=True, slots=True)
class HypervisorCall(VmExit):
    """An HVC instruction. ``immediate`` is its 16-bit comment field."""

    immediate: int


@dataclass(frozen=True, slots=True)
class SecureMonitorCall(VmExit):
    """An SMC instruction. ``immediate`` is its 4-bit comment field."""

    immediate: int


@dataclass(frozen=True, slots=True)
class ThumbEntry(VmExit):
    """A branch to Thumb code at ``target`` (bit 0 set)."""

    target: Gva


@dataclass(frozen=True, slots=True)
class DataAbort(VmExit):
    """A load or store of ``size`` bytes at ``gva`` that is not permitted. ``reason`` is EXTERNAL if nothing is
    there.
    """

    gva: Gva
    size: int
    write: bool
    reason: Fault
    domain: int = 0


@dataclass(frozen=True, slots=True)
class PrefetchAbort(VmExit):
    """The instruction at ``pc`` cannot be fetched. ``reason`` is EXTERNAL if there is no RAM."""

    reason: Fault = Fault.EXTERNAL
    domain: int = 0


@dataclass(frozen=True, slots=True)
class WaitForInterrupt(VmExit):
    """A WFI or WFE instruction: the guest waits for an interrupt."""


@dataclass(frozen=True, slots=True)
class Unsupported(VmExit):
    """The guest used a part of the architecture that is not implemented. ``what`` names it."""

    what: str


class LeaveGuest(Exception):
    """Carries an exit out of nested Python code. It never leaves the tier that raised it."""

    def __init__(self, exit_: VmExit) -> None:
        super().__init__(exit_)
        self.exit = exit_


class ExitCode(IntEnum):
    """The numbers of exits in CpuState's ``exit_kind``. The comments list the values in ``exit_args``."""

    BUDGET = 0
    TRAP = 2  # an instruction that the reference tier is to execute
    UNDEFINED = 3
    SUPERVISOR_CALL = 4  # immediate
    BREAKPOINT = 5  # immediate
    HYPERVISOR_CALL = 6  # immediate
    SECURE_MONITOR_CALL = 7  # immediate
    THUMB = 8  # target
    DATA_ABORT = 9  # gva, size, write, fault status
    DEVICE_READ = 10  # gpa, size, -, gva: not RAM; the bus decides whether it is a device or an abort
    DEVICE_WRITE = 11  # gpa, size, value, gva
    HOT = 12  # op (as a host pointer): control came to it so often that it is worth a region
    CODE_WRITE = 13  # gpa, size: a store to words that regions were made from; to be done again
    PREFETCH_ABORT = 14  # fault status
    WAIT = 15  # for an interrupt
    UNSUPPORTED = 16  # number: see isa.arm.callouts.UNSUPPORTED
