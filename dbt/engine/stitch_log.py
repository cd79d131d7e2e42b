"""The log of stitched blocks: what the stitcher notes of the code that it makes, where an observer wants to know."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

from dbt.abi.addresses import Gpa, Hva
from dbt.abi.cpu import CpuState
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import OP_HANDLER, OP_SIZE_SHIFT
from dbt.abi.stitching import BLOCK, MAX_BLOCKS
from dbt.engine.code_pages import op_address, op_offset
from dbt.engine.native import NativeCode


class StitchedBlock(NamedTuple):
    """A block of guest code: the GPA of its first instruction, and how many it has; HVA and bytes of its code; and the
    GPA of the op from which it was stitched, with the arrivals that this op had then.
    """

    gpa: Gpa
    insns: int
    address: Hva
    size: int
    root: Gpa
    arrivals: int


class BlockState(IntEnum):
    """What became of a block."""

    ENTERED = 0  # its op goes to it
    REPLACED = 1  # its op goes to a newer block
    LEFT_TO_REGION = 2  # its op goes to a region, and so does the block itself
    DROPPED = 3  # its op goes to a handler again, because a word of its page was written over


class StitchedImage(NamedTuple):
    """All stitched code as it is at one time, with what is needed to understand it.

    ``code`` are the arena's bytes from the HVA ``address`` on. ``starts`` has a u16 for each of them: 1 + the number of
    the stencil that begins there, or 0. ``stencils`` and ``patches`` are the tables of
    :mod:`dbt.backend.stencil_table`, and ``names`` the names of the forms, by stencil. ``lost`` blocks are not there
    any more.
    """

    address: Hva
    code: bytes
    starts: bytes
    blocks: list[tuple[StitchedBlock, BlockState]]
    lost: int
    stencils: bytes
    patches: bytes
    names: dict[int, str]


class StitchLog:
    """The log of a machine's stitched code, which is at ``address`` and has up to ``size`` bytes.

    ``count`` returns a field of the stitcher's workspace.
    """

    def __init__(self, cpu: CpuState, native: NativeCode, count: Callable[[str], int], address: Hva, size: int) -> None:
        self._cpu, self._native, self._count = cpu, native, count
        self._address, self._size = address, size
        self._memory = HostRange(BLOCK.size * MAX_BLOCKS + 2 * size)
        self.block_log = self._memory.address
        self.stencil_log = Hva(self.block_log + BLOCK.size * MAX_BLOCKS)

    @property
    def length(self) -> int:
        """The number of blocks that were ever stitched."""
        return self._count("blocks")

    def blocks(self, first: int = 0) -> Iterator[StitchedBlock]:
        """Yield the blocks from number ``first`` on, in the order in which they were stitched.

        Those whose code is not in the arena any more are left out, and so are all but the last MAX_BLOCKS. Those that
        are no longer entered are not left out.
        """
        end = self.length
        for number in range(max(first, self._count("first_block"), end - MAX_BLOCKS), end):
            entry = ctypes.string_at(self.block_log + number % MAX_BLOCKS * BLOCK.size, BLOCK.size)
            op, place, size, insns, root, arrivals = BLOCK.unpack(entry)
            yield StitchedBlock(_gpa_of(op), insns, Hva(self._address + place), size, _gpa_of(root), arrivals)

    def image(self) -> StitchedImage:
        """Return all stitched code as it is now."""
        used, image = self._count("used"), self._native.image
        blocks = [(block, self._state_of(block)) for block in self.blocks()]
        return StitchedImage(
            self._address,
            ctypes.string_at(self._address, used),
            ctypes.string_at(self.stencil_log, 2 * used),
            blocks,
            self.length - len(blocks),
            image.stencils,
            image.patches,
            dict(self._native.form_stencils()),
        )

    def _state_of(self, block: StitchedBlock) -> BlockState:
        op = self._cpu.native("code_pages") + op_offset(block.gpa)
        handler = ctypes.c_uint64.from_address(op + OP_HANDLER).value
        if handler == block.address:
            return BlockState.ENTERED
        if self._address <= handler < self._address + self._size:
            return BlockState.REPLACED
        if not handler or self._native.address <= handler < self._native.address + self._native.size:
            return BlockState.DROPPED
        return BlockState.LEFT_TO_REGION

    def close(self) -> None:
        """Release the memory. No native code may run for this machine any more."""
        self._memory.close()


def _gpa_of(op_number: int) -> Gpa:
    return op_address(op_number << OP_SIZE_SHIFT)
