"""The compile worker, which compiles regions in a process of its own, as the machines see it.

A process has one compiler for all its machines (:func:`shared_worker`). It is forked for the first request, from a
process that has not loaded LLVM, and ends with the last machine. It shares no memory with the guests: a machine tells
it what has changed in its code pages, and then makes a request. If LLVM crashes or hangs, that costs one region.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from dbt.abi.addresses import Hva
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.codecache.region_store import StoreCounts
from dbt.engine.compiler_process import Compiler, CompilerProcess
from dbt.engine.messages import (
    CompileRequest,
    MachineNotice,
    PageNotice,
    TargetNotice,
    WrongMessage,
    pack_forget,
    pack_machine,
    pack_page,
    pack_request,
    pack_targets,
    take_messages,
    unpack_result,
    unpack_start,
)
from dbt.engine.region_counts import WorkerCounts
from dbt.engine.worker_process import CACHE_VARIABLES, Compile, make_compile

#: Seconds after which a compilation is given up, without those in which it had no processor.
TIMEOUT_S = 20.0
#: Seconds without progress after which a compiler that yields the processors, and had one for less than half of that,
#: has yielded enough. It is about the time that a region takes: who has waited for so long may wait for as long again.
PATIENCE_S = 0.5
#: So many compilers that end before they have begun mean that there is none.
_FAILED_STARTS = 2
#: The number of answers after which the compiler is restarted. LLVM's passes leak 11 KB for each region. A restart
#: takes a fifth of a second.
REGIONS_PER_PROCESS = 2000
#: Seconds that a compiler whose answers have ended is given to exit.
_GRACE_S = 1.0
_LOOK_INTERVAL_MS = 5

Answer = tuple[CompileRequest, CompiledRegion | Refused]


class CodeSource(Protocol):
    """The source of what the compiler is told of a machine's code: :class:`dbt.engine.profile.ExecutionProfile`."""

    @property
    def code_pages_address(self) -> Hva:
        """The HVA of the code pages, from which branch targets name ops."""

    def changes(self) -> Iterator[PageNotice | TargetNotice]:
        """Return what has changed since the last call."""

    def forget_told(self) -> None:
        """Forget what was told, because the compiler is a new one that knows nothing."""


@dataclass(slots=True)
class _Pending:
    number: int
    client: CompileClient
    request: CompileRequest
    again: bool = False  # a compiler was killed over it, apparently from outside


class CompileWorker:
    """The compiler of several machines, each of which has a :class:`CompileClient`. It is safe for threads.

    While nobody waits for it, it runs only where a processor is idle, because guests go on without it. But if it has
    got nowhere for a while, it shares the processors from then on.
    """

    def __init__(
        self,
        make: Callable[[], Compile] = make_compile,
        yields: bool = True,
        start: Callable[[], Compiler] | None = None,
    ) -> None:
        """``make`` is called in the compiler's process, where it may import LLVM. Without ``yields`` the compiler has
        the same priority as this process all the time. ``start`` starts a compiler in another way than as a child of
        this process.
        """
        self._start = start or (lambda: CompilerProcess.start(make))
        self._yields = yields
        self._failed_starts = 0  # one after the other
        self._lock = threading.RLock()
        self._child: Compiler | None = None
        self._generation = 0  # counts the children
        self._sent: deque[_Pending] = deque()  # the requests that the child has not answered yet, in the order sent
        self._clients: set[CompileClient] = set()
        self._numbers = 0
        _WORKERS.add(self)

    def connect(self, profile: CodeSource, keep: bool) -> CompileClient:
        """Return the client of a machine. With ``keep``, its regions are written to the cache directory."""
        with self._lock:
            self._numbers += 1
            client = CompileClient(self, self._numbers, profile, keep)
            self._clients.add(client)
            return client

    # -- for the clients; the lock is held ---------------------------------------------------------

    def _disconnect(self, client: CompileClient) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        if client.owner != os.getpid():
            return
        if not self._clients:
            self._end()
        elif self._child is not None and client.generation == self._generation:
            self._child.send(pack_forget(client.number))

    def _running(self) -> Compiler:
        """Return the child, which is started if there is none. Raises OSError."""
        if self._child is not None and not self._sent and self._child.answers >= REGIONS_PER_PROCESS:
            self._end()
        if self._child is not None and not self._sent and self._child.has_ended:
            self._end()  # the child was idle, so nothing is lost
        if self._child is None:
            self._child = self._start()
            self._generation += 1
        return self._child

    def _send(self, child: Compiler, message: bytes, pending: _Pending) -> None:
        if not self._sent:
            child.note_progress()
        self._sent.append(pending)
        child.send(message)

    def _receive(self) -> None:
        """Hand out the answers, and give up a request that has killed the compiler or takes too long."""
        child = self._child
        if child is None:
            return
        child.send()
        while child.has_answers():
            data = child.read()
            if not data:
                return self._lose(_GRACE_S)
            try:
                for body in take_messages(data):
                    self._take(child, body)
            except WrongMessage:
                return self._lose()
            except _NoCompiler as error:
                return self._give_up(str(error))
        if self._sent and child.is_overdue(TIMEOUT_S):
            self._lose()
        return None

    def _take(self, child: Compiler, body: bytes) -> None:
        if not child.ready:
            if reason := unpack_start(body):
                raise _NoCompiler(reason)
            child.ready = True
            self._failed_starts = 0
            return
        result = unpack_result(body)
        if not self._sent or self._sent[0].number != result.number:
            raise WrongMessage(f"an answer to {result.number}, which is not the next request")
        pending = self._sent.popleft()
        child.answers += 1
        pending.client.take(pending.request, result.region, result.seconds, result.store)

    def _lose(self, grace: float = 0.0) -> None:
        """End the child, which died or hangs over its first request. Give it up, and send the others again."""
        was_ready = self._child is not None and self._child.ready
        status = self._end(grace)
        if not self._sent:
            return None
        first = self._sent[0]
        if not was_ready and status != -signal.SIGKILL:  # no request is to blame
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                return self._give_up(f"its process ends at its start, {_end_text(status)}")
        elif status == -signal.SIGKILL and not first.again:
            # The request is not to blame: the host was short of memory, or the thread that had forked the child ended.
            first.again = True
        else:
            self._sent.popleft()
            first.client.lose(first.request)
        first.client.count_restart()
        self._send_all_again()
        return None

    def _send_all_again(self) -> None:
        for pending in self._sent:
            pending.client.send_again(pending.request, pending.again)
        self._sent.clear()

    def _give_up(self, reason: str) -> None:
        """Tell the clients that there is no compiler, and why. What they have requested is lost."""
        self._end()
        self._failed_starts = 0
        self._sent.clear()
        for client in self._clients:
            client.give_up(reason)

    # -- priority ----------------------------------------------------------------------------------

    def _yield_processors(self) -> None:
        """Let the child run only where a processor is idle, because nobody waits for it, until it has got nowhere."""
        child = self._child
        if not self._yields or child is None:
            return
        if not child.yields:
            child.yield_processors()
        elif self._sent and child.is_starved(PATIENCE_S):
            self._yields = False
            self._share_processors()

    def _share_processors(self) -> None:
        """Let the child run as this process does, because somebody waits for it.

        A user who may not do that gets a new child. That one never yields, as they could wait for it again.
        """
        child = self._child
        if child is None or not child.yields:
            return
        if child.share_processors():
            child.yields = False
            return
        self._yields = False
        self._end()
        self._send_all_again()

    def _end(self, grace: float = 0.0) -> int:
        """End the child, if there is one. Return its exit status as :meth:`CompilerProcess.end` does."""
        child, self._child = self._child, None
        return 0 if child is None else child.end(grace)

    def let_finish(self) -> None:
        """Let the compiler outlive this process by the requests that it has, so that the next run has their regions."""
        child = self._child
        if child is not None and self._sent:
            child.let_finish()

    def forget_parent(self) -> None:
        """Drop the compiler and its clients in a forked process: they are the parent's. New machines have another."""
        if self._child is not None:
            self._child.close()
        self._lock = threading.RLock()
        self._child = None
        self._sent.clear()
        self._clients.clear()


_WORKERS: weakref.WeakSet[CompileWorker] = weakref.WeakSet()


def let_compilers_finish() -> None:
    """Have the compilers finish their requests although this process ends now. Its machines need not be closed."""
    for worker in _WORKERS:
        worker.let_finish()


atexit.register(let_compilers_finish)


def _forget_parents_workers() -> None:
    for worker in _WORKERS:
        worker.forget_parent()


os.register_at_fork(after_in_child=_forget_parents_workers)


class CompileClient:
    """One machine's connection to the compiler."""

    def __init__(self, worker: CompileWorker, number: int, profile: CodeSource, keep: bool) -> None:
        self.owner = os.getpid()
        self.number = number
        self.generation = 0  # the number of the child that was told of the machine
        #: Why there is no compiler. It is empty as long as there may be one.
        self.unavailable = ""
        self._worker = worker
        self._profile = profile
        self._keep = keep
        self._counts = WorkerCounts()
        self._pending: list[CompileRequest] = []  # requests that have not been answered
        self._unsent: deque[tuple[CompileRequest, bool]] = (
            deque()
        )  # those of them that are still to be sent to the present child
        self._answers: deque[Answer] = deque()
        self._store, self._store_before = StoreCounts(), StoreCounts()

    @property
    def counts(self) -> WorkerCounts:
        """The counts since the start or :meth:`reset_counts`. Requests that were pending then are included."""
        self._counts.pending = len(self._pending)
        return self._counts

    @property
    def store_counts(self) -> StoreCounts:
        """What became of the regions that were to be kept, since the start or :meth:`reset_counts`."""
        now, before = self._store, self._store_before
        return StoreCounts(
            now.saved - before.saved, now.evicted - before.evicted, now.failed - before.failed, now.error
        )

    def reset_counts(self) -> None:
        self._counts = WorkerCounts(requests=len(self._pending))
        self._store_before = self._store

    @property
    def pending(self) -> int:
        """The number of requests that have not been answered."""
        return len(self._pending)

    @property
    def unanswered(self) -> list[CompileRequest]:
        """The requests that have not been answered, in order."""
        return list(self._pending)

    @property
    def undelivered(self) -> list[CompileRequest]:
        """Those of them that the compiler never learns of, if this process ends now."""
        child = self._worker._child
        return self.unanswered if child is None or child.has_unsent else []

    def is_pending(self, request: CompileRequest) -> bool:
        """Return True if this request was made and has not been answered."""
        return request in self._pending

    def submit(self, request: CompileRequest) -> None:
        """Request a region."""
        self._counts.requests += 1
        self._pending.append(request)
        self._unsent.append((request, False))
        with self._worker._lock:
            self._send_unsent()

    def poll(self) -> list[Answer]:
        """Return the new answers, in the order of the requests, without waiting."""
        return self._poll(waits=False)

    def _poll(self, waits: bool) -> list[Answer]:
        if not self._pending:
            return []
        with self._worker._lock:
            if waits:
                self._worker._share_processors()
            else:
                self._worker._yield_processors()
            self._worker._receive()
            self._send_unsent()
            answers = list(self._answers)
            self._answers.clear()
        for request, _ in answers:
            self._pending.remove(request)
        return answers

    def wait(self, must_stop: Callable[[], bool] = lambda: False) -> list[Answer]:
        """Do as :meth:`poll`, but wait until something is answered, or until ``must_stop()`` returns True.

        Of a handler of a signal Python says nothing here, and another thread may take the answer and hand it to this
        client. So the wait is for some milliseconds at a time.
        """
        while self._pending:
            if answers := self._poll(waits=True):
                return answers
            if must_stop():
                return []
            child = self._worker._child
            if child is not None:
                with contextlib.suppress(ValueError):
                    child.has_answers(_LOOK_INTERVAL_MS)
        return []

    def close(self) -> None:
        """Disconnect the machine. The compiler ends with its last machine."""
        with self._worker._lock:
            self._worker._disconnect(self)
        self._pending.clear()
        self._unsent.clear()
        self._answers.clear()

    def _send_unsent(self) -> None:
        if self.owner != os.getpid():
            raise RuntimeError("a machine cannot be used in a process that was forked from the one that made it")
        while self._unsent:
            try:
                child = self._worker._running()
            except OSError as error:
                return self.give_up(error.strerror or str(error))
            if self.generation != self._worker._generation:
                self._introduce(child)
            for notice in self._profile.changes():
                child.put(
                    pack_page(self.number, notice)
                    if isinstance(notice, PageNotice)
                    else pack_targets(self.number, notice)
                )
            request, again = self._unsent.popleft()
            self._worker._numbers += 1
            number = self._worker._numbers & 0xFFFFFFFF
            message = pack_request(self.number, number, request)
            self._worker._send(child, message, _Pending(number, self, request, again))
        return None

    def _introduce(self, child: Compiler) -> None:
        """Tell a new child of the machine."""
        self.generation = self._worker._generation
        variables = {name: os.environ[name] for name in CACHE_VARIABLES if name in os.environ}
        if "DBT_CACHE_DIR" in variables:
            variables["DBT_CACHE_DIR"] = os.path.abspath(variables["DBT_CACHE_DIR"])
        notice = MachineNotice(self._profile.code_pages_address, self._keep, variables)
        child.put(pack_machine(self.number, notice))
        self._profile.forget_told()

    # -- for the worker ----------------------------------------------------------------------------

    def take(
        self, request: CompileRequest, region: CompiledRegion | Refused, seconds: float, store: StoreCounts
    ) -> None:
        """Take an answer that has arrived."""
        self._counts.seconds += seconds
        self._counts.longest = max(self._counts.longest, seconds)
        sums, error = self._store, store.error or self._store.error
        self._store = StoreCounts(
            sums.saved + store.saved, sums.evicted + store.evicted, sums.failed + store.failed, error
        )
        self._answers.append((request, region))

    def lose(self, request: CompileRequest) -> None:
        """Give up a request that will have no answer."""
        self._counts.lost += 1
        self._answers.append((request, Refused("the compiler was lost over it")))

    def give_up(self, reason: str) -> None:
        """Lose every request, because there is no compiler."""
        self.unavailable = reason
        self._unsent.clear()
        answered = {id(request) for request, _ in self._answers}
        for request in self._pending:
            if id(request) not in answered:
                self.lose(request)

    def count_restart(self) -> None:
        """Count a compiler that was lost over a request of this machine."""
        self._counts.restarts += 1

    def send_again(self, request: CompileRequest, again: bool) -> None:
        """Send a request again, because the child that had it is gone."""
        self._unsent.append((request, again))


class _NoCompiler(Exception):
    """Raised if the child says that it cannot compile. The text says why."""


def _end_text(status: int) -> str:
    """Return in words how a process ended."""
    if not status:
        return "because it does not get ready"
    return f"by signal {-status}" if status < 0 else f"with status {status}"


_SHARED = CompileWorker()


def shared_worker() -> CompileWorker:
    """Return the compiler of this process's machines. A forked process has another one."""
    return _SHARED


def share_worker(worker: CompileWorker) -> None:
    """Let ``worker`` be the compiler of the machines that this process makes from now on."""
    global _SHARED  # noqa: PLW0603 - of the process
    _SHARED = worker
