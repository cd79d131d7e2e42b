"""Block transfers: LDM and STM in their four modes, those of user mode's registers, and the exception return.

The lowest register goes with the lowest address, and the PC, which is the highest, with the highest.
Everything is loaded into scratch words before any register changes, so that an abort is precise. An address that is not
a multiple of 4 faults, whatever SCTLR.A says.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.operands import SP
from isa.arm.psr import spsr
from isa.arm.recorder import Recorder
from isa.ir.uop import BranchKind, Uop

# In all of them Rn = PC is UNPREDICTABLE; we choose an undefined instruction. choice: block-transfer-base-pc
# An empty list is UNPREDICTABLE; we choose an undefined instruction. choice: empty-register-list


@dataclass(frozen=True, slots=True)
class Span:
    """The memory of a register list: the addresses of its first and last word, and the base after it."""

    first: Uop
    last: Uop
    base_after: Uop


def _span(u: Recorder, f: SimpleNamespace, extra: int) -> Span:
    """Return the span of ``f.regs`` and ``extra`` more registers.

    With u = 1 the base points at (p = 0) or one below (p = 1) the first word, with u = 0 at or one above
    the last. The distance is worked out at decode time.
    """
    base, size = u.reg[f.rn], (f.regs.popcount() + extra) << 2
    if f.u:
        first = base + (f.p << 2)
        return Span(first, first + size - 4, base + size)
    last = base - (f.p << 2)
    return Span(last - size + 4, last, base - size)


def _load_list(u: Recorder, f: SimpleNamespace, first: Uop) -> None:
    with u.for_each_bit(f.regs) as (_, ordinal):
        u.temp[ordinal] = u.load(first + (ordinal << 2), 4, aligned=True)


def _write_list(u: Recorder, f: SimpleNamespace, span: Span) -> None:
    """Write the base and the loaded registers.

    Writeback with the base in the list is UNPREDICTABLE; we choose that the loaded value wins.
    choice: load-base-is-target
    """
    if f.w:
        u.reg[f.rn] = span.base_after
    with u.for_each_bit(f.regs) as (number, ordinal):
        u.reg[number] = u.temp[ordinal]


@insn("cond:4 100 p:1 u:1 0 w:1 1 rn:4 0 regs:15", syntax="LDM{<amode>}{<c>} <Rn>{!}, <registers>",
      section="A8.8.58", where="rn!=15, regs!=0", forms=("u", "w"))  # fmt: skip
def ldm(u: Recorder, f: SimpleNamespace) -> None:
    span = _span(u, f, 0)
    _load_list(u, f, span.first)
    _write_list(u, f, span)


@insn("cond:4 100 p:1 u:1 0 w:1 1 rn:4 1 regs:15", name="LDM (with PC)",
      syntax="LDM{<amode>}{<c>} <Rn>{!}, <registers_with_pc>", section="A8.8.58", where="rn!=15",
      forms=("u", "w", "rn==13"))  # fmt: skip
def ldm_pc(u: Recorder, f: SimpleNamespace) -> None:
    span = _span(u, f, 1)
    _load_list(u, f, span.first)
    target = u.load(span.last, 4, aligned=True)
    u.interwork(target)
    _write_list(u, f, span)
    u.branch(target, BranchKind.RETURN if f.rn == SP else BranchKind.INDIRECT)


def _store_list(u: Recorder, f: SimpleNamespace, span: Span, *, with_pc: bool, user: bool = False) -> None:
    # The base in the list, not lowest, and written back: the value stored is UNKNOWN; we choose the one
    # before the instruction. choice: stm-base-in-list
    with u.for_each_bit(f.regs) as (number, ordinal):
        value = u.callout_value("read_user_reg", number) if user else u.reg[number]
        u.store(span.first + (ordinal << 2), value, 4, aligned=True)
    if with_pc:
        u.store(span.last, u.pc, 4, aligned=True)  # choice: str-pc-offset


@insn("cond:4 100 p:1 u:1 0 w:1 0 rn:4 0 regs:15", syntax="STM{<amode>}{<c>} <Rn>{!}, <registers>",
      section="A8.8.199", where="rn!=15, regs!=0", forms=("u", "w"))  # fmt: skip
def stm(u: Recorder, f: SimpleNamespace) -> None:
    span = _span(u, f, 0)
    _store_list(u, f, span, with_pc=False)
    if f.w:
        u.reg[f.rn] = span.base_after


@insn("cond:4 100 p:1 u:1 0 w:1 0 rn:4 1 regs:15", name="STM (with PC)",
      syntax="STM{<amode>}{<c>} <Rn>{!}, <registers_with_pc>", section="A8.8.199", where="rn!=15",
      forms=("u", "w"))  # fmt: skip
def stm_pc(u: Recorder, f: SimpleNamespace) -> None:
    span = _span(u, f, 1)
    _store_list(u, f, span, with_pc=True)
    if f.w:
        u.reg[f.rn] = span.base_after


# With ^. Bit W set is UNPREDICTABLE for the user registers; we choose an undefined instruction.
# choice: user-registers-writeback
# User mode is UNPREDICTABLE; we choose an undefined instruction. choice: privileged-in-user-mode


@insn("cond:4 100 p:1 u:1 1 0 1 rn:4 0 regs:15", name="LDM (user registers)",
      syntax="LDM{<amode>}{<c>} <Rn>, <registers_without_pc>^", section="B9.3.6", where="rn!=15, regs!=0",
      forms=("u",))  # fmt: skip
def ldm_user(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("require_privilege")
    _load_list(u, f, _span(u, f, 0).first)
    with u.for_each_bit(f.regs) as (number, ordinal):
        u.callout("write_user_reg", number, u.temp[ordinal])


@insn("cond:4 100 p:1 u:1 1 0 0 rn:4 0 regs:15", name="STM (user registers)",
      syntax="STM{<amode>}{<c>} <Rn>, <registers>^", section="B9.3.17", where="rn!=15, regs!=0",
      forms=("u",))  # fmt: skip
def stm_user(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("require_privilege")
    _store_list(u, f, _span(u, f, 0), with_pc=False, user=True)


@insn("cond:4 100 p:1 u:1 1 0 0 rn:4 1 regs:15", name="STM (user registers with PC)",
      syntax="STM{<amode>}{<c>} <Rn>, <registers_with_pc>^", section="B9.3.17", where="rn!=15",
      forms=("u",))  # fmt: skip
def stm_user_pc(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("require_privilege")
    _store_list(u, f, _span(u, f, 1), with_pc=True, user=True)


@insn("cond:4 100 p:1 u:1 1 w:1 1 rn:4 1 regs:15", name="LDM (exception return)",
      syntax="LDM{<amode>}{<c>} <Rn>{!}, <registers_with_pc>^", section="B9.3.5", where="rn!=15",
      forms=("u", "w"))  # fmt: skip
def ldm_exception_return(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("require_privilege")
    span = _span(u, f, 1)
    _load_list(u, f, span.first)
    target = u.load(span.last, 4, aligned=True)
    psr = spsr(u)
    u.callout("check_return", target, psr)
    _write_list(u, f, span)
    u.callout("return_to", target, psr)
