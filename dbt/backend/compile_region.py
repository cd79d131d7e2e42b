"""From an address to a compiled region. Runs in the worker; imports llvmlite."""

from __future__ import annotations

from dbt.backend.compiled import CompiledRegion, as_runs
from dbt.backend.link import link_object
from dbt.backend.llvm import compile_object
from dbt.backend.regions import Assumptions, region_text
from dbt.frontend.region import Guest, Region, RegionFormer
from dbt.frontend.techniques import ALL, Techniques
from isa.a32 import DECODER


class RegionCompiler:
    """Forms and compiles regions of one guest."""

    def __init__(self, guest: Guest, techniques: Techniques = ALL) -> None:
        self._former = RegionFormer(DECODER.decode, guest, techniques)
        self._techniques = techniques

    def compile(self, entry: int, assumed: Assumptions) -> CompiledRegion | None:
        """The region around ``entry``; None if there is none to be had."""
        region = self._former.form(entry)
        return None if region is None else compile_regions([region], assumed, self._techniques)[0]


def compile_regions(regions: list[Region], assumed: Assumptions, techniques: Techniques) -> list[CompiledRegion]:
    """Regions compiled in one module: much cheaper each, but every one has the code of all."""
    text = region_text(regions, assumed, techniques)
    code, symbols = link_object(compile_object(text, techniques.passes, 2))
    return [
        CompiledRegion(
            region.entry,
            symbols[f"region{number}"],
            region.insns,
            as_runs(region.words()),
            code,
            assumed.strict_alignment,
        )
        for number, region in enumerate(regions)
    ]
