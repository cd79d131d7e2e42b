"""The region tier: the threaded tier, in which hot code is replaced by regions compiled through LLVM.

A region takes the place of its entry op's handler and has the handlers' signature, so either kind of
code calls the other freely, and a run is the same, instruction by instruction, whenever a region is
installed. Regions are compiled by a worker while the guest runs, or found on disk.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt.abi.cpu import CpuState
from dbt.abi.exits import VmExit
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import (
    BLOCK_COUNTERS_SIZE,
    CHANGES,
    CODE_PAGE_STRIDE,
    COVERED,
    HOT_ARRIVALS,
    LOG_ENTRIES,
    OP_COVERED,
    OP_HANDLER,
    OP_HOTNESS,
    OP_ORIGINAL,
    TABLE_BYTES,
    TABLES,
    WARM,
    SideExit,
)
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.codecache.handlers import image_key
from dbt.codecache.region_store import RegionStore, StoreCounts
from dbt.engine.arena import CodeArena
from dbt.engine.observer import NOBODY, Observer
from dbt.engine.profile import ExecutionProfile, op_address, op_offset
from dbt.engine.threaded import ThreadedTier, notify
from dbt.engine.tier import Allowance, JitMode, unlimited
from dbt.engine.worker import CompileWorker, WorkerCounts
from dbt.frontend.context import TranslationContext
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import PAGE_SHIFT
from isa.arm.state import LAYOUT, SCTLR_A, SCTLR_M

if TYPE_CHECKING:
    from dbt.backend.dump import DumpCounts, RegionDump

_ARENA_SIZE = 64 << 20
#: After so many regions were made from a page and written over, it is left to the threaded tier.
_MAX_PAGE_REWRITES = 8
#: The bits of SCTLR that are part of the translation context.
_REGIME = SCTLR_A | SCTLR_M
_SCTLR, _ARCHITECTURE = LAYOUT["sctlr"].index, LAYOUT["architecture"].index
#: How many requests the worker has at a time.
_IN_FLIGHT = 2
#: While so many wait, regions are small.
_MANY = 4


@dataclass(slots=True)
class RegionCounts:
    """What the region tier did, for ``--stats``.

    ``compiled`` and ``loaded`` count what was installed, ``insns`` and ``code_bytes`` its size. ``outdated``: compiled,
    but not for what the guest's memory holds now. ``refused``: nothing could be compiled, or the compiler was lost over
    it. Of those dropped, ``code_writes`` and ``literal_writes`` were because what they were made from was
    written over. ``seconds``: waited for the compiler, if in line.
    """

    compiled: int = 0
    loaded: int = 0
    refused: int = 0
    outdated: int = 0
    dropped: int = 0
    code_writes: int = 0
    literal_writes: int = 0
    insns: int = 0
    code_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """What the worker is asked for: the region around an address. ``gpa`` names it.

    ``pages``: virtual and physical pages where the MMU is on, as far as code has been executed in them; else None.
    """

    gpa: int
    gva: int
    context: TranslationContext
    pages: tuple[tuple[int, int], ...] | None = None


class RegionTier(ThreadedTier):
    """See :class:`dbt.engine.tier.Tier`. ``jit``: compile beside the guest, in line, or not at all."""

    name = "auto"

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        notice: Callable[[str], None] = notify,
        jit: JitMode = "async",
        keep: bool = True,
        optimizations: Optimizations = ALL,
        dump: RegionDump | None = None,
        observer: Observer = NOBODY,
        allowance: Allowance = unlimited,
    ) -> None:
        """``keep``: use and fill the store of compiled regions, which with ``dump`` is filled only."""
        super().__init__(cpu, memory, notice, observer, allowance)
        self.counts = RegionCounts()
        self._jit = jit
        self._optimizations = optimizations
        self._dump = dump
        self._arena = CodeArena(_ARENA_SIZE)
        self._contexts: dict[tuple[int, int], TranslationContext] = {}  # those that the guest has been in
        self._store = RegionStore(image_key()) if keep else None
        self._worker: CompileWorker[Request] = CompileWorker(self._make_compile)
        self._installed: dict[int, tuple[CompiledRegion, int]] = {}  # by entry: the region and where it is
        self._entered: dict[int, int] = {}  # by address: the entry of the region whose code its op has
        self._entered_later: dict[int, int] = {}  # likewise, of ops that have not been decoded yet
        self._covering: dict[int, set[int]] = {}  # entries by address of a guest word
        self._requested: set[int] = set()
        self._context = self.context
        # Requests that the worker has not been given, by physical address, and how often they were hot.
        self._waiting: dict[int, int] = {}
        self._asked: dict[int, tuple[int, int]] = {}  # their virtual addresses, and the code tables of these
        self._wait_count = HostRange(mmap.PAGESIZE, shared=True)  # their number, for the worker to see
        self._waits = self._wait_count.view().cast("q")
        self._written: dict[int, int] = {}  # regions dropped, by page
        self.block_counters: HostRange | None = None
        if observer.wants_block_counters:
            self.block_counters = HostRange(memory.ram.end // 4 * BLOCK_COUNTERS_SIZE)
            cpu.set_native("block_counters", self.block_counters.address)
        self._space_entries = self._spaces.view().cast("Q")
        handlers = range(self._code.address, self._code.address + self._code.size)
        self._profile = ExecutionProfile(memory.ram, self._code_pages, self._targets, handlers, self._decode_handler)
        self._op_quarters = self._ops.cast("H")

    # -- hot code ------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[VmExit, int]:
        self._begin_slice()
        for request, region in self._worker.poll():
            self._finish(request, region)
        self._submit()
        if self.context is not self._context:
            self._context = self.context
            self.drop_all("the translation context has changed")
        return super().run(budget)

    @property
    def context(self) -> TranslationContext:
        """What the guest's code is to be translated under now. The same context is the same object."""
        words = self._cpu.words
        key = words[_SCTLR] & _REGIME, words[_ARCHITECTURE]
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = TranslationContext(
                ram=self._memory.ram.layout,
                architecture=words[_ARCHITECTURE],
                checks_alignment=bool(key[0] & SCTLR_A),
                has_mmu=bool(key[0] & SCTLR_M),
                compile_records=self._observer.wants_compile_records,
                block_counters=self._observer.wants_block_counters,
                optimizations=self._optimizations,
            )
        return context

    def _on_hot(self, gva: int, op: int) -> None:
        pc = op_address(op - self._code_pages.address)
        if pc in self._waiting:
            self._waiting[pc] += 1
        if self._jit == "off" or pc in self._entered or pc in self._requested:
            return
        if self._written.get(pc >> PAGE_SHIFT, 0) >= _MAX_PAGE_REWRITES:
            return
        if pc in self._entered_later:
            self._enter_at(pc, self._entered_later.pop(pc))
            return
        if self._dump is None and self._load(pc, gva):
            self.counts.loaded += 1
            return
        if self._arrivals(pc) == WARM or self._is_covered(pc):
            return
        self._requested.add(pc)
        self._waiting[pc] = 1
        self._asked[pc] = gva, self._cpu.native("code_table")
        self._observer.region_requested(pc, gva)
        self._submit()
        if self._jit == "sync":
            start = time.perf_counter()
            for request, region in self._worker.wait():
                self._finish(request, region)
            self.counts.seconds += time.perf_counter() - start

    def _request(self, gva: int, gpa: int, table: int) -> Request | None:
        """None if the code is no longer at that address, as where the guest has gone on to another process."""
        context = self.context
        if not context.has_mmu:
            return Request(gpa, gva, context)
        pages = self._code_mapping(table)
        if pages.get(gva >> PAGE_SHIFT) != gpa >> PAGE_SHIFT:
            return None
        return Request(gpa, gva, context, tuple(pages.items()))

    # -- where code is -------------------------------------------------------------------------

    def _code_mapping(self, table: int) -> dict[int, int]:
        """The physical pages of code by virtual ones, as far as a code table (an HVA) is filled."""
        space, number = divmod((table - self._spaces.address) // TABLE_BYTES, TABLES)
        log = self._log.view().cast("I")[space * LOG_ENTRIES :][: self._cpu.native("fill_counts", space)]
        pages = {line & 0xFFFFF for line in log.tolist() if line >> 20 == number}
        at = (table - self._spaces.address) // 8
        entries = {page: self._space_entries[at + page] for page in sorted(pages)}
        base = self._code_pages.address
        return {page: (ops - base) // CODE_PAGE_STRIDE for page, ops in entries.items() if ops}

    def _is_covered(self, pc: int) -> bool:
        """Whether a region has the code there already, and has not been left for it often."""
        often = self._arrivals(pc) % HOT_ARRIVALS == WARM
        return bool(self._ops[op_offset(pc) + OP_COVERED] & COVERED) and not often

    def _arrivals(self, pc: int) -> int:
        """How many loops and calls have come to an op, modulo 65536."""
        return self._op_quarters[(op_offset(pc) + OP_HOTNESS) // 2]

    def _submit(self) -> None:
        """Keep the worker busy, the hottest first, but leave it little to do that this may make needless."""
        while self._waiting and self._worker.pending < _IN_FLIGHT:
            pc = max(self._waiting, key=self._waiting.__getitem__)
            del self._waiting[pc]
            gva, table = self._asked.pop(pc)
            request = self._request(gva, pc, table)
            if request is None or pc in self._entered or self._is_covered(pc):
                self._requested.discard(pc)
            else:
                self._worker.submit(request)
        self._waits[0] = len(self._waiting)

    def _load(self, pc: int, gva: int) -> bool:
        """Install a region that was kept, if there is one for code at that address."""
        if self._store is None:
            return False
        here = (gva >> PAGE_SHIFT, pc >> PAGE_SHIFT)
        context = self.context
        kept = self._store.load(pc, self._guest_bytes(pc), context)
        return any(self._install(region, kept=True) for region in kept if not context.has_mmu or here in region.pages)

    def compile_now(self, pc: int) -> bool:
        """Compile the region around ``pc`` in line, hot or not; False if none can be had, as where nothing ran yet."""
        if pc not in self._installed:
            request = self._request(pc, pc, self._cpu.native("code_table"))
            assert request is not None
            if pc not in self._requested:
                self._requested.add(pc)
                self._worker.submit(request)
            while self._worker.is_pending(request):
                for answered, region in self._worker.wait():
                    self._finish(answered, region)
            self._requested.discard(pc)
        return pc in self._installed

    def _guest_bytes(self, pc: int) -> bytes:
        return bytes(self._memory.ram.bytes[pc : pc + 32])

    def _finish(self, request: Request, region: CompiledRegion | Refused) -> None:
        """Install what the worker made. A request without a region is not made again."""
        if isinstance(region, Refused):
            self.counts.refused += 1
            self._observer.region_refused(request.gpa, request.gva, region.reason)
            return
        self._requested.discard(request.gpa)
        if self._install(region, kept=False):
            self.counts.compiled += 1
        else:
            self.counts.outdated += 1
            self._observer.region_outdated(request.gpa, self._changed_word(region))

    def _install(self, region: CompiledRegion, kept: bool) -> bool:
        """Put the region in the place of its entry's handler, if memory still is what it was made from.

        ``kept``: it was on disk.
        """
        ram = self._memory.ram.bytes
        if region.context != self.context:
            return False
        if any(ram[gva : gva + len(data)] != data for gva, data in region.runs):
            return False
        if not self._is_decoded(region.entry):
            # Written over in the meantime: there is no handler to go back to yet. It may become hot again.
            self._op_quarters[(op_offset(region.entry) + OP_HOTNESS) // 2] = 0
            return False
        address = self._arena.place(region.code)
        if address is None:
            self.drop_all("there is no more room for code")
            self._arena.clear()
            address = self._arena.place(region.code)
            if address is None:
                return False
        for gva, data in region.runs:
            for page in range(gva >> PAGE_SHIFT, (gva + len(data) - 1 >> PAGE_SHIFT) + 1):
                self.need_code_page(page)
            for word in range(gva, gva + len(data), 4):
                self._covering.setdefault(word, set()).add(region.entry)
                self._ops[op_offset(word) + OP_COVERED] |= COVERED
        self._installed[region.entry] = region, address
        self._enter_at(region.entry, region.entry)
        for gva in region.others:
            if gva in self._entered:
                continue
            if not self._is_decoded(gva):
                self._entered_later[gva] = region.entry
            else:
                self._enter_at(gva, region.entry)
        self.counts.insns += region.insns
        self.counts.code_bytes += len(region.code)
        self._observer.region_installed(region, address, kept)
        return True

    def _changed_word(self, region: CompiledRegion) -> int | None:
        """The first word that is not what the region was made from."""
        ram = self._memory.ram.bytes
        for gpa, data in region.runs:
            for at in range(0, len(data), 4):
                if ram[gpa + at : gpa + at + 4] != data[at : at + 4]:
                    return gpa + at
        return None

    def _is_decoded(self, gpa: int) -> bool:
        return self._profile.executed(gpa) is not None  # which knows no pages in this process

    def _enter_at(self, gva: int, entry: int) -> None:
        """Let the op there have the code of a region, and remember what it replaces: where the budget does not last,
        the handler goes on.
        """
        op = op_offset(gva)
        if gva not in self._entered:
            self._op_halves[(op + OP_ORIGINAL) // 4] = self._op_words[(op + OP_HANDLER) // 8] - self._code.address
        region, address = self._installed[entry]
        self._op_words[(op + OP_HANDLER) // 8] = address + region.start
        self._entered[gva] = entry

    # -- code that is written over -------------------------------------------------------------

    def _on_code_write(self, gpa: int, size: int) -> None:
        for word in range(gpa & ~3, gpa + size, 4):
            entries = list(self._covering.get(word, ()))
            if not entries:
                continue
            if not self._is_decoded(word):
                self._ops[op_offset(word) + OP_COVERED] |= CHANGES  # a literal that is none
                self.counts.literal_writes += len(entries)
            else:
                self.counts.code_writes += len(entries)
            decoded = "code" if self._is_decoded(word) else "literal"
            for entry in entries:
                self._drop(entry, f"{decoded} written over", word)
                page = entry >> PAGE_SHIFT
                self._written[page] = self._written.get(page, 0) + 1
                if self._written[page] == _MAX_PAGE_REWRITES:
                    why = f"its page was written over {_MAX_PAGE_REWRITES} times, and is left to the threaded tier"
                    self._observer.region_refused(entry, entry, why)

    def _host_write(self, gpa: int, size: int) -> None:
        if size > 1 << 16:
            self.drop_all("the hypervisor wrote to memory")
        else:
            self._on_code_write(gpa, size)
        super()._host_write(gpa, size)

    def _drop(self, entry: int, why: str, written: int | None = None) -> None:
        """``written``: the GPA of the word whose change is the reason."""
        region, address = self._installed.pop(entry)
        for gva in (entry, *region.others):
            op = op_offset(gva)
            if self._entered_later.get(gva) == entry:
                del self._entered_later[gva]
            if self._entered.get(gva) != entry:
                continue
            del self._entered[gva]
            if self._op_words[(op + OP_HANDLER) // 8] == address + region.start:
                self._op_words[(op + OP_HANDLER) // 8] = self._op_halves[(op + OP_ORIGINAL) // 4] + self._code.address
            self._op_quarters[(op + OP_HOTNESS) // 2] = 0
        for gva, data in region.runs:
            for word in range(gva, gva + len(data), 4):
                entries = self._covering[word]
                entries.discard(entry)
                if not entries:
                    del self._covering[word]
                    self._ops[op_offset(word) + OP_COVERED] &= ~COVERED
        self.counts.dropped += 1
        self._observer.region_dropped(entry, why, written)

    def drop_all(self, why: str) -> None:
        """Go back to the threaded tier everywhere."""
        for entry in list(self._installed):
            self._drop(entry, why)

    # -- the worker ----------------------------------------------------------------------------

    def _make_compile(self) -> Callable[[Request], CompiledRegion | Refused]:
        """In the worker: forming and compiling over the guest's memory, which it shares."""
        from dbt.backend.compile_region import RegionCompiler
        from dbt.backend.region_lowering import Assumptions

        compiler = RegionCompiler(self._dump)

        def compile_and_keep(request: Request) -> CompiledRegion | Refused:
            # Kept here, so that it is there for the next run even if this one ends first.
            pages = None if request.pages is None else dict(request.pages)
            self._profile.refresh()
            self._profile.set_page_map(pages)
            backlog = self._optimizations.backlog and self._waits[0] >= _MANY
            region = compiler.compile(self._profile, request.gva, Assumptions(request.context, pages), backlog)
            if isinstance(region, CompiledRegion) and self._store is not None:
                self._store.save(region, self._guest_bytes(request.gpa))
            return region

        return compile_and_keep

    # -- counts --------------------------------------------------------------------------------

    @property
    def retired(self) -> dict[str, int]:
        """See :class:`dbt.engine.tier.Tier`. Exact whenever native code has left."""
        inside, others = self._cpu.native("region_insns"), super().retired
        return {"region": inside, **others, "threaded": others["threaded"] - inside}

    def reset_counts(self) -> None:
        super().reset_counts()
        self.counts = RegionCounts()
        self._worker.reset_counts()
        if self._store is not None:
            self._store.reset_counts()
        self._cpu.set_native("region_insns", 0)
        for reason in SideExit:
            self._cpu.set_native("region_exits", 0, reason)

    @property
    def worker_counts(self) -> WorkerCounts:
        """What the compiler was asked for, and what became of it."""
        return self._worker.counts

    @property
    def waiting(self) -> int:
        """Regions asked for that the compiler has not been given yet."""
        return len(self._waiting)

    @property
    def side_exits(self) -> dict[SideExit, int]:
        """How often control left a region, by reason."""
        return {reason: self._cpu.native("region_exits", reason) for reason in SideExit}

    @property
    def store_counts(self) -> StoreCounts | None:
        """What became of the regions that were to be kept; None without a store."""
        return None if self._store is None else self._store.counts

    @property
    def dump_counts(self) -> DumpCounts | None:
        """What was written down; None where nothing is to be."""
        return None if self._dump is None else self._dump.counts

    def close(self) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        self._worker.close()
        self._arena.close()
        self._wait_count.close()
        if self.block_counters is not None:
            self.block_counters.close()
        super().close()

    def __del__(self) -> None:
        if hasattr(self, "_worker"):
            self._worker.close()
