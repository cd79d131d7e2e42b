"""A region tier that compiles at once, for tests: every run starts in a region where there can be one."""

from __future__ import annotations

from collections.abc import Callable

from dbt.abi.addresses import Gpa
from dbt.abi.cpu import CpuState
from dbt.abi.exits import Budget, VmExit
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.engine.profile import ExecutionProfile
from dbt.engine.region_tier import RegionTier, Request
from dbt.engine.tier import Allowance, unlimited
from dbt.frontend.forming import Limits
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram

#: A run is cut after so many instructions, to compile where it has come to. The rest is one slice.
CUTS = (1, 1, 2, 3, 5, 8, 13, 40, 100)


class AllCode:
    """A guest whose words are all taken for code, except zeros; of other things, what was seen of them.

    Of an indirect branch two targets more are made up, as any prediction must be harmless.
    """

    def __init__(self, ram: Ram, seen: ExecutionProfile) -> None:
        self._words, self._ram, self._profile = ram.bytes.cast("I"), ram, seen

    def executed(self, gva: int) -> int | None:
        return (self._words[gva >> 2] or None) if Gpa(gva) in self._ram else None

    def constant(self, gva: int) -> int | None:
        return self._profile.constant(gva)

    def entered(self, gva: int) -> bool:
        return self._profile.entered(gva)

    def covered(self, gva: int) -> bool:
        return self._profile.covered(gva)

    def targets(self, gva: int) -> list[int]:
        seen = self._profile.targets(gva)
        return [*seen, *(target + 4 for target in seen[:1]), gva + 12] if seen else []


class EagerRegionTier(RegionTier):
    """Compiles around the PC whenever a run begins, and several times in a long one, ``regions`` times at most,
    and as many more where regions are dropped.

    A region takes in whatever is in reach and not zero, executed before or not. Every other one is made in backlog
    mode, and leaves to others what it can.
    """

    name = "regions"

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        regions: int = 12,
        optimizations: Optimizations = ALL,
        allowance: Allowance = unlimited,
    ) -> None:
        super().__init__(cpu, memory, jit="off", keep=False, optimizations=optimizations, allowance=allowance)
        self._left = regions
        self._spare = regions

    def run(self, budget: int) -> tuple[VmExit, int]:
        done = 0
        for cut in CUTS:
            if done + cut >= budget or not self._left:
                break
            self._compile_here()
            exit_, retired = super().run(cut)
            done += retired
            if not isinstance(exit_, Budget) or retired < cut:
                return exit_, done
        self._compile_here()
        exit_, retired = super().run(budget - done)
        return exit_, done + retired

    def _compile_here(self) -> None:
        for gva in list(self._entered_later):
            if self._profile.executed(gva) is not None:
                self._enter_at(gva, self._entered_later.pop(gva))
        pc = self._cpu.r[15]
        if self._left and pc not in self._installed and Gpa(pc) in self._memory.ram:
            super().run(0)  # decodes the op, so that there is a handler to go back to
            self._left -= self.compile_now(pc)

    def _drop(self, entry: int, why: str, written: int | None = None) -> None:
        super()._drop(entry, why, written)
        if self._spare:
            self._spare -= 1
            self._left += 1

    def _make_compile(self) -> Callable[[Request], CompiledRegion | Refused]:
        from dbt.backend.compile_region import RegionCompiler
        from dbt.backend.region_lowering import Assumptions

        compiler = RegionCompiler(backlog_limits=Limits(near=4, copies=4))
        guest = AllCode(self._memory.ram, self._profile)

        def compile_(request: Request) -> CompiledRegion | Refused:
            self._profile.refresh()
            return compiler.compile(guest, request.gva, Assumptions(request.context), backlog=bool(request.gva & 4))

        return compile_
