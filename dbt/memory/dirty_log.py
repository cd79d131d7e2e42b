"""The dirty log: the pages of RAM that were written since the log was empty, and what they held before.

The log needs no feature of the host's kernel. A page is entered before the first store to it, whoever makes the store:
native code in its slow path (:mod:`dbt.backend.dirty_log`), Python in :class:`dbt.memory.guest_memory.GuestMemory`. The
page's flag :data:`dbt.abi.layout.PAGE_LOGGED` then says that further stores need no notice. The shadow page tables have
an entry for stores only where that flag is set, so all further stores run at full speed.

Logging is never off. :mod:`dbt.memory.epochs` empties the log from time to time, and says who wants to know what.
"""

from __future__ import annotations

from array import array
from typing import Protocol

from dbt.abi.addresses import Hva
from dbt.abi.hostmemory import LARGE_PAGE, HostRange
from dbt.abi.layout import (
    DIRTY_CONTENT,
    DIRTY_COUNT,
    DIRTY_PAGE_SIZE,
    DIRTY_PAGES,
    PAGE_LOGGED,
    PAGE_REFUSES,
    PAGE_SHIFT,
    PAGE_SIZE,
    PAGE_WRITABLE,
)

_COUNT, _CONTENT = DIRTY_COUNT // 8, DIRTY_CONTENT // 8
_FIRST = DIRTY_PAGES // DIRTY_PAGE_SIZE
_IS_LOGGED = bytes(flags | PAGE_LOGGED for flags in range(256))
_IS_NOT_LOGGED = bytes(flags & ~PAGE_LOGGED for flags in range(256))
#: With more pages than this, their flags are changed together with those of the pages between them.
_MANY = 256
#: The host's memory for so many contents of pages is kept when the log is emptied.
_KEPT_CONTENTS = 1 << 10
#: From so many pages on, contents are handed over without being copied: half of a large page of the host.
_HANDED_OVER = 1 << 8
#: Room for pages that are entered twice, because an exception came after a page's number and before its flag.
_SPARE = 1 << 10


class Executor(Protocol):
    """What executes the guest's code, and may store to logged pages without a notice. It is not executing."""

    def begin_epoch(self) -> None:
        """Give notice of the next store to each page again."""

    def forget_stores(self, page: int) -> None:
        """Look at the flags of a page of RAM, by its number, at the next store to it."""

    def roll_back(self, recent: bool) -> None:
        """Do so, and forget what was derived from the content of RAM, but for decoded code. RAM becomes what it was.

        With ``recent``, it becomes what it was when :meth:`begin_epoch` was called last.
        """

    def undo_stores(self) -> bool:
        """Give the pages in the log the contents that are kept for them, and empty it. Return False if it cannot."""


class DirtyLog:
    """The dirty log of one RAM of ``size`` bytes. ``data`` and ``flags`` are the views of :class:`dbt.memory.ram.Ram`.

    ``address`` is the HVA of the log, in the form that native code uses too (:data:`dbt.abi.layout.DIRTY_COUNT`).
    A page has a number: that of GPA 0 is 0.
    """

    def __init__(self, size: int, data: memoryview[int], flags: memoryview[int]) -> None:
        self._data, self._flags = data, flags
        self._room = (size >> PAGE_SHIFT) + _SPARE
        self._memory = HostRange(DIRTY_PAGES + DIRTY_PAGE_SIZE * self._room)
        self.address: Hva = self._memory.address
        whole = self._memory.view()
        self._whole, self._words = whole, whole[:DIRTY_PAGES].cast("Q")
        self._numbers = whole.cast("I")
        self._kept: HostRange | None = None
        #: What the pages held, in the order of :attr:`pages`, as long as :attr:`keeps_contents`.
        self.contents = memoryview(b"")
        #: How often the log has been emptied.
        self.emptied = 0
        #: The pages to which the guest's stores abort, though they are no read-only RAM.
        self.refusing: set[int] = set()
        self._executor: Executor | None = None
        self._closed = False

    def connect(self, executor: Executor) -> None:
        """Attach what executes the guest's code."""
        self._executor = executor

    def disconnect(self) -> None:
        """Nobody executes the guest's code any more."""
        self._executor = None

    def refuse_stores(self, page: int) -> None:
        """Let the guest's stores to a page abort. Precondition: it is not read-only RAM."""
        self.refusing.add(page)
        self._flags[page] = self._flags[page] & ~PAGE_WRITABLE | PAGE_REFUSES
        if self._executor is not None:
            self._executor.forget_stores(page)

    def allow_stores(self, page: int) -> None:
        """Let the guest store to a page again, if its stores there abort."""
        if page in self.refusing:
            self.refusing.remove(page)
            self._flags[page] = self._flags[page] & ~PAGE_REFUSES | PAGE_WRITABLE

    # -- what is written -----------------------------------------------------------------------

    def note(self, first: int, last: int) -> None:
        """Enter the pages from number ``first`` to ``last``, which Python is about to write, if they are not there."""
        flags = self._flags[first : last + 1].tobytes()
        new = [page for page, held in enumerate(flags, first) if not held & PAGE_LOGGED]
        if not new:
            return
        count = self._words[_COUNT]
        if self.keeps_contents:
            for at, page in enumerate(new, count):
                self.contents[at << PAGE_SHIFT : at + 1 << PAGE_SHIFT] = self.page(page)
        self._numbers[_FIRST + count : _FIRST + count + len(new)] = array("I", new)
        self._words[_COUNT] = count + len(new)
        self._flags[first : last + 1] = flags.translate(_IS_LOGGED)

    def page(self, page: int) -> memoryview[int]:
        """Return a view of a page of RAM, to read and to write."""
        return self._data[page << PAGE_SHIFT : page + 1 << PAGE_SHIFT]

    # -- what has been written -----------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return not self._words[_COUNT]

    @property
    def count(self) -> int:
        """How many pages are in the log; a few may be there twice."""
        return self._words[_COUNT]

    @property
    def pages(self) -> list[int]:
        """The numbers of the pages in the log, in the order of their first stores."""
        return self._numbers[_FIRST : _FIRST + self._words[_COUNT]].tolist()

    @property
    def keeps_contents(self) -> bool:
        """Whether the content of a page is kept when the page is entered."""
        return self._words[_CONTENT] != 0

    def keep_contents(self, keep: bool) -> None:
        """Say whether contents are kept from now on. Precondition for True: the log is empty, or they are kept."""
        if self._closed:
            return
        if keep and self._kept is None:
            self._use_room()
        self._words[_CONTENT] = self._kept.address if keep and self._kept is not None else 0

    def take_contents(self) -> bytes | memoryview[int]:
        """Return the contents that are kept, or nothing if none are. The log is emptied next.

        Raise OSError if the host has no room for those that come then. Nothing has changed in that case.
        """
        size = self._words[_COUNT] << PAGE_SHIFT
        if not self.keeps_contents or self._kept is None:
            return b""
        taken, held = self._kept, self.contents[:size]
        if size < _HANDED_OVER << PAGE_SHIFT:
            return bytes(held)
        self._use_room()
        self._words[_CONTENT] = self._kept.address
        taken.shrink(size)
        return held

    def _use_room(self) -> None:
        """Keep contents in new memory. Raise OSError if the host has none."""
        self._kept = HostRange(self._room << PAGE_SHIFT, LARGE_PAGE)
        self._kept.use_large_pages()
        self.contents = self._kept.view()

    # -- emptying it ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Empty the log, so that each page is entered again before the next store to it."""
        if self._executor is not None:
            self._executor.begin_epoch()
        self._empty()

    def undo(self) -> None:
        """Give the pages in the log the contents that were kept, and empty it."""
        count = self._words[_COUNT]
        if self._executor is not None:
            self._executor.roll_back(recent=True)
            if self._executor.undo_stores():
                self._shrink(count)
                return
        pages = self.pages
        for at in reversed(range(count)):  # of a page that is there twice, the older content counts
            self.page(pages[at])[:] = self.contents[at << PAGE_SHIFT : at + 1 << PAGE_SHIFT]
        self._empty()

    def begin_at_other_content(self) -> None:
        """Do as :meth:`begin`, when RAM has been given the content of an earlier time than :meth:`undo` gives it."""
        if self._executor is not None:
            self._executor.roll_back(recent=False)
        self._empty()

    def _empty(self) -> None:
        """Take all pages out of the log. Precondition: what executes the guest has forgotten that they are there."""
        pages, flags = self.pages, self._flags
        self.emptied += 1
        if len(pages) <= _MANY:
            for page in pages:
                flags[page] &= ~PAGE_LOGGED
        else:
            first, end = min(pages), max(pages) + 1
            flags[first:end] = flags[first:end].tobytes().translate(_IS_NOT_LOGGED)
        self._words[_COUNT] = 0
        self._shrink(len(pages))

    def _shrink(self, count: int) -> None:
        """Give memory back to the host, if the log has had so many pages that much of it was used."""
        if self._kept is not None and count > _KEPT_CONTENTS:
            self._kept.discard(_KEPT_CONTENTS << PAGE_SHIFT, (count - _KEPT_CONTENTS) * PAGE_SIZE)

    def close(self) -> None:
        """Release the memory now."""
        self._closed = True
        for view in (self._words, self._numbers):
            view.release()
        self._memory.close_views(self._whole)
        if self._kept is not None:
            self._kept.close_views(self.contents)
