"""Compiling hot lists without a guest, by several compilers at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from dbt.abi.addresses import Gpa
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.codecache.region_store import RegionStore
from dbt.engine.hot_list import HotList
from dbt.engine.messages import CompileRequest
from dbt.engine.worker import CompileClient, CompileWorker

#: The most requests that a compiler has at a time, so that it need not wait for the next one.
_IN_FLIGHT = 2


class TranslationHalted(Exception):
    """Raised if there is no compiler, or if a region cannot be kept. The text says why."""


class AheadTranslation:
    """The compiling of what is in ``lists`` and not in the store ``regions``, by ``workers``.

    Code that a compiled region has already is left out, as it is during a run.
    """

    def __init__(self, lists: Sequence[HotList], regions: RegionStore, workers: Sequence[CompileWorker]) -> None:
        self._lists = lists
        self._tasks = deque(
            (number, request)
            for number, hot_list in enumerate(lists)
            for request in hot_list.requests
            if not regions.has(request.gpa, request.named, request.context)
        )
        #: The number of requests.
        self.total = len(self._tasks)
        #: What became of those that are done.
        self.compiled = self.refused = self.covered = 0
        self._covering: set[Gpa] = set()
        self._running: list[tuple[int, CompileRequest]] = []
        self._compilers = [_Compiler(worker) for worker in workers]

    @property
    def done(self) -> int:
        """The number of requests that are done."""
        return self.compiled + self.refused + self.covered

    def step(self) -> bool:
        """Give the compilers what they have room for, and take their answers. Return False if everything is done.

        Raises TranslationHalted.
        """
        for compiler in self._compilers:
            for answered, region in compiler.answers():
                self._running.remove(answered)
                if isinstance(region, Refused):
                    self.refused += 1
                else:
                    self.compiled += 1
                    self._covering.update(Gpa(gpa + at) for gpa, data in region.runs for at in range(0, len(data), 4))
        for compiler in self._compilers:
            while (task := self._next()) is not None and compiler.has_room(task[0]):
                self._running.append(self._tasks.popleft())
                compiler.submit(task, self._lists[task[0]])
        return bool(self._running or self._tasks)

    def _next(self) -> tuple[int, CompileRequest] | None:
        while self._tasks and self._tasks[0][1].gpa in self._covering:
            self._tasks.popleft()
            self.covered += 1
        return self._tasks[0] if self._tasks else None

    def left(self) -> list[HotList]:
        """Return the lists of what is not done."""
        left = [*self._running, *self._tasks]
        found = [
            hot_list.with_requests([request for which, request in left if which == number])
            for number, hot_list in enumerate(self._lists)
        ]
        return [hot_list for hot_list in found if hot_list.requests]

    def close(self) -> None:
        """End the compilers."""
        for compiler in self._compilers:
            compiler.close()


class _Compiler:
    """One of the compilers. It knows the code of one list at a time."""

    def __init__(self, worker: CompileWorker) -> None:
        self._worker = worker
        self._client: CompileClient | None = None
        self._number = -1  # of the list that it knows
        self._tasks: list[tuple[int, CompileRequest]] = []

    def has_room(self, number: int) -> bool:
        """Return True if a request of the list ``number`` can be submitted now."""
        return len(self._tasks) < _IN_FLIGHT and (number == self._number or not self._tasks)

    def submit(self, task: tuple[int, CompileRequest], hot_list: HotList) -> None:
        if self._client is None or task[0] != self._number:
            before, self._number = self._client, task[0]
            self._client = self._worker.connect(hot_list.with_requests(()), keep=True)
            if before is not None:
                before.close()
        self._tasks.append(task)
        self._client.submit(task[1])

    def answers(self) -> list[tuple[tuple[int, CompileRequest], CompiledRegion | Refused]]:
        """Return what has been answered since the last call. Raises TranslationHalted."""
        if self._client is None:
            return []
        answers = self._client.poll()
        if self._client.unavailable:
            raise TranslationHalted(f"cannot start the compiler ({self._client.unavailable})")
        if (store := self._client.store_counts).failed:
            raise TranslationHalted(f"a region cannot be written to the cache directory ({store.reason})")
        return [(self._tasks.pop(0), region) for _, region in answers]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
