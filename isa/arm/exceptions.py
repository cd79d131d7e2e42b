"""Exception entry and return (ARM ARM B1.8, B1.9), whatever the instruction set."""

from __future__ import annotations

from isa.arm.faults import Fault
from isa.arm.operands import LR, PC
from isa.arm.psr import cpsr, set_spsr, spsr, switch_mode
from isa.arm.recorder import Recorder, routine
from isa.arm.state import PSR_E, PSR_F, PSR_T, SCTLR_V
from isa.arm.vectors import HIGH_VECTORS, VECTORS, ExceptionKind
from isa.arm.vmsa import modified_address
from isa.ir.uop import Uop


def exception_return(u: Recorder, target: Uop) -> None:
    """Copy the SPSR to the CPSR, and branch to ``target`` (B9.3.20)."""
    psr = spsr(u)
    u.callout("check_return", target, psr)
    u.callout("return_to", target, psr)


@routine
def vector_base(u: Recorder) -> Uop:
    """Return the address of the exception vectors (B1.8.1)."""
    return u.select((u.get("sctlr") & SCTLR_V) != 0, HIGH_VECTORS, u.get("vbar"))


@routine
def enter_exception(u: Recorder, mode: Uop, offset: Uop, link: Uop, masks: Uop) -> None:
    """Bank LR (``link``) and SPSR, switch mode, mask, and set R15 to the vector (B1.9).

    The local monitor is left as it is. choice: monitor-at-exceptions
    """
    old = cpsr(u)
    switch_mode(u, mode)
    set_spsr(u, old)
    u.reg[LR] = link
    u.set("psr", u.get("psr") & (~(PSR_T | PSR_E) & 0xFFFFFFFF) | masks)
    u.set_at("r", 15, vector_base.record(u) + offset)


@routine
def take_interrupt(u: Recorder, takeable: Uop) -> None:
    """Take an interrupt before the instruction whose address is in R15 (B1.8.3).

    ``takeable`` has PSR_F or PSR_I where a FIQ or an IRQ can be taken, at least one of them. FIQ has priority.
    """
    fast = (takeable & PSR_F) != 0
    fiq, irq = VECTORS[ExceptionKind.FIQ], VECTORS[ExceptionKind.IRQ]
    mode, offset = u.select(fast, fiq.mode, irq.mode), u.select(fast, fiq.offset, irq.offset)
    link = u.get_at("r", PC) + u.select(fast, fiq.link, irq.link)
    enter_exception.definition(u, mode, offset, link, u.select(fast, fiq.masks, irq.masks))


@routine
def report_data_abort(u: Recorder, address: Uop, status: Uop, write: Uop) -> None:
    """Set DFSR and DFAR (B3.13). ARMv6 added the bit for a write. DFAR holds the modified virtual address."""
    bit = u.select(u.get("architecture").ult(6), 0, write << 11)
    u.set("dfsr", status | bit)
    u.set("dfar", modified_address(u, address))


@routine
def report_prefetch_abort(u: Recorder, address: Uop, status: Uop) -> None:
    """Set IFSR and IFAR (B3.13)."""
    u.set("ifsr", status)
    u.set("ifar", address)


@routine
def report_breakpoint(u: Recorder) -> None:
    """Set IFSR. IFAR is UNKNOWN; we choose that it stays. choice: breakpoint-fault-address"""
    u.set("ifsr", Fault.DEBUG)
