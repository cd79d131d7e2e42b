"""Epochs: for each consumer, which pages of RAM were written since a point in time, and what they held then.

An :class:`Epoch` is the time from its beginning until now. A checkpoint, an incremental save or a migration has one,
and any number of them may be open at once. The beginnings of epochs divide the time into *spans*. The dirty log
(:mod:`dbt.memory.dirty_log`) has the pages of the present span; those of earlier spans are kept here as long as an
epoch needs them. So the dirty pages of an epoch are those of all spans since its beginning.

If an epoch wants it, the log keeps what a page held before the first store to it in a span. The oldest content since
the beginning of an epoch is what the page held then. With these, :meth:`Epochs.roll_back` undoes all stores since. No
image of the whole RAM is needed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_HAS_CODE, PAGE_SHIFT, PAGE_SIZE
from dbt.memory.dirty_log import DirtyLog

#: Differences of two pages are looked for word by word in pieces of so many bytes, a power of two.
_PIECE = 64

#: The content of a page, or None where no epoch has asked for it.
Content = bytes | memoryview | None
#: A function that is called before the bytes of RAM at a GPA change, with their number.
BeforeWrite = Callable[[Gpa, int], None]


class EpochClosed(RuntimeError):
    """Raised for the use of an epoch that has been closed."""


class _Span(NamedTuple):
    """A span that has ended: its number, its pages in the order of their first stores, and what each held before.

    ``contents`` has 4096 bytes for each page, or is empty if no epoch has asked for it.
    """

    number: int
    pages: list[int]
    contents: bytes | memoryview


class Epoch:
    """The time since :meth:`Epochs.begin` or :meth:`renew`. An epoch that nobody refers to is forgotten."""

    def __init__(self, epochs: Epochs, start: int, keeps_contents: bool) -> None:
        """``start`` is the number of the span with which the epoch begins."""
        self._epochs = epochs
        self.keeps_contents = keeps_contents
        self.is_closed = False
        self.restart(start, {})

    def restart(self, start: int, elsewhere: dict[int, Content]) -> None:
        """Let the epoch begin with another span. For :class:`Epochs`.

        ``elsewhere`` has the pages in which RAM differs at that time from what the epoch counts from, because RAM has
        been rolled back to another point, and what they held.
        """
        self.start, self.elsewhere = start, elsewhere

    def dirty_pages(self) -> list[int]:
        """Return the numbers of the pages that may have changed since the epoch began, in order.

        Every page that has changed is among them. A page that was stored to is, too, even if it holds what it held.
        """
        return self._epochs.dirty_pages(self)

    def renew(self) -> None:
        """Let the epoch begin now."""
        self._epochs.renew(self)

    def close(self) -> None:
        """Give up the epoch and what is kept for it. A second call does nothing."""
        if not self.is_closed:
            self.is_closed = True
            self._epochs.settle()


class Epochs:
    """The epochs of one RAM, with its dirty log and its page flags. The guest is not executing when this is used."""

    def __init__(self, log: DirtyLog, flags: memoryview[int]) -> None:
        self._log, self._flags = log, flags
        self._number = 0  # of the present span
        self._spans: list[_Span] = []  # those before it that are needed, in their order
        self._held: list[weakref.ref[Epoch]] = []

    @property
    def kept_spans(self) -> int:
        """The number of earlier spans that are kept."""
        return len(self._spans)

    def begin(self, keeps_contents: bool = False) -> Epoch:
        """Return an epoch that begins now. With ``keeps_contents``, RAM can be rolled back to its beginning."""
        self._begin_span()
        epoch = Epoch(self, self._number, keeps_contents)
        self._held.append(weakref.ref(epoch))
        self.settle()
        return epoch

    def renew(self, epoch: Epoch) -> None:
        """See :meth:`Epoch.renew`."""
        _check_open(epoch)
        self._begin_span()
        epoch.restart(self._number, {})
        self.settle()

    def dirty_pages(self, epoch: Epoch) -> list[int]:
        """See :meth:`Epoch.dirty_pages`."""
        _check_open(epoch)
        spans = (span.pages for span in self._spans if span.number >= epoch.start)
        return sorted({*self._log.pages, *epoch.elsewhere}.union(*spans))

    def settle(self) -> None:
        """Give up what no epoch needs any more, and have contents kept as long as one needs them."""
        epochs = self._open_epochs()
        self._held = [weakref.ref(epoch) for epoch in epochs]
        oldest = min((epoch.start for epoch in epochs), default=self._number)
        if self._spans and self._spans[0].number < oldest:
            self._spans = [span for span in self._spans if span.number >= oldest]
        self._log.keep_contents(any(epoch.keeps_contents for epoch in epochs))

    @property
    def kept_bytes(self) -> int:
        """The bytes of contents that are kept, nearly."""
        kept = sum(len(span.contents) for span in self._spans)
        return kept + (len(self._log.pages) << PAGE_SHIFT if self._log.keeps_contents else 0)

    def merge(self) -> None:
        """Merge the spans that no open epoch tells apart, so that each page is kept once of them."""
        starts = [epoch.start for epoch in self._open_epochs()]
        merged: list[_Span] = []
        for span in self._spans:
            if merged and not any(merged[-1].number < start <= span.number for start in starts):
                merged[-1] = _merged(merged[-1], span)
            else:
                merged.append(span)
        self._spans = merged

    def _open_epochs(self) -> list[Epoch]:
        return [epoch for held in self._held if (epoch := held()) is not None and not epoch.is_closed]

    def _begin_span(self) -> None:
        """Let a span begin, unless nothing was stored in the present one."""
        log = self._log
        if log.is_empty:
            return
        if epochs := self._open_epochs():
            pages, keeps = log.pages, any(epoch.keeps_contents for epoch in epochs)
            self._spans.append(_Span(self._number, pages, log.take_contents() if keeps else b""))
        log.begin()
        self._number += 1

    # -- rolling back --------------------------------------------------------------------------

    def roll_back(self, epoch: Epoch, before_write: BeforeWrite | None) -> int:
        """Give RAM the content that it had when ``epoch`` began, and let the epoch begin now.

        Return the number of pages that were written. ``before_write`` is called before words change that lie in a page
        with a code page. All other epochs remain: their dirty pages are those in which RAM may differ now.
        Raises ValueError if the epoch does not keep contents.
        """
        _check_open(epoch)
        if not epoch.keeps_contents:
            raise ValueError("this epoch keeps no contents to which RAM could be rolled back")
        is_recent = epoch.start == self._number and not epoch.elsewhere
        count = self._undo_present_span(before_write) if is_recent else self._undo(epoch, before_write)
        self._number += 1
        epoch.restart(self._number, {})
        if not is_recent:  # a recent epoch has needed no earlier span, and goes on to want contents
            self.settle()
        return count

    def _undo_present_span(self, before_write: BeforeWrite | None) -> int:
        """Undo what was stored in the present span. That is right for all epochs, because none began later."""
        pages, flags, contents = self._log.pages, self._flags, self._log.contents
        if before_write is not None:
            for at, held in enumerate(map(flags.__getitem__, pages)):
                if held >= PAGE_HAS_CODE:
                    self._prepare(pages[at], contents[at << PAGE_SHIFT : at + 1 << PAGE_SHIFT], before_write)
        self._log.undo()
        return len(pages)

    def _undo(self, epoch: Epoch, before_write: BeforeWrite | None) -> int:
        """Undo what was stored since an epoch began, wherever it began."""
        changes = self._changes(epoch)
        for other in self._open_epochs():
            # The spans since this epoch began are undone, so for older epochs they have never been.
            if other is not epoch and (epoch.elsewhere or other.start > epoch.start):
                self._set_apart(other, changes)
        for page, then in changes.items():
            assert then is not None, "it was kept since the epoch began"
            if before_write is not None and self._flags[page] >= PAGE_HAS_CODE:
                self._prepare(page, then, before_write)
            self._log.page(page)[:] = then
        self._spans = [span for span in self._spans if span.number < epoch.start]
        self._log.begin_at_other_content()
        return len(changes)

    def _changes(self, epoch: Epoch) -> dict[int, Content]:
        """Return the pages that may have changed since an epoch began, with what they held then: the oldest content."""
        found: dict[int, Content] = {}
        present = _Span(self._number, self._log.pages, b"")
        found.update(_pairs(present, self._log.contents if self._log.keeps_contents else b""))
        for span in reversed(self._spans):
            if span.number >= epoch.start:
                found.update(_pairs(span, span.contents))
        found.update(epoch.elsewhere)
        return found

    def _set_apart(self, other: Epoch, changes: Mapping[int, Content]) -> None:
        """Note for another epoch what will be different for it when ``changes`` have been undone."""
        own = self._changes(other)
        apart: dict[int, Content] = {}
        for page in own.keys() | changes.keys():
            then = own[page] if page in own else self._log.page(page)
            apart[page] = bytes(then) if other.keeps_contents and then is not None else None
        other.restart(self._number + 1, apart)

    def _prepare(self, page: int, then: bytes | memoryview, before_write: BeforeWrite) -> None:
        """Tell of the words that change in a page with a code page, when it gets an earlier content."""
        for offset, size in _differences(self._log.page(page).tobytes(), bytes(then)):
            before_write(Gpa((page << PAGE_SHIFT) + offset), size)


def _check_open(epoch: Epoch) -> None:
    if epoch.is_closed:
        raise EpochClosed("this epoch has been closed: begin another one")


def _pairs(span: _Span, contents: bytes | memoryview) -> Iterator[tuple[int, Content]]:
    """Yield the pages of a span with what they held, the last one first: of a page that is there twice, the older
    content counts.
    """
    for at in reversed(range(len(span.pages))):
        yield span.pages[at], contents[at << PAGE_SHIFT : at + 1 << PAGE_SHIFT] if contents else None


def _merged(first: _Span, second: _Span) -> _Span:
    """Return two spans as one, which has the number of the first. Of a page in both, the older content counts."""
    known = set(first.pages)
    new = [(at, page) for at, page in enumerate(second.pages) if page not in known]
    contents = second.contents
    pages = first.pages + [page for _, page in new]
    if not first.contents or not contents:  # no epoch that was there before both wants contents
        return _Span(first.number, pages, b"")
    pieces = (contents[at << PAGE_SHIFT : at + 1 << PAGE_SHIFT] for at, _ in new)
    return _Span(first.number, pages, b"".join((first.contents, *pieces)))


def _differences(now: bytes, then: bytes) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each run of words in which two pages differ."""
    start = end = 0
    for offset in _differing_words(now, then):
        if offset != end:
            if start < end:
                yield start, end - start
            start = offset
        end = offset + 4
    if start < end:
        yield start, end - start


def _differing_words(now: bytes, then: bytes) -> Iterator[int]:
    """Yield the offset of each word in which two pages differ, in order. Halves that are equal are not looked into."""
    parts = [(0, PAGE_SIZE)]
    while parts:
        start, size = parts.pop()
        if now[start : start + size] == then[start : start + size]:
            continue
        if size <= _PIECE:
            for offset in range(start, start + size, 4):
                if now[offset : offset + 4] != then[offset : offset + 4]:
                    yield offset
        else:
            parts += [(start + size // 2, size // 2), (start, size // 2)]
