"""VmExit: the typed reasons why guest execution stopped before its budget was used up.

When an exit occurs, the instruction at ``pc`` has changed nothing. So the exit can be answered by emulating the
instruction, by repeating it, or by entering the guest's exception handler. Only the budget exit lies between two
instructions.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from dbt.abi.addresses import Gva
from isa.arm.faults import Fault


class VmExit:
    """An exit. ``pc`` is the address of the instruction that could not be completed, or of the next one for Budget.

    Exits are values: they are equal if their types and fields are, and nobody changes one. They are not dataclasses,
    because making so many of these takes longer than the run of a short program.
    """

    __slots__ = ("pc",)
    #: The fields, in the order of the constructor's arguments.
    __match_args__: ClassVar[tuple[str, ...]] = ("pc",)

    def __init__(self, pc: Gva) -> None:
        self.pc = pc

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({fields})"


class Budget(VmExit):
    """The budget is used up."""

    __slots__ = ()


class Undefined(VmExit):
    """An undefined instruction."""

    __slots__ = ()


class CallExit(VmExit):
    """An instruction that calls software of a higher privilege. ``immediate`` is its comment field."""

    __slots__ = ("immediate",)
    __match_args__ = ("pc", "immediate")

    def __init__(self, pc: Gva, immediate: int) -> None:
        self.pc = pc
        self.immediate = immediate


class SupervisorCall(CallExit):
    """An SVC instruction. ``immediate`` has 24 bits."""

    __slots__ = ()


class Breakpoint(CallExit):
    """A BKPT instruction. ``immediate`` has 16 bits."""

    __slots__ = ()


class HypervisorCall(CallExit):
    """An HVC instruction. ``immediate`` has 16 bits."""

    __slots__ = ()


class SecureMonitorCall(CallExit):
    """An SMC instruction. ``immediate`` has 4 bits."""

    __slots__ = ()


class ThumbEntry(VmExit):
    """A branch to Thumb code at ``target`` (bit 0 set)."""

    __slots__ = ("target",)
    __match_args__ = ("pc", "target")

    def __init__(self, pc: Gva, target: Gva) -> None:
        self.pc = pc
        self.target = target


class DataAbort(VmExit):
    """A load or store of ``size`` bytes at ``gva`` that is not permitted. ``reason`` is EXTERNAL if nothing is
    there.
    """

    __slots__ = ("domain", "gva", "reason", "size", "write")
    __match_args__ = ("pc", "gva", "size", "write", "reason", "domain")

    def __init__(self, pc: Gva, gva: Gva, size: int, write: bool, reason: Fault, domain: int = 0) -> None:
        self.pc = pc
        self.gva = gva
        self.size = size
        self.write = write
        self.reason = reason
        self.domain = domain


class PrefetchAbort(VmExit):
    """The instruction at ``pc`` cannot be fetched. ``reason`` is EXTERNAL if there is no RAM."""

    __slots__ = ("domain", "reason")
    __match_args__ = ("pc", "reason", "domain")

    def __init__(self, pc: Gva, reason: Fault = Fault.EXTERNAL, domain: int = 0) -> None:
        self.pc = pc
        self.reason = reason
        self.domain = domain


class WaitForInterrupt(VmExit):
    """A WFI or WFE instruction: the guest waits for an interrupt."""

    __slots__ = ()


class BreakpointHit(VmExit):
    """A debugger stops the guest in front of this instruction."""

    __slots__ = ()


class WatchpointHit(VmExit):
    """A debugger stops the guest in front of an access to ``size`` bytes at ``gva``."""

    __slots__ = ("gva", "size", "write")
    __match_args__ = ("pc", "gva", "size", "write")

    def __init__(self, pc: Gva, gva: Gva, size: int, write: bool) -> None:
        self.pc = pc
        self.gva = gva
        self.size = size
        self.write = write


class Unsupported(VmExit):
    """The guest used a part of the architecture that is not implemented. ``what`` names it."""

    __slots__ = ("what",)
    __match_args__ = ("pc", "what")

    def __init__(self, pc: Gva, what: str) -> None:
        self.pc = pc
        self.what = what


class LeaveGuest(Exception):
    """Carries an exit out of nested Python code. It never leaves the tier that raised it."""

    def __init__(self, exit_: VmExit) -> None:
        super().__init__(exit_)
        self.exit = exit_


class Heat(IntEnum):
    """How often control came to an op, as the exit HOT says."""

    WARM = 0  # so often that it is worth a look for a region on disk
    HOT = 1  # so often that it is worth a region, unless another one has its code
    VERY_HOT = 2  # so often that it is worth a region in any case
    OFTEN = 3  # another 65,536 times, where there is stitched code, but this is none or regions go there


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
    HOT = 12  # op (as a host pointer), Heat: control came to it often
    CODE_WRITE = 13  # gpa, size: a store to words that regions were made from; to be done again
    PREFETCH_ABORT = 14  # fault status
    WAIT = 15  # for an interrupt
    UNSUPPORTED = 16  # number: see isa.arm.callouts.UNSUPPORTED
    BREAK = 17  # an instruction with a breakpoint of a debugger
    WATCH = 18  # gva, size, write: an access to bytes that a debugger watches
    ARM = 19  # gva, gpa: code of a page with breakpoints, whose ops do not have them yet
