"""Stitched code of one machine: the arena that native code writes it to, and what Python asks and tells of it."""

from __future__ import annotations

import ctypes
import os
from array import array
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Hva
from dbt.abi.cpu import STITCHED_CALLEES, CpuState
from dbt.abi.hostmemory import ExecutableMapping, HostRange, WritableMapping
from dbt.abi.layout import (
    HOT_INSNS,
    PAGE_SHIFT,
    STITCH_COUNTERS,
    STITCH_COUNTERS_IN_PAGE_SHIFT,
    STITCH_COUNTERS_OFFSET,
    WARM_INSNS,
)
from dbt.abi.stitching import ARENA_START, ARRAY_OFFSETS, FIELD_OFFSETS, LISTED, WORKSPACE_SIZE
from dbt.engine.native import NativeCode

if TYPE_CHECKING:
    from dbt.engine.stitch_log import StitchLog

#: Bytes of address space for stitched code. When they are used up, all of it is dropped.
STITCHED_SIZE = 64 << 20
#: The most bytes of it, about, that a process has where it can be written, beside where it is executed.
WRITABLE_KEPT = 256 << 10
_USED = FIELD_OFFSETS["used"] // 8


class StitchActivity(NamedTuple):
    """What was stitched: guest instructions, blocks, and bytes of code with its stubs.

    ``rewrites`` says how often the stitched code of a page was dropped because one of its words was written over, and
    ``resets`` how often everything was dropped.
    """

    insns: int
    blocks: int
    code_bytes: int
    rewrites: int
    resets: int


class Thresholds(NamedTuple):
    """How many instructions the block at the head of a stitched loop or function executes until control leaves native
    code there: the first time after ``warm``, and then after each further ``hot``. Both are below 2^31.
    """

    warm: int = WARM_INSNS
    hot: int = HOT_INSNS


class WrongThreshold(ValueError):
    """Raised if ``$DBT_HOT_AFTER`` is not a number of instructions. The message says what such a number looks like."""


def usual_thresholds() -> Thresholds:
    """Return the thresholds of this process: those of the module, or lower or higher ones by ``$DBT_HOT_AFTER``.

    Raises WrongThreshold.
    """
    text = os.environ.get("DBT_HOT_AFTER")
    if not text:
        return Thresholds()
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) >= 1 << 31:
        raise WrongThreshold(
            f"DBT_HOT_AFTER={text}: this is not after how many instructions a loop or a function is to be compiled: "
            f"write a number below {1 << 31}, or leave it out for {HOT_INSNS}"
        )
    return Thresholds(min(WARM_INSNS, int(text)), int(text))


class StitchedCode:
    """The stitcher's workspace and arena. Native code does the rest. Raises OSError if the host refuses.

    With ``thresholds``, the heads of loops and functions count, for a tier that compiles what is hot.
    ``measures`` says whether stitched code keeps the number of instructions that it executes, and ``logs`` whether
    there is a log of the blocks.
    """

    def __init__(
        self,
        cpu: CpuState,
        native: NativeCode,
        thresholds: Thresholds | None,
        measures: bool = False,
        logs: bool = False,
        size: int = STITCHED_SIZE,
    ) -> None:
        self._cpu = cpu
        self._measures = measures
        self._workspace = HostRange(WORKSPACE_SIZE)
        self._fields = self._workspace.view().cast("Q")
        handle = os.memfd_create("dbt-stitched")
        try:
            os.ftruncate(handle, size)
            self._writable = WritableMapping(handle, size)
            self._executable = ExecutableMapping(handle, size)
        finally:
            os.close(handle)
        self.log = log = self._make_log(native, size) if logs else None
        for name, value in (
            ("write", self._writable.address),
            ("execute", self._executable.address),
            ("size", size),
            ("used", ARENA_START),
            ("counts", 0 if thresholds is None else STITCH_COUNTERS),
            *(() if thresholds is None else thresholds._asdict().items()),
            ("measures", measures),
            ("block_log", 0 if log is None else log.block_log),
            ("stencil_log", 0 if log is None else log.stencil_log),
            *native.stencil_tables(),
        ):
            self._fields[FIELD_OFFSETS[name] // 8] = value
        for name in STITCHED_CALLEES:
            cpu.set_native(name, native.entry(name))
        cpu.set_native("stitcher", self._workspace.address)
        self._divert = native.function("divert_head", ctypes.c_void_p)
        self._stitch = native.function("stitch", ctypes.c_void_p)
        self._drop_page = native.function("unstitch_page", ctypes.c_uint64)
        self._drop = native.function("drop_stitched")
        self._before = self._activity_since_start  # the counts are set to zero
        self._left = ARENA_START  # so many bytes were in use when the pages for writing were left

    def _make_log(self, native: NativeCode, size: int) -> StitchLog:
        from dbt.engine.stitch_log import StitchLog

        return StitchLog(self._cpu, native, self.count, self.address, size)

    def count(self, name: str) -> int:
        """Return a field of the workspace: ``insns``, ``resets``, ``dropped`` and so on."""
        return self._fields[FIELD_OFFSETS[name] // 8]

    @property
    def retired(self) -> int | None:
        """The instructions that stitched code has executed. None if that is not measured."""
        return self._cpu.native("stitched_insns") if self._measures else None

    @property
    def activity(self) -> StitchActivity:
        """What was stitched since the counts were set to zero."""
        return StitchActivity(*(now - then for now, then in zip(self._activity_since_start, self._before, strict=True)))

    @property
    def _activity_since_start(self) -> StitchActivity:
        size = self.count("dropped_bytes") + self.count("used") - ARENA_START
        return StitchActivity(
            self.count("insns"), self.count("blocks"), size, self.count("dropped"), self.count("resets")
        )

    def reset_counts(self) -> None:
        """Set the counts to zero."""
        self._before = self._activity_since_start
        self._cpu.set_native("stitched_insns", 0)

    @property
    def address(self) -> Hva:
        """The HVA at which the code is executed."""
        return self._executable.address

    def leave_written(self) -> None:
        """Leave the pages at which the code was written, if there are many new ones. No native code may be running."""
        used = self._fields[_USED]
        if not self._left <= used < self._left + WRITABLE_KEPT:
            self._left = used
            self._writable.leave_pages()

    def stitch(self, op: Hva) -> None:
        """Stitch the code from an op on, whose handler is the image's, whether it is warm or not."""
        self._stitch(self._cpu.address, op)

    def divert(self, op: Hva) -> None:
        """Let the stitched block of an op go to the handler that the op has from now on."""
        self._divert(self._cpu.address, op)

    def drop_page(self, page: int) -> None:
        """Drop the stitched code of a page of RAM, by its number, so that what is warm there is stitched anew."""
        self._drop_page(self._cpu.address, page)

    def drop_all(self) -> None:
        """Drop all stitched code."""
        self._drop(self._cpu.address)

    def give_back(self) -> None:
        """Drop all stitched code, and give its memory back to the host. The guest must not be executing."""
        self.drop_all()
        self._writable.give_back()
        self._left = self._fields[_USED]

    # -- warm code (dbt.engine.warm_code) --------------------------------------------------------

    def code(self) -> bytes:
        """Return all stitched code."""
        return ctypes.string_at(self.address + ARENA_START, self.count("used") - ARENA_START)

    def pages(self) -> array[int]:
        """Return the numbers of the pages of RAM with stitched code."""
        at = ARRAY_OFFSETS["page_list"]
        return array("I", bytes(self._workspace.view()[at : at + 4 * self.count("pages")]))

    def adopt(self, file: int, at: int, size: int, pages: array[int], counters: int) -> None:
        """Have code that was stitched elsewhere: :meth:`code`, which are ``size`` bytes of a file from ``at`` on,
        :meth:`pages`, and how many counters its heads have. Nothing may have been stitched.
        """
        workspace = self._workspace.view()
        place = (ctypes.c_ubyte * size).from_address(self._writable.address + ARENA_START)
        if os.preadv(file, [place], at) != size:
            raise OSError("the stitched code of the model cannot be read")
        at = ARRAY_OFFSETS["page_list"]
        workspace[at : at + 4 * len(pages)] = pages.tobytes()
        for page in pages:
            workspace[ARRAY_OFFSETS["rewrites"] + page] = LISTED
        for name, value in (("used", ARENA_START + size), ("pages", len(pages)), ("counters", counters)):
            self._fields[FIELD_OFFSETS[name] // 8] = value
        warm, each = self.count("warm"), 1 << STITCH_COUNTERS_IN_PAGE_SHIFT
        for first in range(0, counters, each):
            start = (STITCH_COUNTERS_OFFSET + (first // each << PAGE_SHIFT)) // 4
            number = min(each, counters - first)
            self._cpu.native32[start : start + number] = array("I", [warm]) * number
        self._before = self._activity_since_start

    def close(self) -> None:
        """Release the memory. No native code may run for this machine any more."""
        self._cpu.set_native("stitcher", 0)
        if self.log is not None:
            self.log.close()
        self._fields.release()
        self._workspace.close()
        self._executable.close()
        self._writable.close()
