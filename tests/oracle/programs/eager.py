"""A region tier that compiles at once, for tests: every run starts in a region where there can be one."""

from __future__ import annotations

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import CpuState
from dbt.abi.exits import Budget, VmExit
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.engine.messages import CompileRequest
from dbt.engine.mirror import CodeMirror
from dbt.engine.observer import Observer
from dbt.engine.region_tier import RegionTier
from dbt.engine.tier import Allowance, unlimited
from dbt.engine.worker import CompileWorker
from dbt.engine.worker_process import Compile
from dbt.frontend.forming import Limits
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.memory.guest_memory import GuestMemory

#: A run is cut after so many instructions, to compile where it has come to. The rest is one slice.
CUTS = (1, 1, 2, 3, 5, 8, 13, 40, 100)


class AllCode:
    """A guest whose words are all taken for code, except zeros; of other things, what was seen of them.

    Of an indirect branch two targets more are made up, as any prediction must be harmless.
    """

    def __init__(self, seen: CodeMirror) -> None:
        self._seen = seen

    def executed(self, gva: Gva) -> int | None:
        return self._seen.word(gva) or None

    def constant(self, gva: Gva) -> int | None:
        return self._seen.constant(gva)

    def entered(self, gva: Gva) -> bool:
        return self._seen.entered(gva)

    def covered(self, gva: Gva) -> bool:
        return self._seen.covered(gva)

    def targets(self, gva: Gva) -> list[Gva]:
        seen = self._seen.targets(gva)
        return [*seen, *(Gva(target + 4) for target in seen[:1]), Gva(gva + 12)] if seen else []


def _make_compile() -> Compile:
    """In the compiler's process. Every other region is made in backlog mode, and leaves to others what it can."""
    from dbt.backend.compile_region import RegionCompiler
    from dbt.backend.region_exits import Assumptions

    compiler = RegionCompiler(backlog_limits=Limits(near=4, copies=4))

    def compile_(mirror: CodeMirror, request: CompileRequest) -> CompiledRegion | Refused:
        pages = None if request.pages is None else dict(request.pages)
        mirror.set_page_map(pages)
        assumed = Assumptions(request.context, pages)
        return compiler.compile(AllCode(mirror), request.gva, assumed, backlog=bool(request.gva & 4))

    return compile_


#: The compiler of all eager tiers.
_WORKER = CompileWorker(_make_compile)


class _Allotment(Observer):
    """How many regions may still be compiled, and how many more where regions are dropped."""

    def __init__(self, regions: int) -> None:
        self.left = self._spare = regions

    def region_dropped(self, entry: Gpa, why: str, written: Gpa | None) -> None:
        if self._spare:
            self._spare -= 1
            self.left += 1


class EagerRegionTier(RegionTier):
    """Compiles around the PC whenever a run begins, and several times in a long one, ``regions`` times at most,
    and as many more where regions are dropped.

    A region takes in whatever is in reach and not zero, executed before or not.
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
        self._allotment = allotment = _Allotment(regions)
        super().__init__(
            cpu,
            memory,
            jit="off",
            keep=False,
            optimizations=optimizations,
            observer=allotment,
            allowance=allowance,
            worker=_WORKER,
        )

    def run(self, budget: int) -> tuple[VmExit, int]:
        done = 0
        for cut in CUTS:
            if done + cut >= budget or not self._allotment.left:
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
        self.cache.enter_decoded()
        pc = self._cpu.pc
        gpa = Gpa(pc)  # no program for this tier has the MMU on while it is used
        if self._allotment.left and gpa not in self.cache.installed and gpa in self._memory.ram:
            super().run(0)  # decodes the op, so that there is a handler to go back to
            self._allotment.left -= self.compile_now(pc)
