"""The turns of a host that are being executed: by the thread that decides, or each by a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from dbt.hypervisor.carrier import Outcome
from dbt.hypervisor.credit import Turn

#: Executes the guest of a turn.
Execute = Callable[[Turn], Outcome]


class Turns:
    """Executes turns on ``cores`` cores.

    What is over stays in the list that :meth:`take` and :meth:`end` return, until the caller removes it: so nothing is
    lost if Ctrl-C comes meanwhile.
    """

    def __init__(self, cores: int, execute: Execute) -> None:
        self._cores, self._execute = cores, execute
        self._pool: ThreadPoolExecutor | None = None
        self._landed: SimpleQueue[tuple[Turn, Outcome]] = SimpleQueue()
        self._over: list[tuple[Turn, Outcome]] = []

    def begin(self) -> None:
        """Hear that a run of the host begins."""
        if self._cores > 1:
            self._pool = ThreadPoolExecutor(self._cores, "dbt-core")

    def end(self) -> list[tuple[Turn, Outcome]]:
        """Wait for all turns that are being executed, and return those that are over.

        A turn may be missing: if the run has been broken off just before it was launched, or just after it was over.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        while True:
            try:
                self._over.append(self._landed.get_nowait())
            except Empty:
                return self._in_order()

    def launch(self, turn: Turn) -> None:
        """Begin a turn. If there is one core, it is over then."""
        if self._pool is None:
            self._run(turn)
        else:
            self._pool.submit(self._run, turn)

    def _run(self, turn: Turn) -> None:
        """Execute a turn. Whatever is raised is its outcome: nobody waits for one that has none."""
        try:
            outcome = self._execute(turn)
        except Exception as error:
            outcome = Outcome.failed(f"{type(error).__name__}: {error}", 0)
        except BaseException as error:  # the caller's, as Ctrl-C is
            outcome = Outcome.failed("", 0)._replace(error=error)
        self._landed.put((turn, outcome))

    def take(self, count: int, everything: bool) -> list[tuple[Turn, Outcome]]:
        """Return the turns that are over, of the ``count`` that were launched and not removed: one at least, or
        ``everything``. They are in the order in which they ended by the clocks.
        """
        over = self._over
        while len(over) < count and (everything or not over):
            over.append(self._landed.get())
        return self._in_order()

    def _in_order(self) -> list[tuple[Turn, Outcome]]:
        self._over.sort(key=lambda one: (one[0].start + one[1].used, one[0].core))
        return self._over
