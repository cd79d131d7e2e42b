"""A stitched tier that stitches at once, for tests: every run starts in stitched code where there can be any."""

from __future__ import annotations

from dbt.abi.addresses import Gpa
from dbt.abi.cpu import CpuState
from dbt.abi.exits import Budget, VmExit
from dbt.engine.threaded import ThreadedTier
from dbt.engine.tier import Allowance, unlimited
from dbt.memory.guest_memory import GuestMemory
from tests.oracle.programs.eager import CUTS


class EagerStitchedTier(ThreadedTier):
    """Stitches around the PC whenever a run begins, and several times in a long one."""

    name = "stitched"

    def __init__(self, cpu: CpuState, memory: GuestMemory, allowance: Allowance = unlimited) -> None:
        super().__init__(cpu, memory, allowance=allowance, stitch=True)

    def run(self, budget: int) -> tuple[VmExit, int]:
        done = 0
        for cut in CUTS:
            if done + cut >= budget:
                break
            self._stitch_here()
            exit_, retired = super().run(cut)
            done += retired
            if not isinstance(exit_, Budget) or retired < cut:
                return exit_, done
        self._stitch_here()
        exit_, retired = super().run(budget - done)
        return exit_, done + retired

    def _stitch_here(self) -> None:
        assert self.stitched is not None
        gpa = Gpa(self._cpu.pc)  # no program for this tier has the MMU on while it is used
        if gpa in self._memory.ram and self.code_pages.has_code(gpa) and self.code_pages.has_image_handler(gpa):
            self.stitched.stitch(self.code_pages.op_at(gpa))
