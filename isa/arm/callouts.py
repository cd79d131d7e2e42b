"""The callouts of ARM, which are its sensitive operations. An instruction makes one by ``u.callout(name, ...)``.

See :mod:`isa.ir.callouts`.
"""

from __future__ import annotations

from isa.arm.psr import (
    bank_of,
    cpsr,
    current_mode,
    is_user,
    is_valid_mode,
    refuse_big_endian,
    set_cpsr,
    set_spsr,
    spsr,
    switch_mode,
    user_register_bank,
)
from isa.arm.recorder import CALLOUTS, Recorder
from isa.arm.state import PSR_A, PSR_E, PSR_F, PSR_I, PSR_MODE
from isa.ir.uop import BranchKind, Uop

PSR_FLAGS = 0xF8000000  # N Z C V Q
PSR_GE = 0x000F0000
USER_WRITABLE = PSR_FLAGS | PSR_GE | PSR_E
PRIVILEGED_WRITABLE = USER_WRITABLE | PSR_A | PSR_I | PSR_F | PSR_MODE
SPSR_WRITABLE = 0xFF0FFFFF

#: What is not supported, by the argument of the callout ``unsupported``.
UNSUPPORTED = (
    "big-endian data (CPSR.E)",
    "big-endian memory (SCTLR.B)",
    "big-endian exception handlers (SCTLR.EE)",
    "Thumb exception handlers (SCTLR.TE)",
)


def byte_lanes(u: Recorder, byte_mask: Uop) -> Uop:
    """Return the bits that a mask of bytes selects: 0xFF0000FF for 0b1001."""
    lanes = u.const(0)
    for byte in range(4):
        lanes = lanes | byte_mask.bits(byte, byte) * (0xFF << 8 * byte)
    return lanes


def _merge(old: Uop, new: Uop, mask: Uop) -> Uop:
    return old & ~mask | new & mask


# -- program status ----------------------------------------------------------------------------


@CALLOUTS.define("undefined instruction in user mode", checks_privilege=True)
def require_privilege(u: Recorder) -> None:
    with u.when(is_user(u)):
        u.undefined()


@CALLOUTS.define("MSR CPSR, with the write rules of the current mode (B1.3.3)", synchronises=True)
def write_cpsr(u: Recorder, value: Uop, byte_mask: Uop) -> None:
    lanes = byte_lanes(u, byte_mask)
    old = cpsr(u)
    # Bit E came with ARMv6.
    there = u.select(u.get("architecture").ult(6), ~PSR_E & 0xFFFFFFFF, 0xFFFFFFFF)
    new = _merge(old, value, lanes & u.select(is_user(u), USER_WRITABLE, PRIVILEGED_WRITABLE) & there)
    refuse_big_endian(u, new)
    set_cpsr(u, new)


@CALLOUTS.define("SPSR of the current mode")
def read_spsr(u: Recorder) -> Uop:
    u.callout("require_privilege")
    return spsr(u)


@CALLOUTS.define("MSR SPSR (B1.3.3)")
def write_spsr(u: Recorder, value: Uop, byte_mask: Uop) -> None:
    u.callout("require_privilege")
    set_spsr(u, _merge(spsr(u), value, byte_lanes(u, byte_mask) & SPSR_WRITABLE))


@CALLOUTS.define("change CPSR.M alone (CPS)", synchronises=True)
def set_mode(u: Recorder, mode: Uop) -> None:
    with u.when(~is_user(u) & is_valid_mode(u, mode)):  # choice: invalid-mode
        switch_mode(u, mode)


@CALLOUTS.define("the A, I, F bits of the CPSR (CPS)", synchronises=True)
def set_masks(u: Recorder, mask: Uop, value: Uop) -> None:
    with u.when(~is_user(u)):
        u.set("psr", _merge(u.get("psr"), value, mask & (PSR_A | PSR_I | PSR_F)))


# -- exception return --------------------------------------------------------------------------


@CALLOUTS.define("whether an exception return is possible, before anything is written")
def check_return(u: Recorder, target: Uop, psr: Uop) -> None:
    """Check that an exception return is possible.

    In user mode it is UNPREDICTABLE; we choose an undefined instruction. choice: privileged-in-user-mode
    """
    u.callout("require_privilege")
    with u.when(psr.bit(5)):
        u.callout("enter_thumb", target | 1)
    refuse_big_endian(u, psr)


@CALLOUTS.define("CPSR := psr, then branch", leaves=True, synchronises=True)
def return_to(u: Recorder, target: Uop, psr: Uop) -> None:
    """Return from an exception to ``target``. Precondition: :func:`check_return` succeeded."""
    set_cpsr(u, psr)
    u.branch(target, BranchKind.SYNCHRONISE)  # choice: branch-target-bit-1


# -- registers of other modes ------------------------------------------------------------------


@CALLOUTS.define("a register of user mode (STM with ^)")
def read_user_reg(u: Recorder, number: Uop) -> Uop:
    low, high = user_register_bank(u, number)
    value = u.select(low, u.get_at("bank_r8", number - 8 & 7), u.reg[number])
    banked = u.select(number == 13, u.get_at("bank_r13", 0), u.get_at("bank_r14", 0))
    return u.select(high, banked, value)


@CALLOUTS.define("a register of user mode (LDM with ^)")
def write_user_reg(u: Recorder, number: Uop, value: Uop) -> None:
    low, high = user_register_bank(u, number)
    with u.when(low):
        u.set_at("bank_r8", number - 8 & 7, value)
    with u.when(high & (number == 13)):
        u.set_at("bank_r13", 0, value)
    with u.when(high & (number == 14)):
        u.set_at("bank_r14", 0, value)
    with u.when(~low & ~high):
        u.reg[number] = value


@CALLOUTS.define("R13 of a mode (SRS)")
def read_mode_sp(u: Recorder, mode: Uop) -> Uop:
    """Return the SP of a mode.

    An invalid mode is UNPREDICTABLE; we choose an undefined instruction. choice: srs-invalid-mode
    """
    with u.when(~is_valid_mode(u, mode)):
        u.undefined()
    bank = bank_of(u, mode)
    return u.select(bank == bank_of(u, current_mode(u)), u.reg[13], u.get_at("bank_r13", bank))


@CALLOUTS.define("R13 of a mode (SRS)")
def write_mode_sp(u: Recorder, mode: Uop, value: Uop) -> None:
    bank = bank_of(u, mode)
    here = bank == bank_of(u, current_mode(u))
    with u.when(here):
        u.reg[13] = value
    with u.when(~here):
        u.set_at("bank_r13", bank, value)


# -- the hypervisor's own ----------------------------------------------------------------------

CALLOUTS.declare("enter_thumb", "(target): go on in Thumb state", leaves=True, sensitive=False)
CALLOUTS.declare("unsupported", "(what): something this machine does not have, an index of UNSUPPORTED", leaves=True)
CALLOUTS.declare("wait_for_interrupt", "(): wait until an interrupt is pending")
CALLOUTS.declare("translate_address", "(mva, access): into PAR where it goes, or the fault (B3.12.3)")
CALLOUTS.declare(
    "regime_changed", "(): the tables, the domains or whether the MMU is on may have changed", synchronises=True
)
CALLOUTS.declare(
    "read_private", "(number): a word of a private peripheral: see isa.arm.private", has_result=True, may_leave=True
)
CALLOUTS.declare("read_lines", "(): PSR_I and PSR_F where the line of IRQ or FIQ is up", has_result=True)
CALLOUTS.declare("write_private", "(number, low, high): a register of a private peripheral", may_leave=True)
CALLOUTS.declare("tlb_flush", "(): forget all translations", synchronises=True)
CALLOUTS.declare("tlb_flush_page", "(mva): forget the translation of an address", synchronises=True)
