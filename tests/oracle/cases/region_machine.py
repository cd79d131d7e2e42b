"""A machine that runs each case's code as one region, which begins at CODE.

Compiling takes milliseconds, so the cases should be announced to :meth:`CaseTier.prepare`, which compiles all of them
in one module.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gva
from dbt.abi.cpu import CpuState
from dbt.abi.exits import VmExit
from dbt.backend.compile_region import compile_regions
from dbt.backend.compiled import CompiledRegion
from dbt.backend.region_exits import Assumptions
from dbt.engine.region_tier import RegionTier
from dbt.frontend.forming import RegionFormer
from dbt.memory.guest_memory import GuestMemory
from isa.arm.a32 import DECODER
from tests.oracle.cases.case import CODE, Case, Outcome
from tests.oracle.cases.tier_machine import TierMachine

if TYPE_CHECKING:
    from dbt.frontend.forming import Region

Code = tuple[int, ...]


class CaseCode:
    """The code of a case, all of it executed; memory holds no constants."""

    def __init__(self, code: Code) -> None:
        self._words = {Gva(CODE + 4 * n): word for n, word in enumerate(code)}

    def executed(self, gva: Gva) -> int | None:
        return self._words.get(gva)

    def constant(self, gva: Gva) -> int | None:
        return None

    def entered(self, gva: Gva) -> bool:
        return False

    def covered(self, gva: Gva) -> bool:
        return False

    def targets(self, gva: Gva) -> list[Gva]:
        return []


class CaseTier(RegionTier):
    """Installs the region of the expected code before each run. ``entered`` counts runs that began in one."""

    name = "regions"

    def __init__(self, cpu: CpuState, memory: GuestMemory) -> None:
        super().__init__(cpu, memory, jit="off", keep=False)
        self._compiled: dict[Code, CompiledRegion | None] = {}
        self.expected: Code = ()
        self.entered = 0

    def prepare(self, codes: Iterable[Code]) -> None:
        regions: dict[Code, Region] = {}
        for code in codes:
            region = RegionFormer(DECODER.decode, CaseCode(code)).form(Gva(CODE))
            self._compiled[code] = None
            if region.blocks:
                regions[code] = region
        if regions:
            self._compiled |= zip(
                regions,
                compile_regions(list(regions.values()), Assumptions(self.context)),
                strict=True,
            )

    def run(self, budget: int) -> tuple[VmExit, int]:
        if self.expected not in self._compiled:
            self.prepare([self.expected])
        region = self._compiled[self.expected]
        if region is not None:
            if CODE not in self.cache.installed:
                super().run(0)  # decodes the op
                assert self.cache.install(region, self.context, kept=False)
            self.entered += 1
        return super().run(budget)


class RegionMachine(TierMachine):
    """Runs each case in a region."""

    def __init__(self) -> None:
        super().__init__("threaded")
        self.name = "regions"
        self.tier: CaseTier = CaseTier(self.cpu, self.memory)

    def run(self, case: Case, stepwise: bool = False) -> Outcome:
        self.tier.expected = case.code
        return super().run(case, stepwise)
