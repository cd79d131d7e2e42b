"""The status registers, processor state changes, hints and barriers.

Reading the CPSR and writing its flags are ordinary instructions. Those that touch the control bits are sensitive.
"""

from __future__ import annotations

from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.operands import expand_imm
from isa.arm.psr import cpsr
from isa.arm.recorder import Recorder
from isa.ir.uop import Uop

FLAGS_BYTE, STATUS_BYTE = 0b10, 0b01  # for each value of the two-bit field fs


# -- MRS and MSR -------------------------------------------------------------------------------


@insn("cond:4 0001 0000 (1111) rd:4 (00) 0 (0) 0000 (0000)", name="MRS (CPSR)", syntax="MRS{<c>} <Rd>, CPSR",
      section="B9.3.8")  # fmt: skip
def mrs_cpsr(u: Recorder, f: SimpleNamespace) -> None:
    # In user mode the bits outside the APSR are UNKNOWN; we choose their values. choice: mrs-user-mode
    u.reg[f.rd] = cpsr(u)


@insn("cond:4 0001 0100 (1111) rd:4 (00) 0 (0) 0000 (0000)", name="MRS (SPSR)", syntax="MRS{<c>} <Rd>, SPSR",
      section="B9.3.8")  # fmt: skip
def mrs_spsr(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.callout_value("read_spsr")


def _write_flags(u: Recorder, f: SimpleNamespace, value: Uop) -> None:
    """Write the bytes of the CPSR that every mode may write: N Z C V Q, and GE."""
    if int(f.fs) & FLAGS_BYTE:
        u.n, u.z, u.c, u.v, u.q = (value.bit(place) for place in (31, 30, 29, 28, 27))
    if int(f.fs) & STATUS_BYTE:
        u.ge = value.bits(19, 16)


@insn("cond:4 0011 0010 fs:2 00 (1111) rotate:4 imm8:8", name="MSR (immediate, flags)",
      syntax="MSR{<c>} APSR_<bits>, #<const>", section="A8.8.112", where="fs!=0", forms=("fs",))  # fmt: skip
def msr_flags_immediate(u: Recorder, f: SimpleNamespace) -> None:
    _write_flags(u, f, expand_imm(u, f.rotate, f.imm8)[0])


# With no byte selected it is UNPREDICTABLE; we choose that it writes nothing. choice: msr-no-bytes
@insn("cond:4 0001 0010 fs:2 00 (1111) (00) 0 (0) 0000 rm:4", name="MSR (register, flags)",
      syntax="MSR{<c>} APSR_<bits>, <Rm>", section="A8.8.113", forms=("fs",))  # fmt: skip
def msr_flags_register(u: Recorder, f: SimpleNamespace) -> None:
    _write_flags(u, f, u.reg[f.rm])


@insn("cond:4 0011 0010 fs:2 xc:2 (1111) rotate:4 imm8:8", name="MSR (immediate, CPSR)",
      syntax="MSR{<c>} CPSR_<fields>, #<const>", section="B9.3.11", where="xc!=0")  # fmt: skip
def msr_cpsr_immediate(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("write_cpsr", expand_imm(u, f.rotate, f.imm8)[0], f.fs << 2 | f.xc)


@insn("cond:4 0001 0010 fs:2 xc:2 (1111) (00) 0 (0) 0000 rm:4", name="MSR (register, CPSR)",
      syntax="MSR{<c>} CPSR_<fields>, <Rm>", section="B9.3.12", where="xc!=0")  # fmt: skip
def msr_cpsr_register(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("write_cpsr", u.reg[f.rm], f.fs << 2 | f.xc)


@insn("cond:4 0011 0110 mask:4 (1111) rotate:4 imm8:8", name="MSR (immediate, SPSR)",
      syntax="MSR{<c>} SPSR_<fields>, #<const>", section="B9.3.11")  # fmt: skip
def msr_spsr_immediate(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("write_spsr", expand_imm(u, f.rotate, f.imm8)[0], f.mask)


@insn("cond:4 0001 0110 mask:4 (1111) (00) 0 (0) 0000 rm:4", name="MSR (register, SPSR)",
      syntax="MSR{<c>} SPSR_<fields>, <Rm>", section="B9.3.12")  # fmt: skip
def msr_spsr_register(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("write_spsr", u.reg[f.rm], f.mask)


@insn("1111 0001 0000 imod:2 m:1 0 (0000000) aif:3 0 mode:5", syntax="CPS<effect> <iflags>{, #<mode>}",
      section="B9.3.2", since=6)  # fmt: skip
def cps(u: Recorder, f: SimpleNamespace) -> None:
    # imod = 0b01, a mode without M, masks without imod and the like are UNPREDICTABLE; we choose that
    # each bit does what it does elsewhere. choice: cps-combinations
    with u.when(f.imod.bit(1)):
        mask = f.aif << 6
        u.callout("set_masks", mask, u.select(f.imod.bit(0), mask, 0))
    with u.when(f.m == 1):
        u.callout("set_mode", f.mode)


# -- hints -------------------------------------------------------------------------------------


@insn("cond:4 0011 0010 0000 (11110000) hint:8", name="NOP and other hints", syntax="NOP{<c>}", section="A8.8.119",
      where="hint!=2, hint!=3")  # fmt: skip
def hint(u: Recorder, f: SimpleNamespace) -> None:
    """Do nothing: NOP, YIELD, SEV, DBG and the unallocated hints are NOPs (A5.2.11). choice: hints-do-nothing"""


@insn("cond:4 0011 0010 0000 (11110000) 00000010", syntax="WFE{<c>}", section="A8.8.425", since=6)
def wfe(u: Recorder, f: SimpleNamespace) -> None:
    """Do nothing. The wait may end for any reason (B1.8.13), and ours ends at once. choice: wfe-ends-at-once"""


@insn("cond:4 0011 0010 0000 (11110000) 00000011", syntax="WFI{<c>}", section="A8.8.426", since=6)
def wfi(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("wait_for_interrupt")


# -- barriers: there is one processor, and code is never stale ----------------------------------


@insn("1111 0101 0111 (111111110000) 0100 option:4", syntax="DSB <option>", section="A8.8.44", since=7)
@insn("1111 0101 0111 (111111110000) 0101 option:4", syntax="DMB <option>", section="A8.8.43", since=7)
@insn("1111 0101 0111 (111111110000) 0110 option:4", syntax="ISB <option>", section="A8.8.53", since=7)
def barrier(u: Recorder, f: SimpleNamespace) -> None:
    """Do nothing: a barrier has no effect here."""
