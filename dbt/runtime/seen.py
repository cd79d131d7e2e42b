"""What the region tier knows of the guest's code from having seen it run.

All of it is in memory that a forked process shares, so the worker sees what the guest does meanwhile.
"""

from __future__ import annotations

from collections import defaultdict

from dbt.backend.abi import CHANGES, CODE_PAGE_STRIDE, COVERED, OP_COVERED, OP_HANDLER, OP_SIZE, TARGET_ENTRIES
from dbt.mmu.ram import PAGE_SHIFT, Ram
from dbt.runtime.hostmemory import HostRange


def op_offset(gpa: int) -> int:
    """Offset in the code pages of the op of a word."""
    return (gpa >> PAGE_SHIFT) * CODE_PAGE_STRIDE + (gpa & 0xFFF) // 4 * OP_SIZE


class SeenCode:
    """Implements :class:`dbt.frontend.region.Guest` over RAM, the code pages and the branch targets."""

    def __init__(self, ram: Ram, code_pages: HostRange, targets: HostRange, image: range, not_decoded: int) -> None:
        """``image``: the addresses of the handlers' code; ``not_decoded``: that of ops that have not been executed."""
        self._image = image
        self._words = ram.bytes.cast("I")
        self._size = ram.size
        self._base = code_pages.address
        self._ops = code_pages.view()
        self._handlers = self._ops.cast("Q")
        self._targets = targets.view().cast("Q")[:TARGET_ENTRIES]
        self._not_decoded = not_decoded
        self._known: dict[int, list[int]] = {}

    def refresh(self) -> None:
        """Look at the branch targets anew."""
        known = defaultdict(list)
        for entry in self._targets.tolist():
            if entry:
                known[entry & 0xFFFFFFFF].append(entry >> 32)
        self._known = known

    def executed(self, gva: int) -> int | None:
        if gva >= self._size or self._handlers[(op_offset(gva) + OP_HANDLER) // 8] in (0, self._not_decoded):
            return None
        return self._words[gva >> 2]

    def constant(self, gva: int) -> int | None:
        if gva & 3 or gva >= self._size or self._ops[op_offset(gva) + OP_COVERED] & CHANGES:
            return None
        return self._words[gva >> 2]

    def entered(self, gva: int) -> bool:
        if gva >= self._size:
            return False
        handler = self._handlers[(op_offset(gva) + OP_HANDLER) // 8]
        return bool(handler) and handler not in self._image

    def covered(self, gva: int) -> bool:
        return gva < self._size and bool(self._ops[op_offset(gva) + OP_COVERED] & COVERED)

    def targets(self, gva: int) -> list[int]:
        return self._known.get((self._base + op_offset(gva)) & 0xFFFFFFFF, [])
