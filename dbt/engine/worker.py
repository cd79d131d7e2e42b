"""Compiling regions in a process of its own: the side of the machines.

A process has one compiler for all its machines (:func:`shared_worker`). It is forked when the first region is wanted,
from a process that does not know LLVM, and ends with the last machine. It shares no memory with the guests: a machine
tells it what has changed in its code pages, and then asks. If LLVM ends the compiler, or hangs, that costs one region.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fcntl import fcntl
from typing import Protocol

from dbt.abi.addresses import Hva
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.codecache.region_store import StoreCounts
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
)
from dbt.engine.region_counts import WorkerCounts
from dbt.engine.worker_process import CACHE_VARIABLES, Compile, make_compile, serve

#: Seconds after which a compilation is given up.
TIMEOUT_S = 20.0
#: After so many answers the compiler is begun anew. It grows by 11 KB for each region, which LLVM's passes keep, and to
#: begin anew takes a fifth of a second.
REGIONS_PER_PROCESS = 2000
#: A process whose answers have ended is about to end, and has so many seconds for it.
_GRACE_S = 1.0
_F_SETPIPE_SZ = 1031
_PIPE_SIZE = 1 << 20

Answer = tuple[CompileRequest, CompiledRegion | Refused]


class CodeSource(Protocol):
    """What a machine's code is, for the compiler: :class:`dbt.engine.profile.ExecutionProfile`."""

    @property
    def code_pages_address(self) -> Hva:
        """The HVA by which branch targets name ops."""

    def changes(self) -> Iterator[PageNotice | TargetNotice]:
        """Return what has changed since this was last asked for."""

    def forget_told(self) -> None:
        """The compiler is another one, and knows nothing."""


@dataclass(slots=True)
class _Child:
    """The compiler's process, and this side's descriptors. ``outbox`` is what the pipe has had no room for."""

    pid: int
    requests: int
    results: int
    received: bytearray = field(default_factory=bytearray)
    outbox: bytearray = field(default_factory=bytearray)
    answers: int = 0


@dataclass(slots=True)
class _Pending:
    number: int
    client: CompileClient
    request: CompileRequest
    again: bool = False  # a compiler was killed over it, by somebody else as it seems


class CompileWorker:
    """The compiler of several machines, each of which has a :class:`CompileClient`. Threads may use it at once."""

    def __init__(self, make: Callable[[], Compile] = make_compile) -> None:
        """``make`` is called in the compiler's process, and may import what this one must not."""
        self._make = make
        self._lock = threading.RLock()
        self._child: _Child | None = None
        self._generation = 0  # the number of the child
        self._sent: deque[_Pending] = deque()  # what the child has not answered yet, in the order sent
        self._since = 0.0  # when something last went forward
        self._clients: set[CompileClient] = set()
        self._numbers = 0
        _WORKERS.add(self)

    def connect(self, profile: CodeSource, keep: bool) -> CompileClient:
        """Return the client of a machine. ``keep``: its regions go to the cache directory."""
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
            self._child.outbox += pack_forget(client.number)
            self._flush(self._child)

    def _running(self) -> _Child:
        """Return the child, which is started if there is none. Raises OSError."""
        if self._child is not None and not self._sent and self._child.answers >= REGIONS_PER_PROCESS:
            self._end()
        if self._child is not None and not self._sent and _has_ended(self._child.pid):
            self._end()  # it was idle, and nothing is lost
        if self._child is None:
            self._child = self._start()
            self._generation += 1
        return self._child

    def _send(self, child: _Child, message: bytes, pending: _Pending) -> None:
        if not self._sent:
            self._since = time.monotonic()
        self._sent.append(pending)
        child.outbox += message
        self._flush(child)

    def _flush(self, child: _Child) -> None:
        """Send as much as the pipe has room for."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a dead child is noticed when its answers end
            while child.outbox:
                del child.outbox[: os.write(child.requests, child.outbox)]
                self._since = time.monotonic()

    def _receive(self) -> None:
        """Hand out what has been answered, and give up what has killed the compiler or takes too long."""
        child = self._child
        if child is None:
            return
        self._flush(child)
        while _is_ready(child.results, select.POLLIN, 0):
            data = os.read(child.results, _PIPE_SIZE)
            if not data:
                return self._lose(_GRACE_S)
            self._since = time.monotonic()
            child.received += data
            try:
                for body in take_messages(child.received):
                    self._take(child, body)
            except WrongMessage:
                return self._lose()
        if self._sent and time.monotonic() - self._since > TIMEOUT_S:
            self._lose()
        return None

    def _take(self, child: _Child, body: bytes) -> None:
        result = unpack_result(body)
        if not self._sent or self._sent[0].number != result.number:
            raise WrongMessage(f"an answer to {result.number}, which is not the next request")
        pending = self._sent.popleft()
        child.answers += 1
        pending.client.take(pending.request, result.region, result.seconds, result.store)

    def _lose(self, grace: float = 0.0) -> None:
        """The child died or hangs over its first request: give that up. The others are for another child."""
        status = self._end(grace)
        if not self._sent:
            return
        first = self._sent[0]
        if status == -signal.SIGKILL and not first.again:
            # Not by a fault of the compiler: the host was short of memory, or the thread ended that had forked it.
            first.again = True
        else:
            self._sent.popleft()
            first.client.lose(first.request)
        first.client.count_restart()
        for pending in self._sent:
            pending.client.send_again(pending.request, pending.again)
        self._sent.clear()

    def _start(self) -> _Child:
        requests_read, requests_write = os.pipe()
        try:
            results_read, results_write = os.pipe()
        except OSError:
            os.close(requests_read)
            os.close(requests_write)
            raise
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            for descriptor in (requests_read, requests_write, results_read, results_write):
                os.close(descriptor)
            raise
        if pid == 0:
            try:
                os.close(requests_write)
                os.close(results_read)
                serve(requests_read, results_write, parent, self._make)
            finally:
                os._exit(0)
        os.close(requests_read)
        os.close(results_write)
        os.set_blocking(requests_write, False)
        with contextlib.suppress(OSError):  # the user has too many pipes: this one is smaller
            fcntl(requests_write, _F_SETPIPE_SZ, _PIPE_SIZE)
        return _Child(pid, requests_write, results_read)

    def _end(self, grace: float = 0.0) -> int:
        """End the child, if it has not ended within so many seconds.

        Returns how it ended by itself: an exit status, or the negative number of a signal; 0 if it did not.
        """
        child, self._child = self._child, None
        if child is None:
            return 0
        os.close(child.requests)
        os.close(child.results)
        deadline = time.monotonic() + grace
        try:
            while not (ended := os.waitpid(child.pid, os.WNOHANG))[0] and time.monotonic() < deadline:
                time.sleep(0.001)
            if not ended[0]:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                return 0
        except (ChildProcessError, ProcessLookupError):  # somebody else has waited for it
            return 0
        return os.waitstatus_to_exitcode(ended[1])

    def forget_parent(self) -> None:
        """In a forked process: the compiler and its clients are the parent's. New machines have another one."""
        if self._child is not None:
            os.close(self._child.requests)
            os.close(self._child.results)
        self._lock = threading.RLock()
        self._child = None
        self._sent.clear()
        self._clients.clear()


_WORKERS: weakref.WeakSet[CompileWorker] = weakref.WeakSet()


def _forget_parents_workers() -> None:
    for worker in _WORKERS:
        worker.forget_parent()


os.register_at_fork(after_in_child=_forget_parents_workers)


class CompileClient:
    """One machine's side of the compiler."""

    def __init__(self, worker: CompileWorker, number: int, profile: CodeSource, keep: bool) -> None:
        self.owner = os.getpid()
        self.number = number
        self.generation = 0  # the child that knows of the machine
        #: Why there is no compiler, once that is so.
        self.unavailable = ""
        self._worker = worker
        self._profile = profile
        self._keep = keep
        self._counts = WorkerCounts()
        self._pending: list[CompileRequest] = []  # asked for and not answered
        self._unsent: deque[tuple[CompileRequest, bool]] = deque()  # of these, what the present child must be asked for
        self._answers: deque[Answer] = deque()
        self._store, self._store_before = StoreCounts(), StoreCounts()

    @property
    def counts(self) -> WorkerCounts:
        """Counted since the start or :meth:`reset_counts`; what was pending then counts as asked for since."""
        self._counts.pending = len(self._pending)
        return self._counts

    @property
    def store_counts(self) -> StoreCounts:
        """What became of the regions that were to be kept, since then."""
        now, before = self._store, self._store_before
        return StoreCounts(
            now.saved - before.saved, now.evicted - before.evicted, now.failed - before.failed, now.error
        )

    def reset_counts(self) -> None:
        self._counts = WorkerCounts(requests=len(self._pending))
        self._store_before = self._store

    @property
    def pending(self) -> int:
        """How many requests have not been answered."""
        return len(self._pending)

    def is_pending(self, request: CompileRequest) -> bool:
        """Return True if this was asked for and has not been answered."""
        return request in self._pending

    def submit(self, request: CompileRequest) -> None:
        """Ask for a region."""
        self._counts.requests += 1
        self._pending.append(request)
        self._unsent.append((request, False))
        with self._worker._lock:
            self._send_unsent()

    def poll(self) -> list[Answer]:
        """Return what has been answered, in the order asked for. Does not wait."""
        if not self._pending:
            return []
        with self._worker._lock:
            self._worker._receive()
            self._send_unsent()
            answers = list(self._answers)
            self._answers.clear()
        for request, _ in answers:
            self._pending.remove(request)
        return answers

    def wait(self) -> list[Answer]:
        """As :meth:`poll`, but waits until something is answered."""
        while self._pending:
            if answers := self.poll():
                return answers
            child = self._worker._child
            if child is not None:
                events = select.POLLIN
                # Another thread may take the answer and hand it to this client, so this one looks now and then.
                with contextlib.suppress(ValueError):
                    _is_ready(child.results, events, 5 if child.outbox or len(self._worker._clients) > 1 else 100)
        return []

    def close(self) -> None:
        """The machine is no more. The compiler ends with its last machine."""
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
                self.unavailable = error.strerror or str(error)
                while self._unsent:
                    self.lose(self._unsent.popleft()[0])
                return
            if self.generation != self._worker._generation:
                self._introduce(child)
            for notice in self._profile.changes():
                child.outbox += (
                    pack_page(self.number, notice)
                    if isinstance(notice, PageNotice)
                    else pack_targets(self.number, notice)
                )
            request, again = self._unsent.popleft()
            self._worker._numbers += 1
            number = self._worker._numbers & 0xFFFFFFFF
            message = pack_request(self.number, number, request)
            self._worker._send(child, message, _Pending(number, self, request, again))

    def _introduce(self, child: _Child) -> None:
        """Tell a child that does not know it of the machine."""
        self.generation = self._worker._generation
        variables = {name: os.environ[name] for name in CACHE_VARIABLES if name in os.environ}
        if "DBT_CACHE_DIR" in variables:
            variables["DBT_CACHE_DIR"] = os.path.abspath(variables["DBT_CACHE_DIR"])
        notice = MachineNotice(self._profile.code_pages_address, self._keep, variables)
        child.outbox += pack_machine(self.number, notice)
        self._profile.forget_told()

    # -- for the worker ----------------------------------------------------------------------------

    def take(
        self, request: CompileRequest, region: CompiledRegion | Refused, seconds: float, store: StoreCounts
    ) -> None:
        """An answer has come."""
        self._counts.seconds += seconds
        self._counts.longest = max(self._counts.longest, seconds)
        sums, error = self._store, store.error or self._store.error
        self._store = StoreCounts(
            sums.saved + store.saved, sums.evicted + store.evicted, sums.failed + store.failed, error
        )
        self._answers.append((request, region))

    def lose(self, request: CompileRequest) -> None:
        """There will be no answer."""
        self._counts.lost += 1
        self._answers.append((request, Refused("the compiler was lost over it")))

    def count_restart(self) -> None:
        """The compiler was lost over a request of this machine."""
        self._counts.restarts += 1

    def send_again(self, request: CompileRequest, again: bool) -> None:
        """The child that was asked is no more."""
        self._unsent.append((request, again))


def _is_ready(descriptor: int, event: int, milliseconds: int) -> bool:
    """Return True if the event is there within that time. Not by select, which refuses descriptors over 1023."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(milliseconds))


def _has_ended(pid: int) -> bool:
    """Return True if a child process has ended, which is still to be waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


_SHARED = CompileWorker()


def shared_worker() -> CompileWorker:
    """Return the compiler of this process's machines. In a forked process it is another one."""
    return _SHARED
