"""Branches: to a label, to a register, with link, and into Thumb."""

from __future__ import annotations

from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.operands import LR
from isa.arm.recorder import Recorder
from isa.ir.uop import BranchKind, Uop


def _offset(imm24: Uop) -> Uop:
    """Return ``SignExtend(imm24:'00', 32)``, which is computed at decode time."""
    return (imm24 << 8).ashr(6)


def _link(u: Recorder) -> None:
    u.reg[LR] = u.pc - 4


@insn("cond:4 1010 back:1 imm23:23", syntax="B{<c>} <label>", section="A8.8.18", forms=("cond", "back"))
def b(u: Recorder, f: SimpleNamespace) -> None:
    u.branch(u.pc + _offset(f.back << 23 | f.imm23), BranchKind.LOOP if f.back else BranchKind.JUMP)


@insn("cond:4 1011 imm24:24", syntax="BL{<c>} <label>", section="A8.8.25")
def bl(u: Recorder, f: SimpleNamespace) -> None:
    _link(u)
    u.branch(u.pc + _offset(f.imm24), BranchKind.CALL)


@insn("1111 101 h:1 imm24:24", name="BLX (immediate)", syntax="BLX <label>", section="A8.8.25", since=5)
def blx_immediate(u: Recorder, f: SimpleNamespace) -> None:
    # LR is not written, because an instruction that leaves must have changed nothing.
    u.callout("enter_thumb", u.pc + (_offset(f.imm24) | f.h << 1 | 1))


@insn("cond:4 0001 0010 (111111111111) 0001 rm:4", syntax="BX{<c>} <Rm>", section="A8.8.27", forms=("rm==14",))
# BXJ without a Jazelle extension of its own is BX (A8.8.28). choice: no-jazelle
@insn("cond:4 0001 0010 (111111111111) 0010 rm:4", syntax="BXJ{<c>} <Rm>", section="A8.8.28", since=5,
      forms=("rm==14",))  # fmt: skip
def bx(u: Recorder, f: SimpleNamespace) -> None:
    u.bx_write_pc(u.reg[f.rm], BranchKind.RETURN if f.rm == LR else BranchKind.INDIRECT)


@insn("cond:4 0001 0010 (111111111111) 0011 rm:4", name="BLX (register)", syntax="BLX{<c>} <Rm>",
      section="A8.8.26", since=5)  # fmt: skip
def blx_register(u: Recorder, f: SimpleNamespace) -> None:
    # Rm = PC is UNPREDICTABLE; we choose the ordinary meaning of R15. choice: r15-operand
    target = u.reg[f.rm]
    u.interwork(target)
    _link(u)
    u.branch(target, BranchKind.CALL)
