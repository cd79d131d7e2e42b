"""Giving up code pages that have become data.

Once code was executed from a page of RAM, each store to the page has to look whether it hits an op. A guest's
operating system uses pages again: what was a program's code becomes another one's heap, and then each store takes the
slow path. Native code lists pages that are stored to again and again (``note_store``). Between slices, the code pages
of these are given up, unless a region was made from them.

If code and data share a page, its code page is soon needed again, and decoding everything again costs more than some
hundreds of slow stores. So each time that a page is given up, or cannot be, twice as many stores are awaited.
"""

from __future__ import annotations

from collections.abc import Callable

from dbt.abi.cpu import NATIVE, CpuState
from dbt.engine.code_pages import CodePages

_COUNT, _PAGES = NATIVE["stale_count"].offset // 4, NATIVE["stale_pages"].offset // 4
#: The number of times that a page must be listed is doubled up to this.
MOST_LISTINGS = 1 << 10


class StalePages:
    """The pages that native code has listed. ``listener`` is told the number of each page whose code is given up."""

    def __init__(self, cpu: CpuState, code_pages: CodePages, listener: Callable[[int], None]) -> None:
        self._cpu, self._code_pages, self._listener = cpu, code_pages, listener
        self._awaited: dict[int, int] = {}  # by page: listings until it is given up
        self._listings: dict[int, int] = {}  # by page: listings since it was last tried

    def give_up(self) -> None:
        """Give up the pages that were listed often enough, and empty the list. The guest must not be executing."""
        words = self._cpu.native32
        pages = words[_PAGES : _PAGES + words[_COUNT]].tolist()
        words[_COUNT] = 0
        for page in pages:
            listings = self._listings.get(page, 0) + 1
            awaited = self._awaited.get(page, 1)
            if listings < awaited:
                self._listings[page] = listings
                continue
            self._listings[page] = 0
            self._awaited[page] = min(2 * awaited, MOST_LISTINGS)
            if self._code_pages.give_up(page):
                self._listener(page)

    def give_up_all(self) -> None:
        """Give up all pages that can be, and the memory of their code pages. The guest must not be executing."""
        if self._code_pages.breakpoints:
            return
        for page in list(self._code_pages.pages()):
            if self._code_pages.give_up(page):
                self._listener(page)
                self._code_pages.give_back(page)
