"""Code pages: the decoded ops of the guest's code, one for each word of a page that has been executed.

:mod:`dbt.abi.layout` describes an op. Native code makes code pages and decodes ops. This module is how Python reads and
changes them. Each change sets the page's flag PAGE_CHANGED, by which the compiler is told of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa, Hva
from dbt.abi.cpu import CpuState
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import (
    BREAKPOINT,
    CHANGES,
    CODE_PAGE_SIZE,
    CODE_PAGE_STRIDE,
    COVERED,
    OP_BODY,
    OP_CALLOUTS,
    OP_COVERED,
    OP_HANDLER,
    OP_HOTNESS,
    OP_ORIGINAL,
    OP_SIZE,
    OPS_PER_PAGE,
    PAGE_CHANGED,
    PAGE_HAS_CODE,
    PAGE_SHIFT,
    PAGE_SIZE,
    WAS_WARM,
)
from dbt.engine.native import NativeCode
from dbt.memory.ram import Ram

if TYPE_CHECKING:
    from dbt.engine.initial_ops import InitialOps

#: The marks of an op, without the one that it was warm.
_COOLED = bytes(marks & ~WAS_WARM for marks in range(256))


def op_offset(gpa: Gpa) -> int:
    """Return the offset in the code pages of the op of a word."""
    return (gpa >> PAGE_SHIFT) * CODE_PAGE_STRIDE + (gpa & 0xFFF) // 4 * OP_SIZE


def op_address(offset: int) -> Gpa:
    """Return the GPA of the word whose op is at an offset in the code pages."""
    return Gpa(offset // CODE_PAGE_STRIDE << PAGE_SHIFT | offset % CODE_PAGE_STRIDE // OP_SIZE * 4)


class CodePages:
    """The code pages of one machine. ``address`` is the HVA of the one of GPA 0.

    A GPA identifies the op of the word there. Its page must have a code page (:meth:`need`) unless stated otherwise.
    """

    def __init__(self, cpu: CpuState, ram: Ram, native: NativeCode) -> None:
        self._cpu, self._ram, self._native = cpu, ram, native
        self._range = _reserve(ram, native.initial_ops)
        self.address = self._range.address
        ops = self._range.view()
        self._marks, self._quarters = ops, ops.cast("H")
        self._halves, self._words = ops.cast("I"), ops.cast("Q")
        self._flags = ram.page_flags
        #: The words with a breakpoint of a debugger: see :mod:`dbt.engine.debug_points`.
        self.breakpoints: set[Gpa] = set()
        self._adopted: set[int] = set()  # pages whose code pages are mapped from warm code
        self._invalidate = native.function("invalidate_range", ctypes.c_uint64, ctypes.c_uint64)
        self._give_up = native.function("give_up_code_page", ctypes.c_uint32, result=ctypes.c_uint32)
        self._need = native.function("need_code_page", ctypes.c_uint32, result=ctypes.c_void_p)

    def need(self, page: int) -> None:
        """Give a page of RAM a code page, if it has none."""
        self._need(self._cpu.address, page)

    def give_up(self, page: int) -> bool:
        """Take the code page from a page of RAM. Return False if it must stay, because a region was made from it.

        Nothing may keep an op of it. It must not be called while the guest executes.
        """
        return bool(self._give_up(self._cpu.address, page))

    def pages(self) -> Iterator[int]:
        """Yield the numbers of the pages of RAM that have code pages."""
        return self._ram.pages_with_code()

    def give_back(self, page: int) -> None:
        """Give the host the memory of the code page that a page of RAM had, and was taken from it."""
        if page in self._adopted:
            assert self._native.initial_ops is not None
            self._native.initial_ops.map(self._range, page * CODE_PAGE_STRIDE, CODE_PAGE_STRIDE)
            self._adopted.remove(page)
        else:
            self._range.discard(page * CODE_PAGE_STRIDE, CODE_PAGE_STRIDE)

    # -- warm code (dbt.engine.warm_code) --------------------------------------------------------

    def cooled(self, page: int) -> bytes:
        """Return what the code page of a page of RAM holds, as if nothing was warm there yet."""
        start = page * CODE_PAGE_STRIDE
        ops = bytearray(self._marks[start : start + CODE_PAGE_SIZE + OP_SIZE])
        count = len(ops) // OP_SIZE
        for at in (OP_HOTNESS, OP_HOTNESS + 1):
            ops[at::OP_SIZE] = bytes(count)
        ops[OP_COVERED::OP_SIZE] = ops[OP_COVERED::OP_SIZE].translate(_COOLED)
        return bytes(ops)

    def adopt(self, runs: Iterable[tuple[int, int]], file: int, at: int) -> None:
        """Have code pages as they are in a file from ``at`` on. ``runs`` are those of pages of RAM: the number of the
        first, and how many they are. Nothing may have been decoded.
        """
        for first, count in runs:
            size = count * CODE_PAGE_STRIDE
            self._range.map_file(first * CODE_PAGE_STRIDE, size, file, at=at)
            at += size
            for page in range(first, first + count):
                self._flags[page] |= PAGE_HAS_CODE | PAGE_CHANGED
            self._adopted.update(range(first, first + count))

    def has_code(self, gpa: Gpa) -> bool:
        """Return True if the page has a code page."""
        return bool(self._flags[gpa >> PAGE_SHIFT] & PAGE_HAS_CODE)

    def invalidate(self, gpa: Gpa, size: int) -> None:
        """Forget the ops of these words, if there are any, because the words are about to change."""
        self._invalidate(self._cpu.address, gpa, size)

    def forget_all(self) -> None:
        """Forget every decoded op."""
        for page in self._ram.pages_with_code():
            self.invalidate(Gpa(page << PAGE_SHIFT), PAGE_SIZE)

    def op_at(self, gpa: Gpa) -> Hva:
        """Return the HVA of the op of the word."""
        return Hva(self.address + op_offset(gpa))

    def gpa_of(self, op: Hva) -> Gpa:
        """Return the GPA of the word whose op is at an HVA."""
        return op_address(op - self.address)

    def find_op(self, low: int) -> Gpa | None:
        """Return the GPA of the word whose op is at an HVA with this low half, or None if its page has no code.

        In a large RAM several ops share the low half. Then the lowest is returned.
        """
        first = (low - self.address) & 0xFFFFFFFF
        for offset in range(first, self._range.size, 1 << 32):
            gpa = op_address(offset)
            if self.has_code(gpa):
                return gpa
        return None

    # -- ops -----------------------------------------------------------------------------------

    def is_decoded(self, gpa: Gpa) -> bool:
        """Return True if the word was executed since it was written. The page need not have a code page."""
        return self._words[(op_offset(gpa) + OP_HANDLER) // 8] not in (0, self._native.decode_handler)

    def has_image_handler(self, gpa: Gpa) -> bool:
        """Return True if the word is decoded, and neither a region nor stitched code is entered there."""
        inside = 0 <= self.handler(gpa) - self._native.address < self._native.size
        return inside and self.is_decoded(gpa)

    def handler(self, gpa: Gpa) -> Hva:
        """Return the HVA of the code that executes the op."""
        return Hva(self._words[(op_offset(gpa) + OP_HANDLER) // 8])

    def replace_handler(self, gpa: Gpa, handler: Hva) -> None:
        """Let a region's code, at an HVA, execute the op. The first time, the image's handler is remembered."""
        op = op_offset(gpa)
        old = self._words[(op + OP_HANDLER) // 8] - self._native.address
        if 0 <= old < self._native.size:
            self._halves[(op + OP_ORIGINAL) // 4] = old
        self._words[(op + OP_HANDLER) // 8] = handler
        self.mark_changed(gpa)

    def restore_handler(self, gpa: Gpa) -> None:
        """Undo :meth:`replace_handler`."""
        op = op_offset(gpa)
        self._words[(op + OP_HANDLER) // 8] = self._halves[(op + OP_ORIGINAL) // 4] + self._native.address
        self.mark_changed(gpa)

    def arrivals(self, gpa: Gpa) -> int:
        """Return the number of arrivals at the op, modulo 65536."""
        return self._quarters[(op_offset(gpa) + OP_HOTNESS) // 2]

    def set_arrivals(self, gpa: Gpa, count: int) -> None:
        """Set the number of arrivals at the op."""
        self._quarters[(op_offset(gpa) + OP_HOTNESS) // 2] = count

    def is_covered(self, gpa: Gpa) -> bool:
        """Return True if a region was made from the word."""
        return bool(self._marks[op_offset(gpa) + OP_COVERED] & COVERED)

    def set_covered(self, gpa: Gpa, covered: bool) -> None:
        """Note whether a region was made from the word."""
        if covered:
            self._marks[op_offset(gpa) + OP_COVERED] |= COVERED
        else:
            self._marks[op_offset(gpa) + OP_COVERED] &= ~COVERED
        self.mark_changed(gpa)

    def set_changes(self, gpa: Gpa) -> None:
        """Note that the word is data: it was taken for a constant, and then written."""
        self._marks[op_offset(gpa) + OP_COVERED] |= CHANGES
        self.mark_changed(gpa)

    def set_breakpoint(self, gpa: Gpa, present: bool) -> None:
        """Let native code leave in front of the word, or no longer do so. The op is decoded only if it does not.

        Nothing but the op may lead to the word's code: no region covers it, and it is not stitched.
        """
        marks = op_offset(gpa) + OP_COVERED
        if present:
            self._words[(op_offset(gpa) + OP_HANDLER) // 8] = self._native.decode_handler
            self._marks[marks] |= BREAKPOINT
            self.breakpoints.add(gpa)
        else:
            self._marks[marks] &= ~BREAKPOINT
            self.breakpoints.discard(gpa)
        self.mark_changed(gpa)

    def mark_changed(self, gpa: Gpa) -> None:
        """Mark the page as changed, so that the compiler is told of it again."""
        self._flags[gpa >> PAGE_SHIFT] |= PAGE_CHANGED

    # -- counts of sensitive instructions --------------------------------------------------------

    def callout_places(self) -> dict[Gpa, int]:
        """Return how often each sensitive instruction was executed, by GPA."""
        return {gpa: self._halves[place] for gpa, place in self._counted_ops()}

    def reset_callouts(self) -> None:
        """Set these counts to zero."""
        for _, place in self._counted_ops():
            self._halves[place] = 0

    def _counted_ops(self) -> Iterator[tuple[Gpa, int]]:
        """Yield GPA, and index of the count in ``_halves``, of the sensitive instructions that were executed."""
        counting, guards, halves = self._native.counting_handlers, self._native.guards, self._halves
        either = counting | guards
        for page in self._ram.pages_with_code():
            first = page * CODE_PAGE_STRIDE
            end = first + OPS_PER_PAGE * OP_SIZE
            counts = halves[(first + OP_CALLOUTS) // 4 : end // 4 : OP_SIZE // 4].tolist()
            if not any(counts):  # as in most pages of a guest that has gone through all of its empty RAM
                continue
            handlers = self._words[(first + OP_HANDLER) // 8 : end // 8 : OP_SIZE // 8].tolist()
            for number in (number for number, handler in enumerate(handlers) if handler in either and counts[number]):
                op = first + number * OP_SIZE
                handler = handlers[number]
                if handler in guards:
                    handler = self._native.address + halves[(op + OP_BODY) // 4]
                if handler in counting:  # other instructions' ops have something else in the place of the count
                    yield Gpa(page << PAGE_SHIFT | number * 4), (op + OP_CALLOUTS) // 4

    def close(self) -> None:
        """Release the memory. No native code may run for this machine any more."""
        self._range.close()


def _reserve(ram: Ram, initial: InitialOps | None) -> HostRange:
    """Return the memory of the code pages. Addresses without RAM are only reserved."""
    size = (ram.end >> PAGE_SHIFT) * CODE_PAGE_STRIDE
    if ram.layout.flat and not ram.layout.flat.base and initial is None:
        return HostRange(size, CODE_PAGE_STRIDE)
    pages = HostRange(size, CODE_PAGE_STRIDE, reserve=True)
    for region in ram.layout.regions:
        first, count = region.base >> PAGE_SHIFT, region.size >> PAGE_SHIFT
        if initial is None:
            pages.commit(first * CODE_PAGE_STRIDE, count * CODE_PAGE_STRIDE)
        else:
            initial.map(pages, first * CODE_PAGE_STRIDE, count * CODE_PAGE_STRIDE)
    return pages
