"""The result of a run, as a value."""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

from enum import Enum
from typing import NamedTuple

from dbt.abi.addresses import Gva
from dbt.abi.exits import VmExit


class StopReason(Enum):
    """Why :meth:`dbt.vm.machine.Machine.run` returned."""

    EXITED = "exited"  # the guest asked to exit, by semihosting
    FUEL = "fuel"  # exactly as many instructions as allowed were retired
    TIMEOUT = "timeout"  # the time limit passed
    FAULT = "fault"  # the guest did something that neither it nor the machine can handle
    HALTED = "halted"  # the guest waits for an interrupt, and nothing can send one; or a kernel gave up while it booted
    INTERRUPTED = "interrupted"  # Machine.interrupt was called
    STOPPED = "stopped"  # a debugger wants the guest to stop here
    WAITING = "waiting"  # the guest waits for an interrupt, and its time passes elsewhere: Machine.run_metered


class RunResult(NamedTuple):
    """How a run ended.

    - ``exit_code``: 0 to 255 if the reason is EXITED, otherwise None.
    - ``icount``: the number of instructions retired since the machine was reset.
    - ``pc``: the address of the next instruction. For FAULT and HALTED it is the one that could not be completed.
    - ``message``: one paragraph for people, which is empty if there is nothing to explain.
    - ``exit``: the exit of the tier, for FAULT and HALTED, and for STOPPED at a breakpoint or watchpoint.
    - ``advice``: what to try with a kernel that has written nothing, in sentences, or empty.
    """

    reason: StopReason
    exit_code: int | None
    icount: int
    pc: Gva
    message: str
    exit: VmExit | None = None
    advice: str = ""
