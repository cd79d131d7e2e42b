"""What was hot and was not compiled: what earlier runs of a program left, and what this run leaves to the next.

The worker compiles what earlier runs left beside the guest, as if it had been asked by a further machine, whose code is
that of the :class:`dbt.engine.hot_list.HotList`. At an orderly end what is left is written down again.

Code of this run that the compiler had no time for while it was hot is compiled for the next run, from a copy, when the
compiler has nothing else to do. A kernel's decompressor is such code: it is executed once in a boot, and written over.
"""

from __future__ import annotations

import atexit
import itertools
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa
from dbt.codecache.hot_list_store import HotListStore
from dbt.codecache.region_store import RegionStore
from dbt.frontend.context import TranslationContext

if TYPE_CHECKING:
    from dbt.engine.hot_list import HotList
    from dbt.engine.messages import CompileRequest
    from dbt.engine.worker import Answer, CodeSource, CompileClient

#: The most code of a run that is kept for the next.
_MOST_LATER = 16


class UnfinishedWork:
    """The unfinished work of one machine. It comes to life with the first warm code, so that other guests pay nothing.

    ``program`` returns the identity of the machine's program, which is empty if there is none. ``regions`` is asked
    what is on disk already. ``connect`` makes a client of the compiler for a list. ``own`` returns the list of what is
    hot in this run and not compiled, or None if that is nothing; given True, with what the compiler is about to lose.
    ``suits`` returns True for a context that code of this machine could run under.
    """

    def __init__(
        self,
        lists: HotListStore,
        regions: RegionStore,
        program: Callable[[], bytes],
        connect: Callable[[CodeSource], CompileClient],
        own: Callable[[bool], HotList | None],
        suits: Callable[[TranslationContext], bool],
    ) -> None:
        self._store, self._regions = lists, regions
        self._program, self._connect, self._own, self._suits = program, connect, own, suits
        self._owner = os.getpid()
        self._identity: bytes | None = None  # None: nothing has been warm yet
        self._was_left = False  # there is a file, as far as this process knows
        self._lists: deque[HotList] = deque()
        self._others: list[HotList] = []  # what does not suit this machine
        self._later: dict[Gpa, HotList] = {}  # what has to wait in this run, each with a single request
        self._client: CompileClient | None = None  # the one for the first of the lists

    def begin(self) -> None:
        """Read what earlier runs of the program left. Only the first call for a program does something."""
        identity = self._program()
        if identity == self._identity:
            return
        self._drop_lists()
        self._identity = identity
        self._was_left = False
        if identity:
            for hot_list in load_hot_lists(self._store, identity):
                self._was_left = True
                self._add(hot_list)
            _WORK.add(self)

    def _add(self, hot_list: HotList) -> None:
        """Take a list in two parts: the requests that suit this machine, and the others."""
        suitable = [request for request in hot_list.requests if self._suits(request.context)]
        others = [request for request in hot_list.requests if not self._suits(request.context)]
        if suitable:
            self._lists.append(hot_list.with_requests(suitable))
        if others:
            self._others.append(hot_list.with_requests(others))

    @property
    def waiting(self) -> bool:
        """Return True while there may be requests for other runs to make or to hear of."""
        return bool(self._lists or self._later)

    @property
    def left(self) -> int:
        """The number of requests of earlier runs that are not done, as far as is known."""
        return self.pending + sum(len(hot_list.requests) for hot_list in self._lists)

    @property
    def pending(self) -> int:
        """The number of requests for other runs that the compiler has."""
        return 0 if self._client is None else self._client.pending

    def wants(self, gpa: Gpa, context: TranslationContext) -> bool:
        """Return True if an earlier run wanted the code at an address, and that is still to be done or in work."""
        in_work = [] if self._client is None else self._client.unanswered
        wanted = itertools.chain(in_work, *(hot_list.requests for hot_list in self._lists))
        return any(request.gpa == gpa and request.context == context for request in wanted)

    def keep(self, gpa: Gpa, hot_list: HotList) -> None:
        """Keep a list with the one request for code of this run that has to wait, and may then be gone."""
        self._later.pop(gpa, None)
        self._later[gpa] = hot_list
        if len(self._later) > _MOST_LATER:
            del self._later[next(iter(self._later))]

    def is_in_work(self, gpa: Gpa) -> None:
        """Forget a request that was kept, because the compiler has got it."""
        self._later.pop(gpa, None)

    def submit(self, idle: bool) -> bool:
        """Make the next request of an earlier run for which no region is on disk. Return False if there is none.

        If the compiler has nothing else to do (``idle``), it may also be one that this run does for the next.
        """
        if idle and self._later and not self._lists:
            self._lists.append(self._later.pop(next(reversed(self._later))))
        while self._lists:
            requests = self._lists[0].requests
            while requests:
                request = requests.pop(0)
                if not self._regions.has(request.gpa, request.named, request.context):
                    self._submit(request)
                    return True
            if self.pending:  # a list is needed as long as its requests are
                return False
            self._drop_list()
        return False

    def _submit(self, request: CompileRequest) -> None:
        if self._client is None:
            self._client = self._connect(self._lists[0])
        self._client.submit(request)

    def poll(self) -> list[Answer]:
        """Return the new answers to requests of earlier runs, without waiting."""
        return [] if self._client is None else self._client.poll()

    def _drop_list(self) -> None:
        self._lists.popleft()
        if self._client is not None:
            self._client.close()
            self._client = None

    def _drop_lists(self) -> None:
        while self._lists:
            self._drop_list()
        self._others.clear()
        self._later.clear()

    # -- the end of the run ----------------------------------------------------------------------------

    def write_down(self, unanswered: bool) -> None:
        """Write down what is left for the next run, if the program's code has been warm.

        ``unanswered``: requests that the compiler has are left too, because it is about to end without an answer.
        """
        if not self._identity or self._owner != os.getpid():
            return
        parts = []
        own = self._own(unanswered)
        if own is not None:
            parts.append(own.pack())
            for request in own.requests:
                self.is_in_work(request.gpa)
        if unanswered and self._client is not None:
            self._lists[0].requests += self._client.unanswered
        others = (*self._lists, *self._others, *self._later.values())
        parts += [hot_list.pack() for hot_list in others if hot_list.requests]
        if parts or self._was_left:
            self._was_left = self._store.save(self._identity, parts)

    def close(self) -> None:
        """Give back what is used of the compiler."""
        self._drop_lists()
        self._identity = None


def load_hot_lists(store: HotListStore, program: bytes) -> list[HotList]:
    """Return what earlier runs of a program left, the latest first. What is damaged or makes no sense is not there."""
    parts = store.load(program)
    if not parts:
        return []
    from dbt.engine.hot_list import HotList  # which a program without a list does not need
    from dbt.engine.messages import WrongMessage

    found = []
    for part in parts:
        try:
            found.append(HotList.unpack(part))
        except WrongMessage:
            continue
    return found


_WORK: weakref.WeakSet[UnfinishedWork] = weakref.WeakSet()


def write_down_unfinished_work() -> None:
    """Write down what the machines of this process have not had compiled, because it ends now."""
    for work in list(_WORK):
        work.write_down(unanswered=False)


atexit.register(write_down_unfinished_work)
