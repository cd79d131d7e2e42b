"""Guest RAM: one memfd mapping per virtual machine, at GPA 0."""

from __future__ import annotations

import ctypes
import mmap
import os

PAGE_SIZE = 4096
PAGE_SHIFT = 12


class Ram:
    """``size`` bytes of zeroed memory. ``address`` is its HVA, ``bytes`` a writable view of it.

    The memory is a memfd, so that it can be mapped more than once and sent to another process.
    Pages that are never touched cost nothing.
    """

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE_SIZE:
            raise ValueError(f"RAM size {size:#x} is not a positive multiple of {PAGE_SIZE:#x}")
        self.size = size
        self.fd = os.memfd_create("dbt-ram")
        os.ftruncate(self.fd, size)
        self._mapping = mmap.mmap(self.fd, size)
        self.bytes = memoryview(self._mapping)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    def __contains__(self, gpa: int) -> bool:
        return 0 <= gpa < self.size

    def close(self) -> None:
        """Give the file descriptor back. The mapping itself goes with the object."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.close()
