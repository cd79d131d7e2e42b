"""What the region tier knows of the guest's code from having seen it run.

All of it is in memory that a forked process shares, so the worker sees what the guest does meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from dbt.abi.addresses import Gpa
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import (
    CHANGES,
    CODE_PAGE_STRIDE,
    COVERED,
    OP_COVERED,
    OP_HANDLER,
    OP_SIZE,
    TARGET_ENTRIES,
)
from dbt.memory.ram import PAGE_SHIFT, PAGE_SIZE, Ram


def op_offset(gpa: int) -> int:
    """Offset in the code pages of the op of a word."""
    return (gpa >> PAGE_SHIFT) * CODE_PAGE_STRIDE + (gpa & 0xFFF) // 4 * OP_SIZE


def op_address(offset: int) -> int:
    """The GPA of the word whose op is at an offset in the code pages."""
    return offset // CODE_PAGE_STRIDE << PAGE_SHIFT | offset % CODE_PAGE_STRIDE // OP_SIZE * 4


class ExecutionProfile:
    """Implements :class:`dbt.frontend.forming.Guest` over RAM, the code pages and the branch targets."""

    def __init__(self, ram: Ram, code_pages: HostRange, targets: HostRange, image: range, not_decoded: int) -> None:
        """``image``: the addresses of the handlers' code; ``not_decoded``: that of ops that have not been executed."""
        self._image = image
        self._words = ram.bytes.cast("I")
        self._ram = ram
        self._base = code_pages.address
        self._ops = code_pages.view()
        self._handlers = self._ops.cast("Q")
        self._targets = targets.view().cast("Q")[:TARGET_ENTRIES]
        self._not_decoded = not_decoded
        self._known: dict[int, list[int]] = {}
        self._pages: Mapping[int, int] | None = None

    def refresh(self) -> None:
        """Look at the branch targets anew."""
        known = defaultdict(list)
        for entry in self._targets.tolist():
            if entry:
                known[entry & 0xFFFFFFFF].append(entry >> 32)
        self._known = known

    def set_page_map(self, pages: Mapping[int, int] | None) -> None:
        """Where the guest's addresses are: physical pages by virtual ones, or None where these are the same."""
        self._pages = pages

    def place(self, gva: int) -> int | None:
        """The GPA of an address, if it is in RAM and known."""
        if self._pages is None:
            return gva if Gpa(gva) in self._ram else None
        page = self._pages.get(gva >> PAGE_SHIFT)
        return None if page is None else page << PAGE_SHIFT | gva & PAGE_SIZE - 1

    def executed(self, gva: int) -> int | None:
        gpa = self.place(gva)
        if gpa is None or self._handlers[(op_offset(gpa) + OP_HANDLER) // 8] in (0, self._not_decoded):
            return None
        return self._words[gpa >> 2]

    def constant(self, gva: int) -> int | None:
        gpa = self.place(gva)
        if gva & 3 or gpa is None or self._ops[op_offset(gpa) + OP_COVERED] & CHANGES:
            return None
        return self._words[gpa >> 2]

    def entered(self, gva: int) -> bool:
        gpa = self.place(gva)
        if gpa is None:
            return False
        handler = self._handlers[(op_offset(gpa) + OP_HANDLER) // 8]
        return bool(handler) and handler not in self._image

    def covered(self, gva: int) -> bool:
        gpa = self.place(gva)
        return gpa is not None and bool(self._ops[op_offset(gpa) + OP_COVERED] & COVERED)

    def targets(self, gva: int) -> list[int]:
        gpa = self.place(gva)
        return [] if gpa is None else self._known.get((self._base + op_offset(gpa)) & 0xFFFFFFFF, [])
