"""How a run ended, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dbt.abi.exits import VmExit


class StopReason(Enum):
    """Why :meth:`dbt.vm.machine.Machine.run` came back."""

    EXITED = "exited"  # the guest asked to exit, by semihosting
    FUEL = "fuel"  # exactly as many instructions as allowed were retired
    TIMEOUT = "timeout"  # the time limit passed
    FAULT = "fault"  # the guest did something that neither it nor the machine can handle
    HALTED = "halted"  # the guest waits for an interrupt, and nothing can send one; or a kernel gave up while it booted
    INTERRUPTED = "interrupted"  # Machine.interrupt was called


@dataclass(frozen=True, slots=True)
class RunResult:
    """``pc`` is the next instruction, or for FAULT and HALTED the one that could not be completed.

    ``exit_code`` (0 to 255) is there if and only if the reason is EXITED. ``icount`` counts the
    instructions retired since the machine was reset. ``message`` is for people, one paragraph,
    empty if there is nothing to explain.
    ``exit`` is what the engine left with, for FAULT and HALTED.
    """

    reason: StopReason
    exit_code: int | None
    icount: int
    pc: int
    message: str
    exit: VmExit | None = None
