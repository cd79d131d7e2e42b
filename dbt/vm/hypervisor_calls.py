"""Answers to the HVC instructions of a guest whose board has a hypervisor."""

from __future__ import annotations

from dbt.abi.addresses import Gva
from dbt.abi.exits import HypervisorCall
from dbt.hypervisor.xen.domain import Answer, XenDomain
from dbt.hypervisor.xen.interface import HYPERCALL_IMMEDIATE, Errno, Request
from dbt.hypervisor.xen.pv.guest import SET_TRAP_TABLE
from dbt.hypervisor.xen.pv.monitor import BEGIN, CODE
from dbt.vm.result import RunResult, StopReason
from dbt.vm.vcpu import Vcpu
from isa.arm.state import SCTLR_M

_NUMBER = 12
_ARGUMENTS = 5
_CRASHED = 1


def answer(exit_: HypervisorCall, vcpu: Vcpu, domain: XenDomain) -> RunResult | None:
    """Do what the instruction demands. Return a result if the run is over. The guest may be waiting afterwards."""
    if exit_.immediate != HYPERCALL_IMMEDIATE:
        message = f"the guest executed HVC #{exit_.immediate:#x}, for which Xen destroys a domain"
        return RunResult(StopReason.FAULT, None, vcpu.icount, vcpu.cpu.pc, message, exit_)
    r = vcpu.cpu.r
    vcpu.exit_counts["hypercall"] += 1
    if vcpu.meter is not None:
        vcpu.meter.charge_exit()
    domain.polling.stop()
    args = list(r[:_ARGUMENTS])
    if r[_NUMBER] == SET_TRAP_TABLE and vcpu.cpu["sctlr"] & SCTLR_M:
        vcpu.retire(Gva(exit_.pc + 4))
        r[0] = -Errno.EINVAL & 0xFFFFFFFF  # The monitor begins where the MMU is off.
        return None
    found = domain.call(r[_NUMBER], args)
    if found is Request.BLOCK:
        r[0] = 0
        domain.processor.block()
        vcpu.begin_wait()
        return None
    vcpu.retire(_next(found, exit_.pc))
    match found:
        case Request.AGAIN | Request.DEPRIVILEGE:
            for number, value in enumerate(args):
                r[number] = value
        case Request.POWER_OFF:
            return _exited(vcpu, 0, "the guest switched the machine off")
        case Request.CRASH:
            return _exited(vcpu, _CRASHED, "the guest says that it has crashed, or ends for a reason of its own")
        case Request.REBOOT:
            vcpu.request_reset()
        case int():
            r[0] = found & 0xFFFFFFFF
    return None


def _next(found: Answer, pc: Gva) -> Gva:
    """Return the address at which the guest goes on after a hypercall at ``pc``."""
    if found is Request.DEPRIVILEGE:
        return Gva(CODE + BEGIN)
    return Gva(pc if found is Request.AGAIN else pc + 4)


def _exited(vcpu: Vcpu, code: int, message: str) -> RunResult:
    return RunResult(StopReason.EXITED, code, vcpu.icount, vcpu.cpu.pc, message)
