"""Explanations of exits that end a run: what happened, and what the user can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gva
from dbt.abi.exits import (
    Breakpoint,
    DataAbort,
    HypervisorCall,
    PrefetchAbort,
    SecureMonitorCall,
    SupervisorCall,
    ThumbEntry,
    Undefined,
    Unsupported,
    VmExit,
    WaitForInterrupt,
)
from dbt.board.boards import MAX_MEMORY
from dbt.host.semihosting import SEMIHOSTING_SVC
from dbt.inspector.backtrace import frames, is_return_address
from dbt.memory.ram import RamLayout
from isa.arm.faults import Fault
from isa.arm.state import Architecture

if TYPE_CHECKING:
    from dbt.inspector.inspector import Inspector

_THUMB = (
    "Thumb state is outside this instruction set (A32): build everything with -marm, and link libraries "
    "that are A32 code too; Debian's newlib has them for -march=armv5te"
)
_MISSING = "It may be data, newer than ARMv7-A, floating point, or a coprocessor register that is not there"
_TRACE = "--trace FILE shows the way there"
_TABLES = f"The guest's page tables say so; {_TRACE}"
_LINUX_SYSTEM_CALLS = 512
_OABI = 0x900000


def explain(exit_: VmExit, ram: RamLayout, system_call: int, undefined: str) -> tuple[str, str]:
    """Return what the guest did, and a remedy. ``system_call`` is R7, where Linux has the number of a system call, and
    ``undefined`` is what :func:`why_undefined` says of the instruction.
    """
    match exit_:
        case DataAbort(gva=gva, size=size, reason=Fault.ALIGNMENT):
            return (
                f"{_access(exit_)} {gva:#010x}, which is not a multiple of {size}",
                "This instruction needs an aligned address",
            )
        case DataAbort(gva=gva, reason=reason, domain=domain) if reason is not Fault.EXTERNAL:
            return f"{_access(exit_)} {gva:#010x}: {_mmu_fault(reason, domain)}", _TABLES
        case DataAbort(gva=gva):
            return f"{_access(exit_)} {gva:#010x}, where there is neither RAM nor a device", _place(gva, ram)
        case PrefetchAbort(pc=pc, reason=reason, domain=domain) if reason is not Fault.EXTERNAL:
            return f"jump to {pc:#010x}: {_mmu_fault(reason, domain)}", _TABLES
        case PrefetchAbort(pc=pc):
            return f"jump to {pc:#010x}, where there is no RAM to execute", _place(pc, ram)
        case Undefined():
            return "undefined instruction", f"{undefined}; {_TRACE}"
        case SupervisorCall(immediate=immediate):
            return f"supervisor call {immediate:#x}", _supervisor_remedy(immediate, system_call)
        case Breakpoint(immediate=immediate):
            return f"breakpoint {immediate:#x} with no debugger attached", "Look at what the program asserts there"
        case HypervisorCall(immediate=immediate):
            return f"hypervisor call {immediate:#x}", "There are no hypervisor calls"
        case SecureMonitorCall(immediate=immediate):
            return f"secure monitor call {immediate:#x}", "There is no secure monitor"
        case ThumbEntry(target=target):
            return f"branch to Thumb code at {target & ~1:#010x}", _THUMB
        case Unsupported(what=what):
            return f"{what}, which this machine does not have", "Build or configure the guest without it"
        case WaitForInterrupt():
            return (
                "the guest waits for an interrupt, and nothing can send one",
                "Start a timer, or enable the interrupt of what it waits for, before it waits",
            )
        case _:
            return f"{type(exit_).__name__}", _TRACE


def why_undefined(word: int | None, architecture: int) -> str:
    """Return why an instruction word may be undefined on a processor of a version of the architecture."""
    from isa.arm.a32 import DECODER

    insn = None if word is None else DECODER.decode(word)
    if insn is None or insn.since <= architecture:
        return _MISSING
    needed = f"ARMv{insn.since}" if insn.since <= Architecture.V7 else "ARMv7 with the Virtualization Extensions"
    return f"{needed} has this instruction, and the processor is older: choose another one (--cpu)"


def origin(inspector: Inspector, exit_: VmExit, registers: Sequence[int]) -> str:
    """Return sentences on where control came from and whether SP left the RAM; an empty text if neither is worth
    saying.
    """
    text = ""
    link = Gva(registers[14] & ~1)
    callers = [gva for gva in frames(inspector, registers) if gva != link]
    if isinstance(exit_, (PrefetchAbort, Undefined, ThumbEntry)) or callers:
        if link and is_return_address(inspector, link):
            text = f"It was called from {inspector.describe_pc(Gva(link - 4))}, as LR says. "
        elif isinstance(exit_, (PrefetchAbort, Undefined, ThumbEntry)):
            text = f"LR is {registers[14]:#010x}, which is no return address. "
    if callers:
        chain = " < ".join(inspector.symbolize(Gva(gva - 4)) for gva in callers)
        text += f"The frames on the stack lead to {chain}. "
    if not inspector.stack_is_in_ram:
        text += f"SP is {registers[13]:#010x}, outside the RAM: the stack has run over, or was never set. "
    return text


def _mmu_fault(reason: Fault, domain: int) -> str:
    """Return a fault in words: ``TRANSLATION_PAGE`` becomes ``translation fault (page), domain 0``."""
    kind, _, level = reason.name.lower().rpartition("_")
    if not kind.endswith("on_walk"):
        return f"{kind.replace('_', ' ')} fault ({level}), domain {domain}"
    return f"external abort on the walk of its page tables (level {level})"


def _access(exit_: DataAbort) -> str:
    unit = "byte" if exit_.size == 1 else "bytes"
    return f"{'write' if exit_.write else 'read'} of {exit_.size} {unit} at"


def _place(gva: Gva, ram: RamLayout) -> str:
    where = f"RAM is {ram}"
    if ram.end <= gva < min(4 * ram.end, MAX_MEMORY):
        return f"{where}: if the program counts on more, give the machine more memory (--memory); {_TRACE}"
    return f"{where}; {_TRACE}"


def _supervisor_remedy(immediate: int, system_call: int) -> str:
    if immediate == 0 and system_call < _LINUX_SYSTEM_CALLS:
        return (
            f"It looks like Linux's system call {system_call}; this machine is bare: "
            "link with arm-none-eabi-gcc --specs=rdimon.specs"
        )
    if immediate >= _OABI:
        return (
            "It looks like a Linux system call; this machine is bare: link with arm-none-eabi-gcc --specs=rdimon.specs"
        )
    return f"Semihosting is SVC {SEMIHOSTING_SVC:#x}; for other calls the guest needs a vector table"
