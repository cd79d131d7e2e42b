"""From an address to a compiled region. Runs in the worker; imports llvmlite."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dbt.backend.compile_record import CompileRecorder, with_locations
from dbt.backend.compiled import CompiledRegion, Refused, as_runs
from dbt.backend.link import link_object
from dbt.backend.llvm import Show, compile_object, show_nobody
from dbt.backend.lower import module_text
from dbt.backend.region_lowering import Assumptions, RegionLowering, region_text
from dbt.frontend.forming import BACKLOG, Guest, Place, Region, RegionFormer
from dbt.frontend.optimizations import ALL, Optimizations
from isa.arm.a32 import DECODER

if TYPE_CHECKING:
    from dbt.backend.dump import RegionDump


class RegionCompiler:
    """Forms and compiles regions of one guest."""

    def __init__(
        self,
        guest: Guest,
        optimizations: Optimizations = ALL,
        dump: RegionDump | None = None,
        tell: bool = False,
        block_counters: bool = False,
    ) -> None:
        """``tell``: make a :mod:`compile record <dbt.backend.compile_record>` of each region, too.

        ``block_counters``: the regions of which there is one also count their blocks.
        """
        self._tell = tell
        self._block_counters = block_counters
        self._former = RegionFormer(DECODER.decode, guest, optimizations)
        self._optimizations = optimizations
        self._dump = dump
        self.backlog_limits = BACKLOG

    def compile(self, entry: int, assumed: Assumptions, backlog: bool = False) -> CompiledRegion | Refused:
        """The region around ``entry``, if there is one to be had. ``backlog``: others wait, so a small one."""
        started = time.perf_counter()
        region = self._former.form(entry, self.backlog_limits if backlog else None)
        if not region.blocks:
            return Refused(region.left_out[Place(entry)])
        if self._tell:
            compile_record = CompileRecorder(region, backlog, started)
            return compile_with_record(region, assumed, self._optimizations, self._block_counters, compile_record)
        if self._dump is None:
            return compile_regions([region], assumed, self._optimizations)[0]
        dumped = self._dump.begin(region, started)
        (compiled,) = compile_regions([region], assumed, self._optimizations, dumped.show)
        dumped.finish(compiled)
        return compiled


def compile_regions(
    regions: list[Region], assumed: Assumptions, optimizations: Optimizations, show: Show = show_nobody
) -> list[CompiledRegion]:
    """Regions compiled in one module: much cheaper each, but every one has the code of all."""
    text = region_text(regions, assumed, optimizations)
    show("region.ll", lambda: text)
    object_bytes = compile_object(text, optimizations.passes, 1, show)
    show("region.o", lambda: object_bytes)
    code, symbols = link_object(object_bytes)
    return [_compiled(region, assumed, code, symbols[f"region{number}"]) for number, region in enumerate(regions)]


def compile_with_record(
    region: Region,
    assumed: Assumptions,
    optimizations: Optimizations,
    block_counters: bool,
    compile_record: CompileRecorder,
) -> CompiledRegion:
    """A region, and how it was made."""
    lowering = RegionLowering(region, "region0", assumed, optimizations, attribute=True, block_counters=block_counters)
    text = module_text(lowering.lower())
    compile_record.lowered(text, lowering.f.origins())
    object_bytes = compile_object(with_locations(text), optimizations.passes, 1, compile_record.show)
    code, symbols = link_object(object_bytes)
    return _compiled(region, assumed, code, symbols["region0"], compile_record.finish(object_bytes))


def _compiled(
    region: Region, assumed: Assumptions, code: bytes, start: int, compile_record: bytes = b""
) -> CompiledRegion:
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
        compile_record,
    )
