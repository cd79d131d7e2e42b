"""Forming and compiling the region at an address. This runs in the compile worker and imports llvmlite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gva
from dbt.backend.compile_record import CompileRecorder, with_locations
from dbt.backend.compiled import CompiledRegion, Refused, as_runs
from dbt.backend.link import Patch, link_object
from dbt.backend.llvm import Show, compile_object, show_nobody
from dbt.backend.lower import module_text
from dbt.backend.region_exits import Assumptions
from dbt.backend.region_lowering import RegionLowering
from dbt.frontend.context import TranslationContext
from dbt.frontend.forming import BACKLOG, Decode, Guest, Limits, Place, RecordedWords, Region, RegionFormer
from isa.arm.a32 import DECODER
from isa.ir.registry import Insn

if TYPE_CHECKING:
    from dbt.backend.dump import RegionDump

#: A function that has LLVM make an object of a module's text, with these passes. Raises NoObject.
ToObject = Callable[[str, Iterable[str]], bytes]
#: The number of words whose uops are kept, about 5 KB each, before all of them are dropped.
_MOST_RECORDED = 8192


class NoObject(Exception):
    """Raised if LLVM made no object where it executes apart from the caller. The text is the reason."""


def decoder_for(context: TranslationContext) -> Decode:
    """Return the decoder of the instructions that a processor of the context has."""

    def decode(word: int) -> Insn | None:
        insn = DECODER.decode(word)
        return insn if insn is not None and insn.since <= context.architecture else None

    return decode


class RegionCompiler:
    """Forms and compiles regions of any guest, under any context."""

    def __init__(
        self, dump: RegionDump | None = None, backlog_limits: Limits = BACKLOG, apart: ToObject | None = None
    ) -> None:
        """``dump`` writes the stages of each region, if it is given. With ``apart``, LLVM executes there and nowhere
        else, and there are neither stages nor compile records.
        """
        self._dump, self._apart = dump, apart
        self._backlog_limits = backlog_limits
        self._recorded: dict[object, RecordedWords] = {}  # by the part of the context that decoding depends on

    def compile(
        self, guest: Guest, entry: Gva, assumed: Assumptions, backlog: bool = False
    ) -> CompiledRegion | Refused:
        """Return the region around the GVA ``entry``, or why there is none. In ``backlog`` mode the region is small,
        because others wait.
        """
        started = time.perf_counter()
        context = assumed.context
        former = RegionFormer(
            decoder_for(context), guest, context.optimizations, recorded=self._recorded_under(context)
        )
        region = former.form(entry, self._backlog_limits if backlog else None)
        if not region.blocks:
            return Refused(region.left_out[Place(entry)])
        if self._apart is not None:
            return _compiled_apart(region, assumed, self._apart)
        if context.compile_records:
            return compile_with_record(region, assumed, CompileRecorder(region, backlog, started))
        if self._dump is None:
            return compile_regions([region], assumed)[0]
        dumped = self._dump.begin(region, started)
        (compiled,) = compile_regions([region], assumed, dumped.show)
        dumped.finish(compiled)
        return compiled

    def _recorded_under(self, context: TranslationContext) -> RecordedWords:
        recorded = self._recorded.setdefault(context.decoding, {})
        if len(recorded) > _MOST_RECORDED:
            recorded.clear()
        return recorded


def _compiled_apart(region: Region, assumed: Assumptions, apart: ToObject) -> CompiledRegion | Refused:
    """Return a region whose code is what ``apart`` made. All else of it is said here, so no code can claim to have been
    made of other words than these.
    """
    if assumed.context.compile_records:
        return Refused("its compile record would have to be made where LLVM is not")
    lowering, patches = RegionLowering(region, "region0", assumed), list[Patch]()
    try:
        object_bytes = apart(module_text(lowering.lower()), assumed.context.optimizations.passes)
    except NoObject as error:
        return Refused(str(error))
    return _compiled(lowering, *link_object(object_bytes, patches), patches)


def compile_regions(regions: list[Region], assumed: Assumptions, show: Show = show_nobody) -> list[CompiledRegion]:
    """Return regions that are compiled in one module. Each costs much less, but each has the code of all."""
    lowerings = [RegionLowering(region, f"region{number}", assumed) for number, region in enumerate(regions)]
    text = module_text(*(lowering.lower() for lowering in lowerings))
    show("region.ll", lambda: text)
    object_bytes = compile_object(text, assumed.context.optimizations.passes, 1, show)
    show("region.o", lambda: object_bytes)
    patches = list[Patch]()
    linked = link_object(object_bytes, patches)
    return [_compiled(lowering, *linked, patches) for lowering in lowerings]


def compile_with_record(region: Region, assumed: Assumptions, compile_record: CompileRecorder) -> CompiledRegion:
    """Return a compiled region with its compile record."""
    lowering = RegionLowering(region, "region0", assumed, attribute=True)
    text = module_text(lowering.lower())
    compile_record.lowered(text, lowering.f.origins())
    object_bytes = compile_object(with_locations(text), assumed.context.optimizations.passes, 1, compile_record.show)
    patches = list[Patch]()
    return _compiled(lowering, *link_object(object_bytes, patches), patches, compile_record.finish(object_bytes))


def _compiled(
    lowering: RegionLowering, code: bytes, symbols: Mapping[str, int], patches: Iterable[Patch], record: bytes = b""
) -> CompiledRegion:
    region, assumed, flows = lowering.region, lowering.assumed, None
    place, counting = assumed.place, lowering.counting
    if counting is not None:
        flows = counting.flows(tuple((offset, addend) for name, offset, addend in patches if name == counting.symbol))
    return CompiledRegion(
        place(region.entry),
        symbols[lowering.name],
        region.insns,
        as_runs({place(gva): word for gva, word in region.words().items()}),
        code,
        assumed.context,
        tuple(place(gva) for gva in region.entries)[1:],
        tuple(assumed.pages_of(region)),
        record,
        flows,
    )
