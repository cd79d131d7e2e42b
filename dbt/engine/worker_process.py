"""The compiler's process, which keeps a mirror of each machine's code and compiles the regions that are requested."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dbt.backend.compiled import CompiledRegion, Refused
from dbt.codecache.handlers import image_key
from dbt.codecache.interpreter import signal_at_parents_end
from dbt.codecache.region_store import RegionStore, StoreCounts
from dbt.engine.descriptors import leave_all_but
from dbt.engine.messages import (
    CompileRequest,
    CompileResult,
    MachineNotice,
    Notice,
    PageNotice,
    TargetNotice,
    pack_result,
    pack_start,
    take_messages,
    unpack_notice,
)
from dbt.engine.mirror import CodeMirror

if TYPE_CHECKING:
    from dbt.backend.compile_region import RegionCompiler

#: A compile function. From the mirror of a machine's code it answers a request with a region, or why there is none.
Compile = Callable[[CodeMirror, CompileRequest], CompiledRegion | Refused]

#: The signals to the compiler. The kernel delivers the lower of two pending ones first, and FINISH must be first.
FINISH, _PARENT_ENDED = signal.SIGUSR1, signal.SIGUSR2
#: The number of seconds for which a compiler may outlive a process that has asked it to finish its work.
_FINISH_S = 5.0
_READ_SIZE = 1 << 20


def make_compile() -> Compile:
    """Return a compile function. This imports LLVM, which the guest's process must not do."""
    from dbt.backend.compile_region import RegionCompiler

    return compile_with(RegionCompiler())


def compile_with(compiler: RegionCompiler) -> Compile:
    """Return the compile function of this compiler."""
    from dbt.backend.region_exits import Assumptions

    def compile_(mirror: CodeMirror, request: CompileRequest) -> CompiledRegion | Refused:
        pages = None if request.pages is None else dict(request.pages)
        mirror.set_page_map(pages)
        return compiler.compile(mirror, request.gva, Assumptions(request.context, pages), request.backlog)

    return compile_


class _Machine:
    """One machine, as the compiler knows it."""

    def __init__(self, notice: MachineNotice) -> None:
        self.mirror = CodeMirror(notice.code_pages)
        self._environment = dict(notice.environment)
        self.use_environment()
        self._store = RegionStore(image_key()) if notice.keep else None

    def use_environment(self) -> None:
        """Set the environment variables for the cache directory to this machine's. Machines may differ in them."""
        for name in CACHE_VARIABLES:
            if name in self._environment:
                os.environ[name] = self._environment[name]
            else:
                os.environ.pop(name, None)

    def keep(self, region: CompiledRegion, request: CompileRequest) -> StoreCounts:
        """Write a region to the cache directory, so that the next run has it even if this one ends before the answer.

        A region that a breakpoint of a debugger has cut short is not kept. Returns the counts of what became of it.
        """
        if self._store is None or self.mirror.met_breakpoint:
            return StoreCounts()
        self.use_environment()
        before = self._store.counts
        self._store.save(region, request.named)
        now = self._store.counts
        failed = now.failed - before.failed
        error = now.error if failed else 0
        return StoreCounts(now.saved - before.saved, now.evicted - before.evicted, failed, error)


#: The environment variables that determine the cache directory and its limit.
CACHE_VARIABLES = ("DBT_CACHE_DIR", "DBT_CACHE_SIZE", "XDG_CACHE_HOME", "HOME")


def serve(
    requests: int,
    results: int,
    parent: int | None,
    make: Callable[[], Compile],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Answer the messages from the pipe ``requests`` until the pipe or the process ``parent``, if it is given, ends.

    With an ``environment``, that says where the cache directory is, whatever the machines say.
    """
    if parent is not None:
        _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_all_but({requests, results, *((2,) if os.environ.get("DBT_DEBUG") else ())})
    try:
        compile_ = make()
    except Exception as error:
        _write(results, pack_start(f"{type(error).__name__}: {error}"))
        raise
    _write(results, pack_start())
    # The objects that exist now stay, so the garbage collector need not visit them again and again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    machines: dict[int, _Machine] = {}
    received = bytearray()
    while piece := os.read(requests, _READ_SIZE):
        received += piece
        for body in take_messages(received):
            number, notice = unpack_notice(body)
            if environment is not None and isinstance(notice, MachineNotice):
                notice = replace(notice, environment=environment)
            _write(results, _take(machines, number, notice, compile_))


def _write(results: int, answer: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent has ended, and what was compiled is kept already
        while answer:
            answer = answer[os.write(results, answer) :]


def _take(machines: dict[int, _Machine], number: int, notice: Notice, compile_: Compile) -> bytes:
    """Do what a message asks for. Return the answer, which is empty for messages that need none."""
    match notice:
        case MachineNotice():
            machines[number] = _Machine(notice)
        case PageNotice():
            machines[number].mirror.set_page(notice)
        case TargetNotice():
            machines[number].mirror.set_targets(notice)
        case None:
            machines.pop(number, None)
        case (request_number, request):
            return _compile(machines[number], request_number, request, compile_)
    return b""


def _compile(machine: _Machine, number: int, request: CompileRequest, compile_: Compile) -> bytes:
    started = time.perf_counter()
    region = compile_(machine.mirror, request)
    kept = machine.keep(region, request) if isinstance(region, CompiledRegion) else StoreCounts()
    return pack_result(CompileResult(number, time.perf_counter() - started, region, kept))


def _end_with(parent: int) -> None:
    """End this process when the parent ends in whatever way, even in the middle of a compilation.

    The exception is a parent that has sent :data:`FINISH` first, as it ends in an orderly way: then the requests that
    it has made are compiled for the next run, for some seconds at most.

    The kernel's signal also comes when only the thread has ended that forked this process. Therefore it does not kill,
    but wakes a thread that checks whether the parent still exists. A compilation in LLVM does not delay this thread.
    """
    signals = {FINISH, _PARENT_ENDED}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal_at_parents_end(_PARENT_ENDED)

    def watch() -> None:
        while os.getppid() == parent or FINISH in signal.sigpending():
            if signal.sigwait(signals) == FINISH:
                time.sleep(_FINISH_S)
                break
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
