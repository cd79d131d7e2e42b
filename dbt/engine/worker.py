"""Compiling regions in a process of its own: the parent's side, and the loop of the child.

The child is forked from the process that runs the guest before either knows LLVM. It shares the guest's
RAM and code pages, so a request is little more than an address: the child grows the region from what has been
executed so far, compiles it, and sends it back with the guest words that it was made from. If LLVM
ends the process, or hangs, that costs the one region.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dbt.backend.compiled import CompiledRegion, Refused

#: Seconds after which a compilation is given up.
TIMEOUT_S = 20.0
_LENGTH = struct.Struct("<I")

R = TypeVar("R")


@dataclass(slots=True)
class WorkerCounts:
    """``lost``: requests that killed or hung the child. ``pending``: those not answered yet.

    ``seconds`` were spent in the child on all requests that it answered, ``longest`` on one of them.
    """

    requests: int = 0
    pending: int = 0
    restarts: int = 0
    lost: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(slots=True)
class _Child:
    parent: int
    pid: int
    requests: int  # file descriptors
    results: int
    received: bytearray = field(default_factory=bytearray)


class CompileWorker(Generic[R]):
    """The parent's side. ``make_compile`` is called in the child, and may import what the parent must not.

    What it makes takes a request, anything that can be pickled, and answers with a region or why there is none.
    """

    def __init__(self, make_compile: Callable[[], Callable[[R], CompiledRegion | Refused]]) -> None:
        self._make_compile = make_compile
        self._child: _Child | None = None
        self._pending: deque[R] = deque()
        self._since = 0.0
        self._counts = WorkerCounts()

    @property
    def counts(self) -> WorkerCounts:
        """Counted since the start or :meth:`reset_counts`; what was pending then counts as asked for since."""
        self._counts.pending = len(self._pending)
        return self._counts

    def reset_counts(self) -> None:
        self._counts = WorkerCounts(requests=len(self._pending))

    def submit(self, request: R) -> None:
        """Ask for a region."""
        self._counts.requests += 1
        if not self._pending:
            self._since = time.monotonic()
        self._pending.append(request)
        self._send(request)

    @property
    def pending(self) -> int:
        """How many requests have not come back."""
        return len(self._pending)

    def is_pending(self, request: R) -> bool:
        """Whether the region was asked for and has not come back."""
        return request in self._pending

    def poll(self) -> list[tuple[R, CompiledRegion | Refused]]:
        """What has been finished: request and region, in the order asked for. Does not wait."""
        if not self._pending:
            return []
        finished: list[tuple[R, CompiledRegion | Refused]] = []
        while self._child is not None and _is_readable(self._child.results, 0):
            data = os.read(self._child.results, 1 << 20)
            if not data:
                finished += self._lose_first()
                break
            self._child.received += data
            finished += self._take_messages(self._child)
        if self._pending and time.monotonic() - self._since > TIMEOUT_S:
            finished += self._lose_first()
        return finished

    def wait(self) -> list[tuple[R, CompiledRegion | Refused]]:
        """As :meth:`poll`, but waits until something is finished."""
        while self._pending:
            if finished := self.poll():
                return finished
            if self._child is not None:
                _is_readable(self._child.results, 100)
        return []

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._end(self._child)
            self._child = None

    # -- messages ------------------------------------------------------------------------------

    def _take_messages(self, child: _Child) -> list[tuple[R, CompiledRegion | Refused]]:
        finished: list[tuple[R, CompiledRegion | Refused]] = []
        while len(child.received) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(child.received)
            if len(child.received) < _LENGTH.size + size:
                break
            message = bytes(child.received[_LENGTH.size : _LENGTH.size + size])
            del child.received[: _LENGTH.size + size]
            region, seconds = pickle.loads(message)
            finished.append((self._pending.popleft(), region))
            self._counts.seconds += seconds
            self._counts.longest = max(self._counts.longest, seconds)
            self._since = time.monotonic()
        return finished

    def _lose_first(self) -> list[tuple[R, CompiledRegion | Refused]]:
        """The child died or hangs over its first request: give that up, ask a new child for the others."""
        self.close()
        if not self._pending:
            return []
        lost = self._pending.popleft()
        self._counts.lost += 1
        self._counts.restarts += 1
        self._since = time.monotonic()
        for request in self._pending:
            self._send(request)
        return [(lost, Refused("the compiler was lost over it"))]

    def _send(self, request: R) -> None:
        if self._child is None:
            self._child = self._start()
        with contextlib.suppress(BrokenPipeError):  # it is dead; the next poll finds out
            _write_message(self._child.requests, request)

    # -- the child -----------------------------------------------------------------------------

    def _start(self) -> _Child:
        requests_read, requests_write = os.pipe()
        results_read, results_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(requests_write)
                os.close(results_read)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                _leave_the_console()
                os.nice(1)
                compile_ = self._make_compile()
                # What is there stays, and is not to be looked through for garbage again and again.
                gc.freeze()
                gc.set_threshold(50_000, 20, 20)
                _serve(requests_read, results_write, compile_)
            finally:
                os._exit(0)
        os.close(requests_read)
        os.close(results_write)
        return _Child(os.getpid(), pid, requests_write, results_read)

    @staticmethod
    def _end(child: _Child) -> None:
        if child.parent != os.getpid():
            return  # collected as garbage in a forked process, whose child it is not
        os.close(child.requests)
        os.close(child.results)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)


def _is_readable(file: int, milliseconds: int) -> bool:
    """Whether there is something to be read, waiting so long for it. Not by select, which refuses files over 1023."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(milliseconds))


def _leave_the_console() -> None:
    """Whoever waits for the end of the guest's output must not wait for the compiler."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1) if os.environ.get("DBT_DEBUG") else (0, 1, 2):
        os.dup2(null, descriptor)


def _serve(requests: int, results: int, compile_: Callable[[R], CompiledRegion | Refused]) -> None:
    """Answer requests until there are no more."""
    while len(head := _read(requests, _LENGTH.size)) == _LENGTH.size:
        request: R = pickle.loads(_read(requests, _LENGTH.unpack(head)[0]))
        started = time.perf_counter()
        region = compile_(request)
        _write_message(results, (region, time.perf_counter() - started))


def _write_message(file: int, content: object) -> None:
    message = pickle.dumps(content)
    data = _LENGTH.pack(len(message)) + message
    while data:
        data = data[os.write(file, data) :]


def _read(file: int, size: int) -> bytes:
    """``size`` bytes, fewer at the end."""
    data = b""
    while len(data) < size and (piece := os.read(file, size - len(data))):
        data += piece
    return data
