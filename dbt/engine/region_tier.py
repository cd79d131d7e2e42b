"""The region tier, which is the threaded tier with hot code replaced by regions compiled through LLVM.

A region takes the place of its entry op's handler and has the handlers' signature, so either kind of code calls the
other freely. The guest's run does not depend on when a region is installed. Regions are compiled by another process
while the guest runs, or found on disk.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa, Gva, Hva, MappedPage
from dbt.abi.cpu import CpuState
from dbt.abi.exits import Heat, VmExit
from dbt.abi.layout import LEAST_INSNS, PAGE_SHIFT, SideExit
from dbt.codecache.handlers import image_key
from dbt.codecache.store import cache_limit
from dbt.engine.arena import lease_arena
from dbt.engine.hot_queue import HotQueue
from dbt.engine.observer import NOBODY, Observer
from dbt.engine.region_cache import GuestContexts, RegionCache
from dbt.engine.region_counts import RegionActivity, RegionCounts, WorkerCounts
from dbt.engine.shadow_tables import ShadowPage
from dbt.engine.stitched import StitchActivity, Thresholds, usual_thresholds
from dbt.engine.threaded import ThreadedTier, notify
from dbt.engine.tier import Allowance, HostCall, JitMode, unanswered, unlimited
from dbt.frontend.context import TranslationContext
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.memory.guest_memory import GuestMemory

if TYPE_CHECKING:
    from dbt.backend.compiled import CompiledRegion, Refused
    from dbt.backend.dump import RegionDump
    from dbt.codecache.region_store import RegionStore, StoreCounts
    from dbt.engine.debug_points import DebugPoints
    from dbt.engine.hot_list import HotList
    from dbt.engine.messages import CompileRequest
    from dbt.engine.profile import ExecutionProfile
    from dbt.engine.stitch_log import StitchLog
    from dbt.engine.unfinished import UnfinishedWork
    from dbt.engine.worker import Answer, CodeSource, CompileClient, CompileWorker
    from dbt.engine.worker_process import Compile

#: The most requests of a machine that the compiler has at a time.
_IN_FLIGHT = 2
#: The most requests of earlier runs that the compiler has at a time. They are more, because the compiler finishes what
#: it has when the guest ends: so even a guest that ends at once gets so many regions further.
_EARLIER_IN_FLIGHT = 6
#: The arrivals between two exits that say OFTEN. At half of them the count of the op, a u16, says WARM again.
_OFTEN = 1 << 16
#: While at least this many requests wait, regions are small (backlog mode).
_MANY = 4
#: The most pages of code of which there may be a copy, for regions that the next run will have.
_SMALL_CODE = 32
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
        program: Callable[[], bytes] = lambda: b"",
        host_call: HostCall = unanswered,
        thresholds: Thresholds | None = None,
    ) -> None:
        """With ``keep``, the store of compiled regions is used and filled. With ``dump`` it is only filled.

        ``program`` returns the identity of the guest's program, by which its unfinished work is kept.

        ``thresholds`` say how often stitched code is executed until it is warm or hot. Without them it is as often as
        :func:`dbt.engine.stitched.usual_thresholds` says, which raises WrongThreshold.

        ``worker`` is the compile worker, if it is neither the process's nor one that writes the dump. ``must_stop``
        returns True if the run is to end soon: compiling in line is then not waited for, and the region comes later.
        """
        self._cpu, self._memory = cpu, memory
        self._notice, self._observer = notice, observer
        self._jit, self._optimizations, self._dump = jit, optimizations, dump
        self._counts = RegionCounts()
        self._keeps = keep
        self._has_store = keep and dump is None
        if self._has_store:
            cache_limit()  # which may be wrong, and that is to be said before the guest runs
        self._thresholds = thresholds = thresholds or usual_thresholds()
        stitch = optimizations.stitching
        self.threaded = ThreadedTier(cpu, memory, notice, observer, allowance, self, stitch, host_call, thresholds)
        self.code_pages = code_pages = self.threaded.code_pages
        self._arena = lease_arena()
        self.cache = RegionCache(memory.ram, code_pages, self._arena, self._counts, observer, self.threaded.stitched)
        self._guest_contexts = GuestContexts(
            cpu, memory.ram.layout, self.cache, optimizations, observer, self._watches_loads
        )
        self._worker = worker
        self._must_stop = must_stop
        self._connected = False
        self._queue = HotQueue()
        self._arrivals: Counter[Gpa] = Counter()  # at ops that do not count instructions, where code is stitched
        self._requested: set[Gpa] = set()  # asked for, and not to be asked for again
        self._program = program
        self._unfinished: UnfinishedWork | None = None  # until something is warm
        self._counts_blocks = observer.wants_block_counters

    # -- running -------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[VmExit, int]:
        """See :meth:`dbt.engine.tier.Tier.run`."""
        self.threaded.begin_slice()
        self._guest_contexts.follow()
        if self._connected and self.compiler.pending:
            self._finish_all(self.compiler.poll())
        if self._unfinished is not None and self._unfinished.waiting:
            self._install_earlier(self._unfinished.poll())
            self._submit()
        elif self._queue:
            self._submit()
        return self.threaded.run(budget)

    @property
    def context(self) -> TranslationContext:
        """The translation context that is in force now. Equal contexts are the same object."""
        return self._guest_contexts.now

    def _watches_loads(self) -> bool:
        points = self.threaded.debug_points
        return points is not None and points.watches_loads

    # -- hot code: implements dbt.engine.threaded.CodeListener -----------------------------------

    def code_is_hot(self, gva: Gva, gpa: Gpa, heat: Heat) -> None:
        """Install a region for the code if one is on disk, or request one."""
        self._queue.heat(gpa, self._now)
        self._begin_unfinished_work()
        if self._jit == "off" or self.cache.is_entered(gpa) or gpa in self._requested:
            return
        if self.cache.is_rewritten(gpa) or self.cache.enter_later(gpa):
            return
        if self._load(gpa, gva):
            self._counts.loaded += 1
            return
        if heat is Heat.OFTEN:
            self._arrivals[gpa] += _OFTEN
        is_very_hot = heat is Heat.VERY_HOT or self._arrivals[gpa] * LEAST_INSNS >= self._thresholds.hot
        if heat is Heat.WARM or not (is_very_hot or (heat is Heat.HOT and not self.code_pages.is_covered(gpa))):
            return
        if self._unfinished is not None and self._unfinished.wants(gpa, self.context):
            return  # it has its place there, by how hot it was in the whole of a run
        request = self._request(gpa, gva)
        if request is None:
            return
        self._requested.add(gpa)
        self._queue.add(request, self._now, is_very_hot)
        self._observer.region_requested(gpa, gva)
        self._submit()
        if is_very_hot and gpa in self._queue:
            self._keep_for_later(request)
        if self._jit == "sync":
            start = time.perf_counter()
            self._finish_all(self.compiler.wait(self._must_stop))
            self._counts.seconds += time.perf_counter() - start

    @property
    def _now(self) -> int:
        """Return the number of instructions retired so far."""
        return sum(self.threaded.retired.values()) + self.threaded.progress

    def breakpoint_is_set(self, gpa: Gpa) -> None:
        """See :class:`dbt.engine.threaded.CodeListener`."""
        self.cache.set_breakpoint(gpa)

    def breakpoint_is_cleared(self) -> None:
        """See :class:`dbt.engine.threaded.CodeListener`."""
        self.cache.clear_breakpoint()

    def guest_writes_code(self, gpa: Gpa, size: int) -> None:
        """See :class:`dbt.engine.threaded.CodeListener`."""
        self.cache.write(gpa, size)

    def host_writes(self, gpa: Gpa, size: int) -> None:
        """See :class:`dbt.engine.threaded.CodeListener`."""
        self.cache.write(gpa, size)

    def code_page_is_given_up(self, page: int) -> None:
        """See :class:`dbt.engine.threaded.CodeListener`. Regions find ops by the code tables, so they keep none."""
        self._counts.pages_given_up += 1

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
    def _compile_worker(self) -> CompileWorker:
        """The compile worker. It is imported late, because short programs have no hot code."""
        from dbt.engine.worker import CompileWorker, shared_worker

        dump = self._dump
        if self._worker is not None:
            return self._worker
        return shared_worker() if dump is None else CompileWorker(lambda: _dumping(dump))

    @cached_property
    def compiler(self) -> CompileClient:
        """This machine's client of the compile worker."""
        self._connected = True
        return self._compile_worker.connect(self.profile, self._keeps)

    def _submit(self) -> None:
        """Keep the compiler busy with the hottest code, but with few requests, as a region may make others needless.

        It also has some of the requests that earlier runs left.
        """
        if self._queue and self.compiler.pending < _IN_FLIGHT:
            self._requested.difference_update(cold := self._queue.drop_cold(self._now))
            self._counts.cold += len(cold)
        while self._queue and self.compiler.pending < _IN_FLIGHT:
            code = self._queue.take()
            backlog = self._optimizations.backlog and len(self._queue) >= _MANY
            covered = self.code_pages.is_covered(code.gpa) and not code.is_very_hot
            if covered or self.cache.is_entered(code.gpa) or not self._holds(code.request):
                self._requested.discard(code.gpa)
            else:
                self.compiler.submit(code.request.in_backlog() if backlog else code.request)
                if self._unfinished is not None:
                    self._unfinished.is_in_work(code.gpa)
        if self._unfinished is not None:
            idle = not self._queue and not self.compiler.pending
            while self._unfinished.pending < _EARLIER_IN_FLIGHT and self._unfinished.submit(idle):
                pass
        self._check_compiler()

    def _request(self, gpa: Gpa, gva: Gva) -> CompileRequest | None:
        """Return the request for a region of the present address space. None if the code is not mapped there."""
        from dbt.engine.messages import CompileRequest

        context = self.context
        pages = None
        if context.has_mmu:
            mapping = self.threaded.shadow_tables.code_mapping(Hva(self._cpu.native("code_table")))
            if mapping.get(gva >> PAGE_SHIFT) != gpa >> PAGE_SHIFT:
                return None
            pages = tuple(itertools.starmap(MappedPage, mapping.items()))
        return CompileRequest(gpa, gva, context, pages, named=self._bytes_at(gpa))

    def _holds(self, request: CompileRequest) -> bool:
        """Return True if the code of a request has not been written over."""
        return self._bytes_at(request.gpa) == request.named

    # -- what earlier runs left, and what this one leaves ------------------------------------------

    def _keep_for_later(self, request: CompileRequest) -> None:
        """Keep a request that has to wait, with a copy of the code if that is small: it may be written over first."""
        if self._unfinished is not None and (notices := self.profile.snapshot(_SMALL_CODE)):
            from dbt.engine.hot_list import HotList

            self._unfinished.keep(request.gpa, HotList(self.code_pages.address, notices, [request]))

    @cached_property
    def _store(self) -> RegionStore | None:
        """The store of compiled regions, if it is used. Nothing asks for it before something is warm."""
        if not self._has_store:
            return None
        from dbt.codecache.region_store import RegionStore

        return RegionStore(image_key())

    def _begin_unfinished_work(self) -> None:
        """Read what earlier runs of the program left, if that has not been done and this run uses the store."""
        if self._unfinished is None:
            if self._store is None or self._jit != "async":
                return
            from dbt.codecache.hot_list_store import HotListStore
            from dbt.engine.unfinished import UnfinishedWork

            self._unfinished = UnfinishedWork(
                HotListStore(image_key()),
                self._store,
                self._program,
                self._connect_earlier,
                self._hot_list,
                self._suits,
            )
        self._unfinished.begin()

    def _connect_earlier(self, source: CodeSource) -> CompileClient:
        _ = self.compiler  # first, because the worker ends with its last client
        return self._compile_worker.connect(source, self._keeps)

    def _suits(self, context: TranslationContext) -> bool:
        """Return True if the guest can come into a context by what it writes to SCTLR."""
        return context.is_within_reach(self.context)

    def _install_earlier(self, answers: list[Answer]) -> None:
        """Install regions that earlier runs wanted. Those of code that has not been executed yet wait on disk."""
        from dbt.backend.compiled import Refused

        for _, region in answers:
            if isinstance(region, Refused) or region.context != self.context:
                continue
            entry = region.entry
            if entry in self._memory.ram and self.code_pages.is_decoded(entry) and not self.cache.is_entered(entry):
                self._counts.earlier += self.cache.install(region, region.context, kept=False)

    def _hot_list(self, unanswered: bool) -> HotList | None:
        """Return what is hot and not compiled, or None for nothing. It includes what the compiler has not learned of,
        or all that it has not answered.
        """
        waiting = self._queue.in_order()
        if not waiting and not self._connected:  # as in most short runs
            return None
        from dbt.engine.hot_list import MOST_REQUESTS, HotList

        requests = [code.request for code in waiting[:MOST_REQUESTS]]
        if self._connected:
            requests += self.compiler.unanswered if unanswered else self.compiler.undelivered
        requests = [request for request in requests if self._holds(request)]
        if not requests:
            return None
        self.profile.forget_told()
        return HotList.of(self.profile, requests)

    def compile_now(self, pc: Gva) -> bool:
        """Compile the region around ``pc`` in line, hot or not. Precondition: the GPA is the same number.

        Returns False if there is none, for example because nothing has been executed yet.
        """
        gpa = Gpa(pc)
        if not self.cache.has_region(gpa, self.context):
            request = self._request(gpa, pc)
            assert request is not None
            self._requested.add(gpa)
            if not self.compiler.is_pending(request):
                self.compiler.submit(request)
            while self.compiler.is_pending(request):
                self._finish_all(self.compiler.wait())
            self._check_compiler()
            self._requested.discard(gpa)
        return self.cache.has_region(gpa, self.context)

    def _finish_all(self, answers: list[Answer]) -> None:
        for request, region in answers:
            self._finish(request, region)
        self._check_compiler()

    def _finish(self, request: CompileRequest, region: CompiledRegion | Refused) -> None:
        """Install the region that answers a request. A request that was refused is not made again."""
        from dbt.backend.compiled import Refused

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
            0 if self._unfinished is None else self._unfinished.left,
            {reason: self._cpu.native("region_exits", reason) for reason in SideExit},
            self._store_counts,
            None if self._dump is None else self._dump.counts,
            self.cache.block_counts if self._counts_blocks else None,
        )

    @property
    def stitching(self) -> StitchActivity | None:
        """See :class:`dbt.engine.tier.Tier`."""
        return self.threaded.stitching

    @property
    def stitch_log(self) -> StitchLog | None:
        """See :class:`dbt.engine.tier.Tier`."""
        return self.threaded.stitch_log

    @property
    def _store_counts(self) -> StoreCounts | None:
        if not self._keeps:
            return None
        from dbt.codecache.region_store import StoreCounts

        return self.compiler.store_counts if self._connected else StoreCounts()

    def reset_counts(self) -> None:
        self.threaded.reset_counts()
        self._counts.clear()
        if self._connected:
            self.compiler.reset_counts()
        self._cpu.set_native("region_insns", 0)
        self._guest_contexts.reset_counts()
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

    def use_debug_points(self, points: DebugPoints) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        self.threaded.use_debug_points(points)

    def call_routine(self, name: str, *arguments: int) -> int | None:
        return self.threaded.call_routine(name, *arguments)

    def rest(self, deep: bool) -> None:
        self.threaded.rest(deep)

    def warm_code(self) -> int | None:
        """Return a file with the code that this machine has, of which no region was made: see
        :func:`dbt.engine.warm_code.write`.
        """
        from dbt.engine.warm_code import write

        return write(self.threaded, self._memory.ram, self.cache.pages)

    def adopt_warm_code(self) -> bool:
        """Have warm code (:class:`dbt.engine.warm_code.WarmCode`), if this process has any that suits the machine."""
        found = self.threaded.native.warm_code
        return found is not None and found.adopt(self.threaded, self._memory.ram)

    def close(self) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        if self._unfinished is not None:
            self._unfinished.write_down(unanswered=True)
            self._unfinished.close()
        if self._connected:
            self.compiler.close()
        self.threaded.close()
        self._arena.close()

    def __del__(self) -> None:
        if self.__dict__.get("_connected"):
            self.compiler.close()


def _dumping(dump: RegionDump) -> Compile:
    """Return, in the compile worker, the compile function that also dumps the stages of each region."""
    from dbt.backend.compile_region import RegionCompiler
    from dbt.engine.worker_process import compile_with

    return compile_with(RegionCompiler(dump))
