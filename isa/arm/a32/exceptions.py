"""Instructions that raise an exception, and those that enter and leave its handler."""

from __future__ import annotations

from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.exceptions import exception_return
from isa.arm.operands import LR
from isa.arm.recorder import Recorder
from isa.arm.vectors import InsnException


@insn("cond:4 1111 imm24:24", syntax="SVC{<c>} #<imm24>", section="A8.8.228")
def svc(u: Recorder, f: SimpleNamespace) -> None:
    u.exception(InsnException.SUPERVISOR_CALL, f.imm24)


@insn("cond:4 0001 0010 imm12:12 0111 imm4:4", syntax="BKPT #<imm16>", section="A8.8.24", since=5)
def bkpt(u: Recorder, f: SimpleNamespace) -> None:
    # A condition other than AL is UNPREDICTABLE; we choose to honour it. choice: conditional-breakpoint
    u.exception(InsnException.BREAKPOINT, f.imm12 << 4 | f.imm4)


# Other conditions are undefined in any case, as is every word that no pattern matches, whatever its
# condition. choice: undefined-whatever-condition
@insn("1110 0111 1111 imm12:12 1111 imm4:4", syntax="UDF #<imm16>", section="A8.8.247")
def udf(u: Recorder, f: SimpleNamespace) -> None:
    u.undefined()


# What remains of the extensions that these three belong to. choice: no-security-no-virtualization


@insn("cond:4 0001 0100 imm12:12 0111 imm4:4", syntax="HVC #<imm16>", section="B9.3.4", since=8)
def hvc(u: Recorder, f: SimpleNamespace) -> None:
    # A condition other than AL is UNPREDICTABLE here too. choice: conditional-breakpoint
    u.callout("require_privilege")
    u.exception(InsnException.HYPERVISOR_CALL, f.imm12 << 4 | f.imm4)


@insn("cond:4 0001 0110 (000000000000) 0111 imm4:4", syntax="SMC{<c>} #<imm4>", section="B9.3.14", since=6)
def smc(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("require_privilege")
    u.exception(InsnException.SECURE_MONITOR_CALL, f.imm4)


@insn("cond:4 0001 0110 (000000000000) 0110 (1110)", syntax="ERET{<c>}", section="B9.3.3", since=8)
def eret(u: Recorder, f: SimpleNamespace) -> None:
    exception_return(u, u.reg[LR])


@insn("1111 100 p:1 u:1 0 w:1 1 rn:4 (0000101000000000)", syntax="RFE{<amode>} <Rn>{!}", section="B9.3.13", since=6,
      forms=("u", "w"))  # fmt: skip
def rfe(u: Recorder, f: SimpleNamespace) -> None:
    # User mode is UNPREDICTABLE; we choose an undefined instruction. choice: privileged-in-user-mode
    u.callout("require_privilege")
    base = u.reg[f.rn]
    address = base + (f.p << 2) if f.u else base - (f.p << 2) - 4
    target, psr = u.load(address, 4, aligned=True), u.load(address + 4, 4, aligned=True)
    u.callout("check_return", target, psr)
    if f.w:
        u.reg[f.rn] = base + 8 if f.u else base - 8
    u.callout("return_to", target, psr)


@insn("1111 100 p:1 u:1 1 w:1 0 (110100000101000) mode:5", syntax="SRS{<amode>} SP{!}, #<mode>",
      section="B9.3.16", since=6, forms=("u", "w"))  # fmt: skip
def srs(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("require_privilege")
    base = u.callout_value("read_mode_sp", f.mode)
    psr = u.callout_value("read_spsr")
    address = base + (f.p << 2) if f.u else base - (f.p << 2) - 4
    u.store(address, u.reg[LR], 4, aligned=True)
    u.store(address + 4, psr, 4, aligned=True)
    if f.w:
        u.callout("write_mode_sp", f.mode, base + 8 if f.u else base - 8)
