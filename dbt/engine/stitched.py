"""Stitched code of one machine: the arena that native code writes it to, and what Python asks and tells of it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import NamedTuple

from dbt.abi.addresses import Hva
from dbt.abi.cpu import STITCHED_CALLEES, CpuState
from dbt.abi.hostmemory import ExecutableMapping, HostRange, WritableMapping
from dbt.abi.layout import OP_SIZE_SHIFT, STITCH_COUNTERS
from dbt.abi.stitching import ARENA_START, ARRAY_OFFSETS, BLOCK, FIELD_OFFSETS, WORKSPACE_SIZE
from dbt.engine.native import NativeCode

#: Bytes of address space for stitched code. When they are used up, all of it is dropped.
STITCHED_SIZE = 64 << 20


class StitchedBlock(NamedTuple):
    """A block: the offset of its first op in the code pages, and the HVA of its code."""

    op_offset: int
    address: Hva


class StitchedCode:
    """The stitcher's workspace and arena. Native code does the rest. Raises OSError if the host refuses.

    ``counts`` says whether heads of loops and functions count arrivals, for a tier that compiles what is hot.
    """

    def __init__(self, cpu: CpuState, native: NativeCode, counts: bool, size: int = STITCHED_SIZE) -> None:
        self._cpu = cpu
        self._workspace = HostRange(WORKSPACE_SIZE)
        self._fields = self._workspace.view().cast("Q")
        handle = os.memfd_create("dbt-stitched")
        try:
            os.ftruncate(handle, size)
            self._writable = WritableMapping(handle, size)
            self._executable = ExecutableMapping(handle, size)
        finally:
            os.close(handle)
        for name, value in (
            ("write", self._writable.address),
            ("execute", self._executable.address),
            ("size", size),
            ("used", ARENA_START),
            ("counts", STITCH_COUNTERS if counts else 0),
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

    def count(self, name: str) -> int:
        """Return a field of the workspace: ``insns``, ``resets``, ``dropped`` and so on."""
        return self._fields[FIELD_OFFSETS[name] // 8]

    @property
    def address(self) -> Hva:
        """The HVA at which the code is executed."""
        return self._executable.address

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

    def blocks(self) -> Iterator[StitchedBlock]:
        """Yield the blocks in the order of their addresses, those that are no longer entered too."""
        log = self._workspace.view()[ARRAY_OFFSETS["block_log"] :]
        for number in range(self.count("blocks")):
            op_number, place, _, _ = BLOCK.unpack_from(log, number * BLOCK.size)
            yield StitchedBlock(op_number << OP_SIZE_SHIFT, Hva(self.address + place))

    def close(self) -> None:
        """Release the memory. No native code may run for this machine any more."""
        self._cpu.set_native("stitcher", 0)
        self._fields.release()
        self._workspace.close()
        self._executable.close()
        self._writable.close()
