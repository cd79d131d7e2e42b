"""Sending the pages of a guest that runs: all of them once, and then in rounds those that it has changed meanwhile.

A round begins with a new epoch (:mod:`dbt.memory.epochs`). What is stored after that is sent in the next round, whether
this one has sent the page before or after. So it does not matter that the pages of a round are not of one moment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.messages import BATCH_PAGES, Kind, Pages
from dbt.hypervisor.migration.page_tree import PageTree
from dbt.hypervisor.migration.settings import Progress
from dbt.memory.ram import RamFile
from dbt.snapshot.format import Runs

if TYPE_CHECKING:
    from dbt.hypervisor.migration.leaving import Leaving
    from dbt.hypervisor.migration.subject import Subject

_ZERO_PAGE = bytes(PAGE_SIZE)


class PageSender:
    """Sends pages, and keeps the tree of what it has sent.

    With ``file``, the content of pages is put there, which the other side has open, too, and is not sent.
    ``bandwidth`` is in bytes a second.
    """

    def __init__(self, channel: Channel, file: RamFile | None, progress: Progress, bandwidth: int | None) -> None:
        self._channel, self._file, self._progress = channel, file, progress
        self._bandwidth = bandwidth
        self._sent: set[int] = set()  # the pages that the other side has with something other than zeros
        self.tree = PageTree()
        #: What was sent and is not hashed yet: pages, their content, and the pages that are zero now.
        self._unhashed: list[tuple[list[int], list[memoryview[int]], list[int]]] = []

    def begin(self, subject: Subject) -> list[int]:
        """Begin the first epoch. Return the pages that may have something other than zeros."""
        with subject.held() as machine:
            return machine.begin_epoch()

    def send_round(self, subject: Subject, pages: Sequence[int]) -> None:
        """Send these pages, which the guest may be changing again."""
        began, limit = time.monotonic(), self._bandwidth
        for at in range(0, len(pages), BATCH_PAGES):
            batch = pages[at : at + BATCH_PAGES]
            with subject.held() as machine:
                content = machine.content(batch)
            self._send(batch, content)
            self._hash()
            if limit is not None:
                ahead = (at + len(batch) << PAGE_SHIFT) / limit - (time.monotonic() - began)
                if ahead > 0:
                    time.sleep(ahead)

    def stop_sharing(self) -> None:
        """Let nobody write to the file any more. What is sent from now on comes with its content. The kernel looks at
        all pages of the file for that, so it is done while the guest runs. Raise OSError.
        """
        if self._file is not None:
            self._file.stop_writing()
            self._file = None

    def send_rest(self, machine: Leaving, pages: Sequence[int], content: bytes) -> None:
        """Send these pages of a guest that is stopped. ``content`` is that of those of the first message.

        The last of them are not hashed before :meth:`root`, so that the other side need not wait for what follows.
        """
        self._send(pages[:BATCH_PAGES], content)
        for at in range(BATCH_PAGES, len(pages), BATCH_PAGES):
            batch = pages[at : at + BATCH_PAGES]
            self._hash()
            self._send(batch, machine.content(batch))

    def root(self, values: bytes) -> bytes:
        """Return the root of the tree of all that was sent, and of the other values."""
        self._hash()
        return self.tree.root(values)

    def _send(self, batch: Sequence[int], content: bytes) -> None:
        """Send the pages of a batch that are not zero, and say which of the others were something else before."""
        found, cleared, parts = [], [], []
        view = memoryview(content)
        for at, page in enumerate(batch):
            data = view[at << PAGE_SHIFT : at + 1 << PAGE_SHIFT]
            if data != _ZERO_PAGE:
                found.append(page)
                parts.append(data)
            elif page in self._sent:
                cleared.append(page)
        self._sent.update(found)
        self._sent.difference_update(cleared)
        if not found and not cleared:
            return
        message = Pages(Runs.of(found), Runs.of(cleared), memoryview(b""))
        whole = content if len(found) == len(batch) else b"".join(parts)
        if self._file is None:
            self._channel.send_raw(Kind.PAGES, (message.head(), memoryview(whole)))
        else:
            put(self._file, message.runs, memoryview(whole))
            clear(self._file, message.cleared)
            self._channel.send_raw(Kind.PAGES, (message.head(),))
        self._unhashed.append((found, parts, cleared))
        self._progress.pages += len(found)
        self._progress.sent_bytes = self._channel.sent + (0 if self._file is None else len(whole))

    def _hash(self) -> None:
        """Hash what was sent, while the other side does, too."""
        for found, parts, cleared in self._unhashed:
            for page, data in zip(found, parts, strict=True):
                self.tree.update(page, data)
            for page in cleared:
                self.tree.clear(page, 1)
        self._unhashed.clear()


def put(file: RamFile, runs: Runs, content: memoryview[int]) -> None:
    """Write the content of runs of pages."""
    at = 0
    for page, count in runs.runs():
        size = count << PAGE_SHIFT
        file.put(Gpa(page << PAGE_SHIFT), content[at : at + size])
        at += size


def clear(file: RamFile, runs: Runs) -> None:
    """Make runs of pages zero."""
    for page, count in runs.runs():
        file.put(Gpa(page << PAGE_SHIFT), bytes(count << PAGE_SHIFT))
