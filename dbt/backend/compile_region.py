"""From an address to a compiled region. Runs in the worker; imports llvmlite."""

from __future__ import annotations

from collections.abc import Callable

from dbt.backend.link import link_object
from dbt.backend.llvm import compile_object
from dbt.backend.regions import region_text
from dbt.codecache.regions import CompiledRegion, as_runs
from dbt.frontend.region import RegionFormer
from isa.a32 import DECODER

PASSES = ("sroa", "instcombine", "simplifycfg")


class RegionCompiler:
    """``fetch`` gives the guest word at an address, or None where nothing was executed."""

    def __init__(self, fetch: Callable[[int], int | None]) -> None:
        self._former = RegionFormer(DECODER.decode, fetch)

    def compile(self, entry: int) -> CompiledRegion | None:
        region = self._former.form(entry)
        if region is None:
            return None
        code, symbols = link_object(compile_object(region_text(region), PASSES, 2))
        insns = sum(len(block.insns) for block in region.blocks.values())
        return CompiledRegion(entry, symbols["region"], insns, as_runs(region.words()), code)
