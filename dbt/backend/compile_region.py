"""From an address to a compiled region. Runs in the worker; imports llvmlite."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dbt.backend.compiled import CompiledRegion, Refused, as_runs
from dbt.backend.link import link_object
from dbt.backend.llvm import Show, compile_object, show_nobody
from dbt.backend.lower import module_text
from dbt.backend.regions import Assumptions, RegionLowering, region_text
from dbt.backend.story import StoryTeller, with_locations
from dbt.frontend.region import HASTE, Guest, Place, Region, RegionFormer
from dbt.frontend.techniques import ALL, Techniques
from isa.a32 import DECODER

if TYPE_CHECKING:
    from dbt.backend.dump import RegionDump


class RegionCompiler:
    """Forms and compiles regions of one guest."""

    def __init__(
        self,
        guest: Guest,
        techniques: Techniques = ALL,
        dump: RegionDump | None = None,
        tell: bool = False,
        tally: bool = False,
    ) -> None:
        """``tell``: with the :mod:`story <dbt.backend.story>` of each region. ``tally``: then also, let them count."""
        self._tell = tell
        self._tally = tally
        self._former = RegionFormer(DECODER.decode, guest, techniques)
        self._techniques = techniques
        self._dump = dump
        self.limits_in_haste = HASTE

    def compile(self, entry: int, assumed: Assumptions, haste: bool = False) -> CompiledRegion | Refused:
        """The region around ``entry``, if there is one to be had. ``haste``: others wait, so a small one."""
        started = time.perf_counter()
        region = self._former.form(entry, self.limits_in_haste if haste else None)
        if not region.blocks:
            return Refused(region.left_out[Place(entry)])
        if self._tell:
            story = StoryTeller(region, haste, started)
            return compile_with_story(region, assumed, self._techniques, self._tally, story)
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
    return [_compiled(region, assumed, code, symbols[f"region{number}"]) for number, region in enumerate(regions)]


def compile_with_story(
    region: Region, assumed: Assumptions, techniques: Techniques, tally: bool, story: StoryTeller
) -> CompiledRegion:
    """A region, and how it was made."""
    lowering = RegionLowering(region, "region0", assumed, techniques, attribute=True, tally=tally)
    text = module_text(lowering.lower())
    story.lowered(text, lowering.f.origins())
    object_bytes = compile_object(with_locations(text), techniques.passes, 1, story.show)
    code, symbols = link_object(object_bytes)
    return _compiled(region, assumed, code, symbols["region0"], story.finish(object_bytes))


def _compiled(region: Region, assumed: Assumptions, code: bytes, start: int, story: bytes = b"") -> CompiledRegion:
    place = assumed.place
    return CompiledRegion(
        place(region.entry),
        start,
        region.insns,
        as_runs({place(gva): word for gva, word in region.words().items()}),
        code,
        assumed.strict_alignment,
        tuple(place(gva) for gva in region.entries)[1:],
        assumed.pages is not None,
        tuple(assumed.pages_of(region)),
        story,
    )
