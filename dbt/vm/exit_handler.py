"""Answers to exits: what the machine does if the tier cannot complete an instruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from dbt.abi.addresses import Gva
from dbt.abi.exits import (
    Breakpoint,
    BreakpointHit,
    Budget,
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
    WatchpointHit,
)
from dbt.host.guest_notices import GuestNotices
from dbt.host.semihosting import SEMIHOSTING_SVC, GuestExit, Semihosting
from dbt.host.streams import InputPending
from dbt.inspector.inspector import Inspector
from dbt.vm.exception_storm import ExceptionStorm
from dbt.vm.result import RunResult, StopReason
from dbt.vm.vcpu import Vcpu
from isa.arm.state import Mode
from isa.arm.vectors import ExceptionKind

if TYPE_CHECKING:
    from dbt.hypervisor.xen.domain import XenDomain

_PC = 15


class Personality(Protocol):
    """What the machine is for its present guest."""

    @property
    def cpu_model(self) -> str: ...
    @property
    def semihosting_enabled(self) -> bool: ...


class ExitHandler:
    """Does what an exit requires, or says how the run ends."""

    def __init__(
        self,
        vcpu: Vcpu,
        inspector: Inspector,
        semihosting: Semihosting,
        notice: Callable[[str], None],
        storm: ExceptionStorm,
        has_psci: bool,
        hypervisor: Callable[[], XenDomain | None],
    ) -> None:
        """``has_psci``: an HVC calls the firmware of :mod:`dbt.board.psci`. Otherwise it is undefined. ``hypervisor``
        returns what answers hypercalls, if the present board has one.
        """
        self._hypervisor = hypervisor
        self._vcpu = vcpu
        self._inspector = inspector
        self._semihosting = semihosting
        self._storm = storm
        self._has_psci = has_psci
        #: The exception that the last answer has entered, or None.
        self.raised: ExceptionKind | None = None
        self._unknown_registers = GuestNotices(notice, "accesses of the guest to CP15 registers that do not exist")

    def reset(self) -> None:
        """The machine is reset."""
        self._storm.reset()

    def begin_run(self) -> None:
        """A run begins, before which a user may have changed the guest."""
        self._storm.begin_run()

    def answer(self, exit_: VmExit, personality: Personality) -> RunResult | None:
        """Do what the exit requires. Return a result if the run is over. After a WFI, the virtual CPU is waiting."""
        self.raised = None
        match exit_:
            case Budget():
                return None
            case BreakpointHit() | WatchpointHit():
                return RunResult(StopReason.STOPPED, None, self._vcpu.icount, exit_.pc, "", exit_)
            case SupervisorCall(immediate=immediate) if (
                immediate == SEMIHOSTING_SVC and personality.semihosting_enabled
            ):
                return self._call_semihosting(exit_)
            case SupervisorCall():
                return self._raise(exit_, ExceptionKind.SUPERVISOR_CALL)
            case Undefined():
                self._note_unknown_register(Gva(exit_.pc), personality.cpu_model)
                return self._raise(exit_, ExceptionKind.UNDEFINED)
            case HypervisorCall() if exit_.immediate and (hypervisor := self._hypervisor()) is not None:
                from dbt.vm.hypervisor_calls import answer  # which few guests need

                return answer(exit_, self._vcpu, hypervisor)
            case HypervisorCall() if self._has_psci:
                return self._call_firmware(exit_)
            case HypervisorCall() | SecureMonitorCall():
                return self._raise(exit_, ExceptionKind.UNDEFINED)
            case DataAbort():
                return self._raise(exit_, ExceptionKind.DATA_ABORT)
            case PrefetchAbort() | Breakpoint():
                return self._raise(exit_, ExceptionKind.PREFETCH_ABORT)
            case ThumbEntry() | Unsupported():
                return self._fault(exit_)
            case WaitForInterrupt():
                if self._vcpu.meter is not None:
                    self._vcpu.meter.charge_wait()
                self._begin_wait()
                return None
            case _:
                raise AssertionError(f"the run loop has no answer to {exit_}")

    def answer_within_slice(self) -> bool:
        """Answer the semihosting call at the PC, if that can be done at once: a :data:`dbt.engine.tier.HostCall`."""
        vcpu, r = self._vcpu, self._vcpu.cpu.r
        answer = self._semihosting.call_at_once(r[0], r[1])
        if answer is None:
            return False
        if vcpu.meter is not None:
            vcpu.meter.charge_semihosting_within(vcpu.now())
        vcpu.exit_counts["semihosting"] += 1
        vcpu.completed += 1
        r[_PC] = r[_PC] + 4 & 0xFFFFFFFF
        r[0] = answer & 0xFFFFFFFF
        return True

    def _call_semihosting(self, exit_: SupervisorCall) -> RunResult | None:
        vcpu, cpu = self._vcpu, self._vcpu.cpu
        if vcpu.meter is not None:
            vcpu.meter.charge_semihosting()
        try:
            answer = self._semihosting.call(cpu.r[0], cpu.r[1])
        except InputPending:
            return None  # The instruction did not complete: it is executed again.
        finally:
            vcpu.exit_counts["semihosting"] += 1
        vcpu.retire(Gva(exit_.pc + 4))
        if isinstance(answer, GuestExit):
            message = f"the guest stopped: {answer.reason}" if answer.reason else ""
            return RunResult(StopReason.EXITED, answer.code, vcpu.icount, cpu.pc, message)
        cpu.r[0] = answer & 0xFFFFFFFF
        return None

    def _call_firmware(self, exit_: HypervisorCall) -> RunResult | None:
        from dbt.board import psci  # which few guests call
        from dbt.board.psci import PowerRequest

        vcpu, r = self._vcpu, self._vcpu.cpu.r
        vcpu.exit_counts["firmware call"] += 1
        if vcpu.meter is not None:
            vcpu.meter.charge_exit()
        hypervisor = self._hypervisor()
        answer: int | PowerRequest | None = None if hypervisor is None else hypervisor.smccc(r[0], r[1])
        if answer is None:
            answer = psci.call(r[0], r[1], r[2])
        if answer is PowerRequest.SUSPEND:
            r[0] = 0
            self._begin_wait()
            return None
        if answer is PowerRequest.PROCESSOR_OFF:
            message = "the guest has switched its only processor off, so nothing can happen any more"
            return RunResult(StopReason.HALTED, None, vcpu.icount, exit_.pc, message, exit_)
        vcpu.retire(Gva(exit_.pc + 4))
        match answer:
            case PowerRequest.OFF:
                return RunResult(StopReason.EXITED, 0, vcpu.icount, vcpu.cpu.pc, "the guest switched the machine off")
            case PowerRequest.RESET:
                vcpu.request_reset()
            case int():
                r[0] = answer & 0xFFFFFFFF
        return None

    def _begin_wait(self) -> None:
        """Begin to wait for an interrupt, and for nothing else."""
        hypervisor = self._hypervisor()
        if hypervisor is not None:
            hypervisor.polling.stop()
            hypervisor.processor.block()
        self._vcpu.begin_wait()

    def _raise(self, exit_: VmExit, kind: ExceptionKind) -> RunResult | None:
        """Take the exception if the guest can handle it."""
        vcpu = self._vcpu
        refusal = vcpu.exceptions.refusal(kind)
        if not refusal and vcpu.looks_at(kind) and self._storm.is_endless():
            refusal = (
                f"After {vcpu.exception_count} exceptions the guest gets nowhere: its handlers raise them for ever. "
            )
        if refusal:
            return self._fault(exit_, refusal)
        self.raised = kind
        if vcpu.meter is not None:
            vcpu.meter.charge_exit()
        vcpu.count_exception(event_name(exit_), kind)
        vcpu.exceptions.take(exit_, kind)
        if kind is ExceptionKind.SUPERVISOR_CALL:
            vcpu.retire(vcpu.cpu.pc)
        return None

    def _fault(self, exit_: VmExit, context: str = "") -> RunResult:
        message = self._inspector.describe_fault(exit_, context)
        return RunResult(StopReason.FAULT, None, self._vcpu.icount, self._vcpu.cpu.pc, message, exit_)

    def halt(self) -> RunResult:
        """Return the result of a run in which the guest waits for an interrupt that cannot come."""
        pc = self._vcpu.cpu.pc
        exit_ = WaitForInterrupt(pc)
        message = self._inspector.describe_halt(exit_)
        return RunResult(StopReason.HALTED, None, self._vcpu.icount, pc, message, exit_)

    def _note_unknown_register(self, pc: Gva, cpu_model: str) -> None:
        """Tell the user about a privileged access to a CP15 register that does not exist, once for each register."""
        word = self._inspector.peek_code(pc)
        if word is None or word & 0x0F000F10 != 0x0E000F10 or self._vcpu.cpu.mode == Mode.USER:
            return
        place = f"{word >> 21 & 7}, c{word >> 16 & 15}, c{word & 15}, {word >> 5 & 7}"
        access = "MRC" if word >> 20 & 1 else "MCR"
        line = f"{access} p15, {place} at {pc:#010x}: {cpu_model} has no such register, so it is undefined"
        self._unknown_registers.tell((access, place), line)


def event_name(exit_: VmExit) -> str:
    """Return the name of an exit in words: ``DataAbort`` becomes ``data abort``."""
    name = type(exit_).__name__
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
