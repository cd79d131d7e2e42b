"""A file in memory that has code pages in which nothing is decoded yet, for the code pages of many machines.

A code page has 36 KiB, of which a guest that executes little of its page changes little. Where the code pages of
machines are mapped from this file, they share what they have not changed.
"""

from __future__ import annotations

import os
from array import array
from typing import Final

from dbt.abi.addresses import Hva
from dbt.abi.hostmemory import HostRange, seal
from dbt.abi.layout import CODE_PAGE_SIZE, CODE_PAGE_STRIDE, OP_SIZE, OPS_PER_PAGE

#: The size of the file in bytes. With fewer, the code pages of a large RAM would be too many mappings.
SIZE: Final = 32 << 20
_POINTER: Final = 8


class InitialOps:
    """The file. ``decode`` and ``sentinel`` are the addresses of these handlers, which have to stay where they are."""

    def __init__(self, decode: Hva, sentinel: Hva) -> None:
        self._file = os.memfd_create("dbt-initial-ops", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        op = array("Q", (decode, *[0] * (OP_SIZE // _POINTER - 1)))
        page = (op * OPS_PER_PAGE + array("Q", (sentinel,))).tobytes()
        assert len(page) == CODE_PAGE_SIZE + _POINTER
        os.ftruncate(self._file, SIZE)
        for start in range(0, SIZE, CODE_PAGE_STRIDE):
            os.pwrite(self._file, page, start)
        seal(self._file)  # who can write to it could change the code pages of all machines

    def map(self, memory: HostRange, offset: int, size: int) -> None:
        """Replace a part of the code pages by those of the file. Raise OSError if the host refuses."""
        end = offset + size
        while offset < end:
            at = offset % SIZE  # so that what lies side by side is one mapping
            part = min(SIZE - at, end - offset)
            memory.map_file(offset, part, self._file, at=at)
            offset += part

    def close(self) -> None:
        """Close the file. What is mapped stays."""
        os.close(self._file)
