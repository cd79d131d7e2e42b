"""From an address to a compiled region. Runs in the worker; imports llvmlite."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dbt.backend.compiled import CompiledRegion, as_runs
from dbt.backend.link import link_object
from dbt.backend.llvm import Show, compile_object, show_nobody
from dbt.backend.regions import Assumptions, region_text
from dbt.frontend.region import HASTE, Guest, Region, RegionFormer
from dbt.frontend.techniques import ALL, Techniques
from isa.a32 import DECODER

if TYPE_CHECKING:
    from dbt.backend.dump import RegionDump


class RegionCompiler:
    """Forms and compiles regions of one guest."""

    def __init__(self, guest: Guest, techniques: Techniques = ALL, dump: RegionDump | None = None) -> None:
        self._former = RegionFormer(DECODER.decode, guest, techniques)
        self._techniques = techniques
        self._dump = dump
        self.limits_in_haste = HASTE

    def compile(self, entry: int, assumed: Assumptions, haste: bool = False) -> CompiledRegion | None:
        """The region around ``entry``; None if there is none to be had. ``haste``: others wait, so a small one."""
        started = time.perf_counter()
        region = self._former.form(entry, self.limits_in_haste if haste else None)
        if region is None:
            return None
        if self._dump is None:
            return compile_regions([region], assumed, self._techniques)[0]
        dumped = self._dump.begin(region, started)
        (compiled,) = compile_regions([region], assumed, self._techniques, dumped.show)
        dumped.finish(compiled)
        return compiled


def compile_regions(
    regions: list[Region], assumed: Assumptions, techniques: Techniques, show: Show = show_nobody
) -> list[CompiledRegion]:
    """Regions compiled in one module: much cheaper each, but every one has the code of all."""
    text = region_text(regions, assumed, techniques)
    show("region.ll", lambda: text)
    object_bytes = compile_object(text, techniques.passes, 1, show)
    show("region.o", lambda: object_bytes)
    code, symbols = link_object(object_bytes)
    place = assumed.place
    return [
        CompiledRegion(
            place(region.entry),
            symbols[f"region{number}"],
            region.insns,
            as_runs({place(gva): word for gva, word in region.words().items()}),
            code,
            assumed.strict_alignment,
            tuple(place(gva) for gva in region.entries)[1:],
            assumed.pages is not None,
            tuple(assumed.pages_of(region)),
        )
        for number, region in enumerate(regions)
    ]
