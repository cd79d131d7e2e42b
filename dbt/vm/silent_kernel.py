"""Kernels that write nothing to their console: what a user is told about one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.host.output_queue import OutputQueue
from dbt.vm.result import RunResult, StopReason

if TYPE_CHECKING:
    from dbt.board.boards import BoardModel

#: Instructions after which a kernel has written something, if it ever does: Linux has after some hundred million.
PATIENCE = 1 << 32
#: So few instructions say nothing about a kernel that a limit has stopped.
_SHORT_RUN = 1 << 26
_ENDS = (StopReason.FAULT, StopReason.HALTED)
_LIMITS = (StopReason.FUEL, StopReason.TIMEOUT, StopReason.INTERRUPTED)


class SilentKernel:
    """Tells the user of a kernel that runs and runs, or stops, and was never heard of.

    ``output`` has what the guest writes. It is known of guests that have been watched since their reset.
    """

    def __init__(self, board: BoardModel, output: OutputQueue, notice: Callable[[str], None]) -> None:
        self._board = board
        self._output = output
        self._notice = notice
        self._is_watched = False

    def begin_run(self, icount: int) -> None:
        """A run begins after so many instructions since the reset."""
        if not icount:
            self._is_watched = True
            self._output.is_silent = True

    @property
    def _is_silent(self) -> bool:
        return self._is_watched and self._output.is_silent

    def look(self, icount: int, cpu_model: str, describe_pc: Callable[[], str]) -> None:
        """Look at a kernel between two instructions, at each multiple of a power of 2."""
        if icount == PATIENCE and self._is_silent:
            advice = self._advice(cpu_model)
            self._notice(f"after {icount} instructions the kernel is at {describe_pc()}. {advice}")

    def explain(self, result: RunResult, cpu_model: str) -> RunResult:
        """Return the result of a kernel's run, with advice if the kernel has written nothing."""
        is_long = result.reason in _LIMITS and result.icount >= _SHORT_RUN
        if self._is_silent and (is_long or result.reason in _ENDS):
            return result._replace(advice=self._advice(cpu_model))
        return result

    @property
    def _arguments(self) -> str:
        if self._board.is_domain:
            return "console=hvc0 earlyprintk=xen"
        return f"console=ttyAMA0 earlycon=pl011,{self._board.console_base:#x}"

    def _advice(self, cpu_model: str) -> str:
        from dbt.board.boards import BOARDS, CPU_MODELS

        board = self._board
        boards = " or ".join(f"--board {name}" for name in BOARDS if name != board.name)
        models = ", ".join(name for name in CPU_MODELS if name != cpu_model)
        return (
            f"The kernel has written nothing to its console. The board is {board.name}, the processor {cpu_model}: is "
            f"the kernel built for them? Try {boards}, or --cpu with {models}. With --append "
            f"'{self._arguments}' Linux says what it does before its console is there."
        )
