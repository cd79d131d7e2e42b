"""The region tier, which is the threaded tier with hot code replaced by regions compiled through LLVM.

A region takes the place of its entry op's handler and has the handlers' signature, so either kind of code calls the
other freely. The guest's run does not depend on when a region is installed. Regions are compiled by another process
while the guest runs, or found on disk.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa, Gva, Hva, MappedPage
from dbt.abi.cpu import CpuState
from dbt.abi.exits import VmExit
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import BLOCK_COUNTERS_SIZE, HOT_ARRIVALS, PAGE_SHIFT, WARM, SideExit
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.codecache.handlers import image_key
from dbt.codecache.region_store import RegionStore, StoreCounts
from dbt.engine.arena import lease_arena
from dbt.engine.hot_queue import HotQueue
from dbt.engine.observer import NOBODY, Observer
from dbt.engine.region_cache import RegionCache
from dbt.engine.region_counts import RegionActivity, RegionCounts, WorkerCounts
from dbt.engine.shadow_tables import ShadowPage
from dbt.engine.threaded import ThreadedTier, notify
from dbt.engine.tier import Allowance, JitMode, unlimited
from dbt.frontend.context import TranslationContext
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.memory.guest_memory import GuestMemory
from isa.arm.state import LAYOUT, SCTLR_A, SCTLR_M

if TYPE_CHECKING:
    from dbt.backend.dump import RegionDump
    from dbt.engine.messages import CompileRequest
    from dbt.engine.profile import ExecutionProfile
    from dbt.engine.worker import Answer, CompileClient, CompileWorker
    from dbt.engine.worker_process import Compile

#: The bits of SCTLR that are part of the translation context.
_REGIME = SCTLR_A | SCTLR_M
_SCTLR, _ARCHITECTURE = LAYOUT["sctlr"].index, LAYOUT["architecture"].index
#: The most requests of a machine that the compiler has at a time.
_IN_FLIGHT = 2
#: While at least this many requests wait, regions are small (backlog mode).
_MANY = 4
#: The number of bytes of guest memory at the entry that are part of the name of a region on disk.
_NAMED = 32


class RegionTier:
    """See :class:`dbt.engine.tier.Tier`. ``jit`` says whether to compile beside the guest, in line, or not at all."""

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
        worker: CompileWorker | None = None,
        must_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """With ``keep``, the store of compiled regions is used and filled. With ``dump`` it is only filled.

        ``worker`` is the compile worker, if it is neither the process's nor one that writes the dump. ``must_stop``
        returns True if the run is to end soon: compiling in line is then not waited for, and the region comes later.
        """
        self._cpu, self._memory = cpu, memory
        self._notice, self._observer = notice, observer
        self._jit, self._optimizations, self._dump = jit, optimizations, dump
        self._counts = RegionCounts()
        self._keeps = keep
        self._store = RegionStore(image_key()) if keep and dump is None else None
        self.threaded = ThreadedTier(cpu, memory, notice, observer, allowance, self)
        self.code_pages = code_pages = self.threaded.code_pages
        self._arena = lease_arena()
        self.cache = RegionCache(memory.ram, code_pages, self._arena, self._counts, observer)
        self._worker = worker
        self._must_stop = must_stop
        self._connected = False
        self._contexts: dict[tuple[int, int], TranslationContext] = {}  # the contexts that the guest has been in
        self._context = self.context
        self._queue = HotQueue()
        self._requested: set[Gpa] = set()  # asked for, and not to be asked for again
        self._block_counters: HostRange | None = None
        if observer.wants_block_counters:
            self._block_counters = HostRange(memory.ram.end // 4 * BLOCK_COUNTERS_SIZE)
            cpu.set_native("block_counters", self._block_counters.address)

    # -- running -------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[VmExit, int]:
        """See :meth:`dbt.engine.tier.Tier.run`."""
        self.threaded.begin_slice()
        if self._connected and self.compiler.pending:
            self._finish_all(self.compiler.poll())
        if self._queue:
            self._submit()
        if self.context is not self._context:
            self._context = self.context
            self.cache.drop_all("the translation context has changed")
        return self.threaded.run(budget)

    @property
    def context(self) -> TranslationContext:
        """The translation context that is in force now. Equal contexts are the same object."""
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

    # -- hot code: implements dbt.engine.threaded.CodeListener -----------------------------------

    def code_is_hot(self, gva: Gva, gpa: Gpa) -> None:
        """Install a region for the code if one is on disk, or request one."""
        self._queue.heat(gpa, self._now)
        if self._jit == "off" or self.cache.is_entered(gpa) or gpa in self._requested:
            return
        if self.cache.is_rewritten(gpa) or self.cache.enter_later(gpa):
            return
        if self._load(gpa, gva):
            self._counts.loaded += 1
            return
        if self.code_pages.arrivals(gpa) == WARM or self._is_covered(gpa):
            return
        self._requested.add(gpa)
        self._queue.add(gpa, gva, self._code_table, self._now)
        self._observer.region_requested(gpa, gva)
        self._submit()
        if self._jit == "sync":
            start = time.perf_counter()
            self._finish_all(self.compiler.wait(self._must_stop))
            self._counts.seconds += time.perf_counter() - start

    @property
    def _code_table(self) -> Hva:
        """The code table of the guest's present address space."""
        return Hva(self._cpu.native("code_table"))

    @property
    def _now(self) -> int:
        """Return the number of instructions retired so far."""
        return sum(self.threaded.retired.values()) + self.threaded.progress

    def guest_writes_code(self, gpa: Gpa, size: int) -> None:
        """See :class:`dbt.engine.threaded.CodeListener`."""
        self.cache.write(gpa, size)

    def host_writes(self, gpa: Gpa, size: int) -> None:
        """See :class:`dbt.engine.threaded.CodeListener`."""
        self.cache.host_write(gpa, size)

    def _is_covered(self, gpa: Gpa) -> bool:
        """Return True if a region has the code already, and is not often left for it."""
        often = self.code_pages.arrivals(gpa) % HOT_ARRIVALS == WARM
        return self.code_pages.is_covered(gpa) and not often

    def _load(self, gpa: Gpa, gva: Gva) -> bool:
        """Install a region from the disk, if there is one for the code at that address."""
        if self._store is None:
            return False
        context = self.context
        here = MappedPage(gva >> PAGE_SHIFT, gpa >> PAGE_SHIFT)
        for region in self._store.load(gpa, self._bytes_at(gpa), context):
            if (not context.has_mmu or here in region.pages) and self.cache.install(region, context, kept=True):
                return True
        return False

    def _bytes_at(self, gpa: Gpa) -> bytes:
        return bytes(self._memory.ram.bytes[gpa : gpa + _NAMED])

    # -- the compiler --------------------------------------------------------------------------

    @cached_property
    def profile(self) -> ExecutionProfile:
        """The execution profile, from which the compiler is told of the guest's code."""
        from dbt.engine.profile import ExecutionProfile

        threaded = self.threaded
        return ExecutionProfile(self._cpu, self._memory.ram, self.code_pages, threaded.targets, threaded.native)

    @cached_property
    def compiler(self) -> CompileClient:
        """This machine's client of the compile worker. It is imported late, because short programs have no hot code."""
        from dbt.engine.worker import CompileWorker, shared_worker

        dump, worker = self._dump, self._worker
        if worker is None:
            worker = shared_worker() if dump is None else CompileWorker(lambda: _dumping(dump))
        self._connected = True
        return worker.connect(self.profile, self._keeps)

    def _submit(self) -> None:
        """Keep the compiler busy with the hottest code, but with few requests, as a region may make others needless."""
        if self._queue and self.compiler.pending < _IN_FLIGHT:
            self._requested.difference_update(cold := self._queue.drop_cold(self._now))
            self._counts.cold += len(cold)
        while self._queue and self.compiler.pending < _IN_FLIGHT:
            code = self._queue.take()
            request = self._request(code.gva, code.gpa, code.table)
            if request is None or self.cache.is_entered(code.gpa) or self._is_covered(code.gpa):
                self._requested.discard(code.gpa)
            else:
                self.compiler.submit(request)
        self._check_compiler()

    def _request(self, gva: Gva, gpa: Gpa, table: Hva) -> CompileRequest | None:
        """Return the request for a region. None if the code is no longer mapped there."""
        from dbt.engine.messages import CompileRequest

        context = self.context
        pages = None
        if context.has_mmu:
            mapping = self.threaded.shadow_tables.code_mapping(table)
            if mapping.get(gva >> PAGE_SHIFT) != gpa >> PAGE_SHIFT:
                return None
            pages = tuple(itertools.starmap(MappedPage, mapping.items()))
        backlog = self._optimizations.backlog and len(self._queue) >= _MANY
        return CompileRequest(gpa, gva, context, pages, backlog, self._bytes_at(gpa))

    def compile_now(self, pc: Gva) -> bool:
        """Compile the region around ``pc`` in line, hot or not. Precondition: the GPA is the same number.

        Returns False if there is none, for example because nothing has been executed yet.
        """
        gpa = Gpa(pc)
        if gpa not in self.cache.installed:
            request = self._request(pc, gpa, self._code_table)
            assert request is not None
            self._requested.add(gpa)
            if not self.compiler.is_pending(request):
                self.compiler.submit(request)
            while self.compiler.is_pending(request):
                self._finish_all(self.compiler.wait())
            self._check_compiler()
            self._requested.discard(gpa)
        return gpa in self.cache.installed

    def _finish_all(self, answers: list[Answer]) -> None:
        for request, region in answers:
            self._finish(request, region)
        self._check_compiler()

    def _finish(self, request: CompileRequest, region: CompiledRegion | Refused) -> None:
        """Install the region that answers a request. A request that was refused is not made again."""
        if isinstance(region, Refused):
            self._counts.refused += 1
            self._observer.region_refused(request.gpa, request.gva, region.reason)
            return
        self._requested.discard(request.gpa)
        if self.cache.install(region, self.context, kept=False):
            self._counts.compiled += 1
            return
        self._counts.outdated += 1
        changed = self.cache.changed_word(region)
        if changed is not None:
            self.profile.correct(changed)
        self._observer.region_outdated(request.gpa, request.gva, changed)

    def _check_compiler(self) -> None:
        if self.compiler.unavailable and self._jit != "off":
            self._jit = "off"
            why = self.compiler.unavailable
            self._notice(f"cannot start the compiler ({why}); the guest continues more slowly, without new regions")

    # -- what else a tier can do ---------------------------------------------------------------

    @property
    def progress(self) -> int:
        return self.threaded.progress

    @property
    def retired(self) -> dict[str, int]:
        """See :class:`dbt.engine.tier.Tier`. Exact whenever native code has left."""
        inside, others = self._cpu.native("region_insns"), self.threaded.retired
        return {"region": inside, **others, "threaded": others["threaded"] - inside}

    @property
    def callouts(self) -> Mapping[str, int]:
        return self.threaded.callouts

    @property
    def callout_places(self) -> Mapping[Gpa, int]:
        return self.threaded.callout_places

    @property
    def regions(self) -> RegionActivity:
        """See :class:`dbt.engine.tier.Tier`."""
        return RegionActivity(
            self._counts,
            self.compiler.counts if self._connected else WorkerCounts(),
            len(self._queue),
            {reason: self._cpu.native("region_exits", reason) for reason in SideExit},
            self._store_counts,
            None if self._dump is None else self._dump.counts,
            self._block_counters,
        )

    @property
    def _store_counts(self) -> StoreCounts | None:
        if not self._keeps:
            return None
        return self.compiler.store_counts if self._connected else StoreCounts()

    def reset_counts(self) -> None:
        self.threaded.reset_counts()
        self._counts.clear()
        if self._connected:
            self.compiler.reset_counts()
        self._cpu.set_native("region_insns", 0)
        for reason in SideExit:
            self._cpu.set_native("region_exits", 0, reason)

    def native_symbols(self) -> Iterator[tuple[Hva, int, str]]:
        return self.threaded.native_symbols()

    def is_decoded(self, gpa: Gpa) -> bool:
        return self.threaded.is_decoded(gpa)

    def branch_targets(self) -> Iterator[tuple[Gpa, Gva]]:
        return self.threaded.branch_targets()

    def shadow_pages(self) -> Iterator[tuple[int, Iterator[ShadowPage]]]:
        return self.threaded.shadow_pages()

    def call_routine(self, name: str, *arguments: int) -> int | None:
        return self.threaded.call_routine(name, *arguments)

    def close(self) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        if self._connected:
            self.compiler.close()
        self.threaded.close()
        self._arena.close()
        if self._block_counters is not None:
            self._block_counters.close()

    def __del__(self) -> None:
        if self.__dict__.get("_connected"):
            self.compiler.close()


def _dumping(dump: RegionDump) -> Compile:
    """Return, in the compile worker, the compile function that also dumps the stages of each region."""
    from dbt.backend.compile_region import RegionCompiler
    from dbt.engine.worker_process import compile_with

    return compile_with(RegionCompiler(dump))
