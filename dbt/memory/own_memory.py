"""How much memory of the host a RAM has for itself."""

from __future__ import annotations

from dbt.abi.layout import PAGE_SIZE
from dbt.memory.contents import own_parts, touched
from dbt.memory.ram import Ram


class OwnMemory:
    """The memory that ``ram`` takes of the host: what it does not share with others that are mapped from its file."""

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self._known: int | None = None  # what it was when it was looked at last
        self._mark = 0, 0  # how often the dirty log had been emptied then, and the pages in it

    def size(self) -> int:
        """Return how many bytes it is now. It takes a look at the host's page map: some 10 us for each MiB of RAM."""
        ram = self._ram
        log = ram.dirty_log
        self._mark = log.emptied, log.count
        self._known = sum(size for _, size in (own_parts(ram) if ram.home is None else touched(ram)))
        return self._known

    def exceeds(self, limit: int) -> bool:
        """Return True if it is more than ``limit`` bytes. As long as pages are few that were written since the last
        look, no other look is needed.
        """
        log, (emptied, count) = self._ram.dirty_log, self._mark
        if self._known is None or log.emptied != emptied or self._known + (log.count - count) * PAGE_SIZE > limit:
            return self.size() > limit
        return False
