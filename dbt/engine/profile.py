"""What a machine tells the compiler about its code: the code pages that have changed since it last did.

Native code and :class:`dbt.engine.code_pages.CodePages` mark the pages that change. So the cost depends on what has
changed, and not on how much code there is. It is some microseconds for each page.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from itertools import product

from dbt.abi.addresses import Gpa, Hva
from dbt.abi.cpu import CpuState
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import (
    OPS_PER_PAGE,
    PAGE_CHANGED,
    PAGE_HAS_CODE,
    PAGE_LOGGED,
    PAGE_RAM,
    PAGE_REFUSES,
    PAGE_SHIFT,
    PAGE_SIZE,
    PAGE_WRITABLE,
)
from dbt.engine.code_pages import CodePages
from dbt.engine.messages import PageNotice, TargetNotice
from dbt.engine.native import NativeCode
from dbt.memory.ram import Ram

#: All values of a page's flags that say that it has changed.
_CHANGED = tuple(
    PAGE_RAM | writable | logged | PAGE_HAS_CODE | PAGE_CHANGED
    for writable, logged in product((PAGE_WRITABLE, PAGE_REFUSES, 0), (PAGE_LOGGED, 0))
)
_NOTHING_EXECUTED = bytes(OPS_PER_PAGE)


class ExecutionProfile:
    """Reads the code pages and the branch targets of one machine for the compiler."""

    def __init__(self, cpu: CpuState, ram: Ram, code_pages: CodePages, targets: HostRange, native: NativeCode) -> None:
        self._cpu, self._ram, self._code_pages = cpu, ram, code_pages
        self._targets = targets.view()
        self._told_targets = b""
        self._neighbours: set[int] = set()  # pages without code that the compiler knows the words of
        self._flags = ctypes.create_string_buffer(OPS_PER_PAGE)
        self._code_flags = native.function("code_flags", ctypes.c_uint32, ctypes.c_void_p)

    @property
    def code_pages_address(self) -> Hva:
        """The HVA of the code pages, to which the ops in branch targets refer."""
        return self._code_pages.address

    def changes(self) -> Iterator[PageNotice | TargetNotice]:
        """Return what has changed since the last call, and count it as told."""
        for page in self._changed_pages():
            self._neighbours.discard(page)
            self._code_flags(self._cpu.address, page, self._flags)
            yield PageNotice(page, self._words(page), self._flags.raw)
            # Code reads constants from the page beside it, whether anything is executed there or not.
            for neighbour in (page - 1, page + 1):
                if neighbour not in self._neighbours and self._is_without_code(neighbour):
                    self._neighbours.add(neighbour)
                    yield PageNotice(neighbour, self._words(neighbour), _NOTHING_EXECUTED)
        targets = bytes(self._targets)
        if targets != self._told_targets:
            self._told_targets = targets
            yield TargetNotice(targets)

    def snapshot(self, most: int) -> list[PageNotice | TargetNotice]:
        """Return all that :meth:`changes` ever told and would tell now, and count nothing of it as told. It is nothing
        if there are more than ``most`` pages with code.
        """
        pages = list(self._ram.pages_with_code())
        if len(pages) > most:
            return []
        notices: list[PageNotice | TargetNotice] = []
        for page in pages:
            changed = self._ram.page_flags[page] & PAGE_CHANGED
            self._code_flags(self._cpu.address, page, self._flags)
            self._ram.page_flags[page] |= changed
            notices.append(PageNotice(page, self._words(page), self._flags.raw))
        for page in {page + step for page in pages for step in (-1, 1)}:
            if self._is_without_code(page):
                notices.append(PageNotice(page, self._words(page), _NOTHING_EXECUTED))
        return [*notices, TargetNotice(bytes(self._targets))]

    def _changed_pages(self) -> Iterator[int]:
        for region in self._ram.layout.regions:
            first = region.base >> PAGE_SHIFT
            flags = self._ram.page_flags[first : region.end >> PAGE_SHIFT].tobytes()
            for value in _CHANGED:
                at = flags.find(value)
                while at >= 0:
                    yield first + at
                    at = flags.find(value, at + 1)

    def _is_without_code(self, page: int) -> bool:
        return page >= 0 and self._ram.page_flags[page] & (PAGE_RAM | PAGE_HAS_CODE) == PAGE_RAM

    def _words(self, page: int) -> bytes:
        return bytes(self._ram.bytes[page << PAGE_SHIFT : (page << PAGE_SHIFT) + PAGE_SIZE])

    def correct(self, gpa: Gpa) -> None:
        """Tell the compiler of a word's page again, because what it knows of the word has turned out to be wrong."""
        self._neighbours.discard(gpa >> PAGE_SHIFT)
        if self._code_pages.has_code(gpa):
            self._code_pages.mark_changed(gpa)
        else:
            # Its neighbours are told with a page of code.
            for beside in (Gpa(gpa - PAGE_SIZE), Gpa(gpa + PAGE_SIZE)):
                if beside >= 0 and self._code_pages.has_code(beside):
                    self._code_pages.mark_changed(beside)

    def forget_told(self) -> None:
        """Count everything as not told, because the compiler is a new process."""
        self._told_targets = b""
        self._neighbours.clear()
        for page in self._ram.pages_with_code():
            self._code_pages.mark_changed(Gpa(page << PAGE_SHIFT))
