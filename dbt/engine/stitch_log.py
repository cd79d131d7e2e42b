"""The log of stitched blocks: what the stitcher notes of the code that it makes, where an observer wants to know."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dbt.abi.addresses import Gpa, Hva
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import OP_SIZE_SHIFT
from dbt.abi.stitching import BLOCK, MAX_BLOCKS
from dbt.engine.code_pages import op_address
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


class StitchedImage(NamedTuple):
    """All stitched code as it is at one time, with what is needed to understand it.

    ``code`` are the arena's bytes from the HVA ``address`` on. ``stencils`` has a u16 for each of them: 1 + the number
    of the stencil that begins there, or 0. ``names`` are those of the forms, by stencil.
    """

    address: Hva
    code: bytes
    stencils: bytes
    blocks: list[StitchedBlock]
    names: dict[int, str]


class StitchLog:
    """The log of a machine's stitched code, which is at ``address`` and has up to ``size`` bytes.

    ``count`` returns a field of the stitcher's workspace.
    """

    def __init__(self, native: NativeCode, count: Callable[[str], int], address: Hva, size: int) -> None:
        self._native, self._count, self._address = native, count, address
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
        used = self._count("used")
        return StitchedImage(
            self._address,
            ctypes.string_at(self._address, used),
            ctypes.string_at(self.stencil_log, 2 * used),
            list(self.blocks()),
            dict(self._native.form_stencils()),
        )

    def close(self) -> None:
        """Release the memory. No native code may run for this machine any more."""
        self._memory.close()


def _gpa_of(op_number: int) -> Gpa:
    return op_address(op_number << OP_SIZE_SHIFT)
