"""The compiler's process as its parent sees it: two pipes, its end, and whether it gets anywhere."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from fcntl import F_GETFL, F_SETFL, fcntl

from dbt.engine.descriptors import is_ready
from dbt.engine.priority import (
    seconds_on_processor,
    seconds_without_processor,
    share_processors,
    yield_processors,
)
from dbt.engine.worker_process import FINISH, Compile, serve

_F_SETPIPE_SZ = 1031
_PIPE_SIZE = 1 << 20


class Compiler(ABC):
    """A process that compiles, as this process sees it: this side's ends of the pipes to it and from it."""

    def __init__(self, requests: int, results: int) -> None:
        #: How many requests it has answered, whether it has said that it is ready, and whether it yields processors.
        self.answers, self.ready, self.yields = 0, False, False
        self._requests, self._results = requests, results
        self._received = bytearray()
        self._outbox = bytearray()  # what the pipe has had no room for
        self._since = 0.0  # when it last made progress
        # os.set_blocking() makes a call of ioctl(2), which a jailed machine may not make.
        fcntl(requests, F_SETFL, fcntl(requests, F_GETFL) | os.O_NONBLOCK)
        with contextlib.suppress(OSError):  # the user has too many pipes, so this one stays smaller
            fcntl(requests, _F_SETPIPE_SZ, _PIPE_SIZE)

    # -- messages ------------------------------------------------------------------------------

    def put(self, message: bytes) -> None:
        """Add a message to what :meth:`send` sends."""
        self._outbox += message

    def send(self, message: bytes = b"") -> None:
        """Send this message after all earlier ones, as far as the pipe has room for them."""
        self._outbox += message
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a dead child is noticed by the end of its answers
            while self._outbox:
                del self._outbox[: os.write(self._requests, self._outbox)]
                self.note_progress()

    @property
    def has_unsent(self) -> bool:
        """True if it has not been sent everything, because the pipe had no room."""
        return bool(self._outbox)

    def has_answers(self, milliseconds: int = 0) -> bool:
        """Return True if :meth:`read` would not wait, now or within that time."""
        return is_ready(self._results, milliseconds / 1000)

    def read(self) -> bytearray:
        """Return what has arrived and has not been taken from it. It is empty if the child has ended."""
        data = os.read(self._results, _PIPE_SIZE)
        if not data:
            return bytearray()
        self.note_progress()
        self._received += data
        return self._received

    # -- the process ---------------------------------------------------------------------------

    def note_progress(self) -> None:
        """Note that there is nothing yet that takes long."""
        self._since = time.monotonic()

    @abstractmethod
    def is_overdue(self, limit: float) -> bool:
        """Return True if it has made no progress for ``limit`` seconds in which it had a processor, or slept."""

    @abstractmethod
    def is_starved(self, patience: float) -> bool:
        """Return True if it has made no progress for ``patience`` seconds, and had a processor for less than half."""

    @abstractmethod
    def yield_processors(self) -> None:
        """Have it run only where a processor is idle, if it can be said so."""

    @abstractmethod
    def share_processors(self) -> bool:
        """Undo :meth:`yield_processors`. Return False if this user may not."""

    @abstractmethod
    def let_finish(self) -> None:
        """Let it outlive this process by the requests that it has, if it can."""

    @property
    @abstractmethod
    def has_ended(self) -> bool:
        """True if the process has ended."""

    def close(self) -> None:
        """Close the pipes and do nothing to the process."""
        os.close(self._requests)
        os.close(self._results)

    @abstractmethod
    def end(self, grace: float = 0.0) -> int:
        """End the process, unless it ends within ``grace`` seconds by itself.

        Returns the exit status, or the negative number of the signal, if it ended by itself and that is known, else 0.
        """


class CompilerProcess(Compiler):
    """A child of this process that compiles, and its PID."""

    def __init__(self, pid: int, requests: int, results: int) -> None:
        super().__init__(requests, results)
        self.pid = pid
        self._processor_then: tuple[float, float] = (-1.0, 0.0)  # a time of progress, and its CPU time then
        self._delay = 0.0  # the seconds without a processor that have been taken into account

    @classmethod
    def start(cls, make: Callable[[], Compile]) -> CompilerProcess:
        """Start a compiler whose compile function is ``make()``. Raises OSError."""
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
                serve(requests_read, results_write, parent, make)
            finally:
                os._exit(0)
        os.close(requests_read)
        os.close(results_write)
        return cls(pid, requests_write, results_read)

    # -- progress ------------------------------------------------------------------------------

    def is_overdue(self, limit: float) -> bool:
        if time.monotonic() - self._since <= limit:
            return False
        delay = seconds_without_processor(self.pid)
        self._since += delay - self._delay
        self._delay = delay
        return time.monotonic() - self._since > limit

    def is_starved(self, patience: float) -> bool:
        if self._processor_then[0] != self._since:
            self._processor_then = self._since, seconds_on_processor(self.pid)
        waited = time.monotonic() - self._since
        return waited > patience and seconds_on_processor(self.pid) - self._processor_then[1] < waited / 2

    def yield_processors(self) -> None:
        self.yields = True
        yield_processors(self.pid)

    def share_processors(self) -> bool:
        return share_processors(self.pid)

    def let_finish(self) -> None:
        if self.yields:
            share_processors(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, FINISH)

    # -- the end -------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """True if the process has ended. It is left to be waited for."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def end(self, grace: float = 0.0) -> int:
        self.close()
        deadline = time.monotonic() + grace
        try:
            while not (ended := os.waitpid(self.pid, os.WNOHANG))[0] and time.monotonic() < deadline:
                time.sleep(0.001)
            if not ended[0]:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return 0
        except (ChildProcessError, ProcessLookupError):  # somebody else has waited for it
            return 0
        return os.waitstatus_to_exitcode(ended[1])
