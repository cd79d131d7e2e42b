"""The installed regions, and the translation contexts that the guest comes into.

Each region replaces the handlers of ops until the guest writes over what it was made from, or is in another context.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gpa, Hva
from dbt.abi.cpu import CpuState
from dbt.abi.layout import PAGE_SHIFT, BlockCounters, SideExit
from dbt.engine.arena import ArenaLease, Placed
from dbt.engine.code_pages import CodePages
from dbt.engine.observer import Observer
from dbt.engine.region_counts import RegionCounts
from dbt.engine.stitched import StitchedCode
from dbt.frontend.context import TranslationContext
from dbt.frontend.optimizations import Optimizations
from dbt.memory.ram import Ram, RamLayout
from isa.arm.state import LAYOUT, SCTLR_A, SCTLR_M

if TYPE_CHECKING:
    from dbt.backend.compiled import CompiledRegion

#: After so many regions were made from a page and written over, it is left to the threaded tier.
MAX_PAGE_REWRITES = 8
#: The bits of SCTLR that are part of the translation context.
_REGIME = SCTLR_A | SCTLR_M
_SCTLR, _ARCHITECTURE = LAYOUT["sctlr"].index, LAYOUT["architecture"].index
#: Optimizations by which loads do not look at the shadow page tables, which a debugger that watches loads relies on.
_PREDICTED_LOADS = ("flat", "literals", "tables")
#: The arrivals at regions that do not suit the MMU and SCTLR.A as they are, after which regions of other contexts are
#: dropped, for each of these. So many lose about as much time as dropping a region takes.
_IN_THE_WAY = 1 << 13


class InstalledRegion(NamedTuple):
    """A region, and where its code is."""

    region: CompiledRegion
    placed: Placed

    @property
    def address(self) -> Hva:
        """The HVA of its code."""
        return self.placed.address

    @property
    def handler(self) -> Hva:
        """The HVA of its function."""
        return Hva(self.address + self.region.start)

    def counts(self) -> Iterator[tuple[BlockCounters, Gpa, int]]:
        """Yield what it has counted by address: see :meth:`dbt.backend.block_flows.BlockFlows.counts`."""
        flows = self.region.flows
        if flows is not None and self.placed.counters is not None:
            numbers = (ctypes.c_uint64 * flows.counters).from_address(self.placed.counters)
            yield from flows.counts(list(numbers))


class RegionCache:
    """The installed regions of one machine."""

    def __init__(
        self,
        ram: Ram,
        code_pages: CodePages,
        arena: ArenaLease,
        counts: RegionCounts,
        observer: Observer,
        stitched: StitchedCode | None = None,
    ) -> None:
        self._stitched = stitched
        self._ram, self._code_pages, self._arena = ram, code_pages, arena
        self._counts, self._observer = counts, observer
        self.installed: dict[Gpa, InstalledRegion] = {}  # by entry
        self._counted = {what: Counter[Gpa]() for what in BlockCounters}  # by regions that were dropped
        self._contexts: Counter[TranslationContext] = Counter()  # how many regions were made under each
        self._entered: dict[Gpa, Gpa] = {}  # by address: the entry of the region whose code its op has
        self._entered_later: dict[Gpa, Gpa] = {}  # likewise, of ops that have not been decoded yet
        self._covering: dict[int, dict[Gpa, set[Gpa]]] = {}  # entries by page and address of a guest word
        self._rewrites: dict[int, int] = {}  # regions dropped because they were written over, by page
        self._beside_breakpoints: set[Gpa] = set()  # entries of regions that were made while there were breakpoints

    @property
    def pages(self) -> set[int]:
        """The numbers of the pages from which regions were made, or where they are entered."""
        return {*self._covering, *(gpa >> PAGE_SHIFT for gpa in (*self._entered, *self._entered_later))}

    def is_entered(self, gpa: Gpa) -> bool:
        """Return True if the op's handler is the code of a region."""
        return gpa in self._entered

    def has_region(self, gpa: Gpa, context: TranslationContext) -> bool:
        """Return True if a region with this entry is installed that was made under ``context``."""
        found = self.installed.get(gpa)
        return found is not None and found.region.context == context

    def is_rewritten(self, gpa: Gpa) -> bool:
        """Return True if the page's code was written over so often that it is left to the threaded tier."""
        return self._rewrites.get(gpa >> PAGE_SHIFT, 0) >= MAX_PAGE_REWRITES

    # -- installing ----------------------------------------------------------------------------

    def install(self, region: CompiledRegion, context: TranslationContext, kept: bool) -> bool:
        """Replace the handler of the region's entry by the region. ``kept`` says whether it was on disk.

        Return False if it was not made under ``context``, which is the guest's, if memory no longer holds what it was
        made from, if a debugger has a breakpoint in it, or if there is no room. A region with the same entry that was
        made under another context is dropped.
        """
        if region.context != context or self.changed_word(region) is not None:
            return False
        if not self._code_pages.is_decoded(region.entry):
            # Written over in the meantime: there is no handler to go back to yet. It may become hot again.
            self._code_pages.set_arrivals(region.entry, 0)
            return False
        breakpoints = self._code_pages.breakpoints
        if any(gpa <= place < gpa + len(data) for place in breakpoints for gpa, data in region.runs):
            return False
        placed = self._place(region)
        if placed is None:
            return False
        if region.entry in self.installed:
            self._drop(region.entry, "a region for another translation context takes its place")
        for gpa, data in region.runs:
            for page in range(gpa >> PAGE_SHIFT, (gpa + len(data) - 1 >> PAGE_SHIFT) + 1):
                self._code_pages.need(page)
            for word in map(Gpa, range(gpa, gpa + len(data), 4)):
                self._covering.setdefault(word >> PAGE_SHIFT, {}).setdefault(word, set()).add(region.entry)
                self._code_pages.set_covered(word, True)
        self.installed[region.entry] = InstalledRegion(region, placed)
        self._contexts[context] += 1
        if breakpoints and not kept:
            self._beside_breakpoints.add(region.entry)
        self._enter_at(region.entry, region.entry)
        for gpa in region.others:
            if gpa in self._entered:
                continue
            if not self._code_pages.is_decoded(gpa):
                self._entered_later[gpa] = region.entry
            else:
                self._enter_at(gpa, region.entry)
        self._counts.insns += region.insns
        self._counts.code_bytes += len(region.code)
        self._observer.region_installed(region, placed.address, kept)
        return True

    def _place(self, region: CompiledRegion) -> Placed | None:
        placed = self._arena.place(region.code, region.flows)
        if placed is None and self.installed:
            self.drop_all("there is no more room for code")
            placed = self._arena.place(region.code, region.flows)
        return placed

    def block_counts(self) -> Mapping[BlockCounters, Mapping[Gpa, int]]:
        """Return what regions have counted by address, those that were dropped too."""
        found = {what: Counter(counts) for what, counts in self._counted.items()}
        for installed in self.installed.values():
            _add_counts(found, installed)
        return found

    def changed_word(self, region: CompiledRegion) -> Gpa | None:
        """Return the address of the first word that is not what the region was made from, or None."""
        ram = self._ram.bytes
        for gpa, data in region.runs:
            if not self._ram.layout.covers(gpa, len(data)):
                return gpa
            if ram[gpa : gpa + len(data)] != data:
                for at in range(0, len(data), 4):
                    if ram[gpa + at : gpa + at + 4] != data[at : at + 4]:
                        return Gpa(gpa + at)
        return None

    def _enter_at(self, gpa: Gpa, entry: Gpa) -> None:
        """Let the op there have the code of a region. What it replaces is remembered: where the budget does not last,
        the handler goes on.
        """
        if self._stitched is not None:
            self._stitched.divert(self._code_pages.op_at(gpa))
        self._code_pages.replace_handler(gpa, self.installed[entry].handler)
        self._entered[gpa] = entry

    def enter_later(self, gpa: Gpa) -> bool:
        """Let the op have a region's code, if it was to once it is decoded."""
        entry = self._entered_later.pop(gpa, None)
        if entry is None:
            return False
        self._enter_at(gpa, entry)
        return True

    def enter_decoded(self) -> None:
        """Do so for all ops that are decoded by now."""
        for gpa in [gpa for gpa in self._entered_later if self._code_pages.is_decoded(gpa)]:
            self.enter_later(gpa)

    # -- code that is written over -------------------------------------------------------------

    def write(self, gpa: Gpa, size: int) -> None:
        """Drop the regions that were made from these words, because the words are about to change."""
        written = range(gpa >> PAGE_SHIFT, (gpa + size - 1 >> PAGE_SHIFT) + 1)
        is_large = len(written) > len(self._covering)
        for page in sorted(page for page in self._covering if page in written) if is_large else written:
            if (words := self._covering.get(page)) is None:
                continue
            start, end = max(page << PAGE_SHIFT, gpa & ~3), min(page + 1 << PAGE_SHIFT, gpa + size)
            for word in map(Gpa, range(start, end, 4)):
                if word in words:
                    self._write_word(word, list(words[word]))

    def _write_word(self, word: Gpa, entries: Sequence[Gpa]) -> None:
        decoded = self._code_pages.is_decoded(word)
        if decoded:
            self._counts.code_writes += len(entries)
        else:
            self._code_pages.set_changes(word)  # a literal that is none
            self._counts.literal_writes += len(entries)
        what = "code" if decoded else "literal"
        for entry in entries:
            region = self.installed[entry].region
            self._drop(entry, f"{what} written over", word)
            self._count_rewrite(region)

    def set_breakpoint(self, gpa: Gpa) -> None:
        """Drop the regions that were made from a word, because a debugger wants the guest to stop there."""
        for entry in list(self._covering.get(gpa >> PAGE_SHIFT, {}).get(gpa, ())):
            self._drop(entry, "a debugger has set a breakpoint")

    def clear_breakpoint(self) -> None:
        """Drop the regions that were made while there were breakpoints, which may have cut them short."""
        for entry in list(self._beside_breakpoints):
            self._drop(entry, "a debugger has removed a breakpoint")

    def _count_rewrite(self, region: CompiledRegion) -> None:
        page = region.entry >> PAGE_SHIFT
        self._rewrites[page] = self._rewrites.get(page, 0) + 1
        if self._rewrites[page] == MAX_PAGE_REWRITES:
            why = f"its page was written over {MAX_PAGE_REWRITES} times, and is left to the threaded tier"
            self._observer.region_refused(region.entry, region.gva_of(region.entry), why)

    def _drop(self, entry: Gpa, why: str, written: Gpa | None = None) -> None:
        """``written``: the GPA of the word whose change is the reason."""
        dropped = self.installed.pop(entry)
        self._beside_breakpoints.discard(entry)
        region = dropped.region
        self._contexts[region.context] -= 1
        pages = set()
        for gpa in (entry, *region.others):
            if self._entered_later.get(gpa) == entry:
                del self._entered_later[gpa]
            if self._entered.get(gpa) != entry:
                continue
            del self._entered[gpa]
            pages.add(gpa >> PAGE_SHIFT)
            if self._code_pages.handler(gpa) == dropped.handler:
                self._code_pages.restore_handler(gpa)
            self._code_pages.set_arrivals(gpa, 0)
        if self._stitched is not None:
            # Stitched code still jumps to the heads that were diverted. It counts no arrivals there.
            for page in pages:
                self._stitched.drop_page(page)
        for gpa, data in region.runs:
            for word in map(Gpa, range(gpa, gpa + len(data), 4)):
                words = self._covering[page := word >> PAGE_SHIFT]
                words[word].discard(entry)
                if not words[word]:
                    del words[word]
                    self._code_pages.set_covered(word, False)
                    if not words:
                        del self._covering[page]
        _add_counts(self._counted, dropped)
        self._arena.release(dropped.placed)
        self._counts.dropped += 1
        self._observer.region_dropped(entry, why, written)

    def made_otherwise(self, context: TranslationContext) -> int:
        """Return the number of regions that were made under other contexts than this one."""
        return len(self.installed) - self._contexts[context]

    def drop_others(self, context: TranslationContext) -> None:
        """Drop the regions that were made under other contexts than this one."""
        if not self.made_otherwise(context):
            return
        for entry in [entry for entry, found in self.installed.items() if found.region.context != context]:
            self._drop(entry, "it was made for another translation context, and is in the way")

    def drop_all(self, why: str) -> None:
        """Drop all regions, so that the threaded tier executes all code."""
        for entry in list(self.installed):
            self._drop(entry, why)


def _add_counts(counts: Mapping[BlockCounters, Counter[Gpa]], installed: InstalledRegion) -> None:
    for what, gpa, number in installed.counts():
        counts[what][gpa] += number


class GuestContexts:
    """The translation contexts of one machine.

    ``watches_loads`` returns True while a debugger watches loads.
    """

    def __init__(
        self,
        cpu: CpuState,
        ram: RamLayout,
        cache: RegionCache,
        optimizations: Optimizations,
        observer: Observer,
        watches_loads: Callable[[], bool],
    ) -> None:
        self._cpu, self._ram, self._cache = cpu, ram, cache
        self._optimizations, self._observer, self._watches_loads = optimizations, observer, watches_loads
        self._been_in: dict[tuple[int, int, bool], TranslationContext] = {}
        self._last = self.now
        self._refusals = 0  # of arrivals at regions, when regions of other contexts were last looked for

    @property
    def now(self) -> TranslationContext:
        """The translation context that is in force now. Equal contexts are the same object."""
        words, watches_loads = self._cpu.words, self._watches_loads()
        key = words[_SCTLR] & _REGIME, words[_ARCHITECTURE], watches_loads
        context = self._been_in.get(key)
        if context is None:
            context = self._been_in[key] = TranslationContext(
                ram=self._ram,
                architecture=words[_ARCHITECTURE],
                checks_alignment=bool(key[0] & SCTLR_A),
                has_mmu=bool(key[0] & SCTLR_M),
                compile_records=self._observer.wants_compile_records,
                block_counters=self._observer.wants_block_counters,
                optimizations=self._watching if watches_loads else self._optimizations,
            )
        return context

    @cached_property
    def _watching(self) -> Optimizations:
        """The optimizations that are in use while a debugger watches loads."""
        left_out = filter(None, self._optimizations.describe().split(","))
        return Optimizations.without(*left_out, *_PREDICTED_LOADS)

    def follow(self) -> None:
        """Drop the regions that could do harm in the present context, or that are in the way of others."""
        before, self._last = self._last, self.now
        if before is not self._last and not before.is_within_reach(self._last):
            self._cache.drop_all("the translation context has changed")
        refusals = self._cpu.native("region_exits", SideExit.MODE)
        since = refusals - self._refusals
        if since >= _IN_THE_WAY and since >= _IN_THE_WAY * self._cache.made_otherwise(self._last):
            self._cache.drop_others(self._last)
            self._refusals = refusals

    def reset_counts(self) -> None:
        """Hear that the counts in CpuState are set to zero."""
        self._refusals = 0
