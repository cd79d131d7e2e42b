"""The guest's code in the compiler's process: copies of the code pages and branch targets of each machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.abi.layout import (
    CODE_PAGE_STRIDE,
    PAGE_SHIFT,
    PAGE_SIZE,
    WORD_BREAKPOINT,
    WORD_CHANGES,
    WORD_COVERED,
    WORD_ENTERED,
    WORD_EXECUTED,
)
from dbt.engine.code_pages import op_offset
from dbt.engine.messages import PageNotice, TargetNotice


class CodeMirror:
    """The copy for one machine; it implements :class:`dbt.frontend.forming.Guest`.

    ``code_pages`` is the HVA of the code pages in the guest's process.
    """

    def __init__(self, code_pages: Hva) -> None:
        self._code_pages = code_pages
        self._pages: dict[int, tuple[memoryview[int], bytes]] = {}  # words and flags by physical page
        self._entries = b""
        self._known: Mapping[int, list[int]] | None = None  # targets by the low half of an op's address
        self._page_map: Mapping[int, int] | None = None
        #: True if forming has met a breakpoint of a debugger since the page map was set.
        self.met_breakpoint = False

    def set_page(self, notice: PageNotice) -> None:
        """Store the present words and flags of a page."""
        self._pages[notice.page] = memoryview(notice.words).cast("I"), notice.flags

    def set_targets(self, notice: TargetNotice) -> None:
        """Store the present branch targets."""
        self._entries, self._known = notice.entries, None

    def set_page_map(self, pages: Mapping[int, int] | None) -> None:
        """Set the physical pages by virtual ones, or None if these are the same."""
        self._page_map = pages
        self.met_breakpoint = False

    def _find(self, gva: Gva) -> tuple[int, int] | None:
        """Return the word at an address and its flags, or None if the page is not known."""
        page = gva >> PAGE_SHIFT if self._page_map is None else self._page_map.get(gva >> PAGE_SHIFT)
        found = None if page is None else self._pages.get(page)
        if found is None:
            return None
        number = gva % PAGE_SIZE >> 2
        return found[0][number], found[1][number]

    def word(self, gva: Gva) -> int | None:
        """Return the word at an address, whether it was executed or not, or None if its page is not known."""
        found = self._find(gva)
        return None if found is None else found[0]

    def executed(self, gva: Gva) -> int | None:
        found = self._find(gva)
        if found is None:
            return None
        self.met_breakpoint |= bool(found[1] & WORD_BREAKPOINT)
        return found[0] if found[1] & WORD_EXECUTED else None

    def constant(self, gva: Gva) -> int | None:
        found = self._find(gva)
        return found[0] if found is not None and not gva & 3 and not found[1] & WORD_CHANGES else None

    def entered(self, gva: Gva) -> bool:
        found = self._find(gva)
        return found is not None and bool(found[1] & WORD_ENTERED)

    def covered(self, gva: Gva) -> bool:
        found = self._find(gva)
        return found is not None and bool(found[1] & WORD_COVERED)

    def targets(self, gva: Gva) -> list[Gva]:
        page = gva >> PAGE_SHIFT if self._page_map is None else self._page_map.get(gva >> PAGE_SHIFT)
        if page is None:
            return []
        op = self._code_pages + page * CODE_PAGE_STRIDE + op_offset(Gpa(gva % PAGE_SIZE))
        return [Gva(target) for target in self._known_targets().get(op & 0xFFFFFFFF, ())]

    def _known_targets(self) -> Mapping[int, list[int]]:
        if self._known is None:
            known = defaultdict(list)
            for entry in memoryview(self._entries).cast("Q").tolist() if self._entries else ():
                if entry:
                    known[entry & 0xFFFFFFFF].append(entry >> 32)
            self._known = dict(known)
        return self._known
