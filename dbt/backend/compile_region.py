"""From an address to a compiled region. Runs in the worker; imports llvmlite."""

from __future__ import annotations

from collections.abc import Callable

from dbt.backend.compiled import CompiledRegion, as_runs
from dbt.backend.link import link_object
from dbt.backend.llvm import compile_object
from dbt.backend.lower import PASSES
from dbt.backend.regions import region_text
from dbt.frontend.region import Region, RegionFormer
from isa.a32 import DECODER


class RegionCompiler:
    """``fetch`` gives the guest word at an address, or None where nothing was executed."""

    def __init__(self, fetch: Callable[[int], int | None]) -> None:
        self._former = RegionFormer(DECODER.decode, fetch)

    def compile(self, entry: int) -> CompiledRegion | None:
        region = self._former.form(entry)
        return None if region is None else self.compile_regions([region])[0]

    @staticmethod
    def compile_regions(regions: list[Region]) -> list[CompiledRegion]:
        """Regions compiled in one module: much cheaper each, but every one has the code of all."""
        code, symbols = link_object(compile_object(region_text(*regions), PASSES, 2))
        return [
            CompiledRegion(
                region.entry,
                symbols[f"region{number}"],
                sum(len(block.insns) for block in region.blocks.values()),
                as_runs(region.words()),
                code,
            )
            for number, region in enumerate(regions)
        ]
