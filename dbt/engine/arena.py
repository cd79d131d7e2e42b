"""The arena of native code: one memfd mapped twice, to write and to execute, never both at one address."""

from __future__ import annotations

import mmap
import os

from dbt.abi.hostmemory import ExecutableMapping

_ALIGNMENT = 64


class CodeArena:
    """``size`` bytes for code. ``place`` copies code in and returns where it can be executed."""

    def __init__(self, size: int) -> None:
        handle = os.memfd_create("dbt-arena")
        try:
            os.ftruncate(handle, size)
            self._writable = mmap.mmap(handle, size)
            self._executable = ExecutableMapping(handle, size)
        finally:
            os.close(handle)
        self.size = size
        self.used = 0

    def place(self, code: bytes) -> int | None:
        """The address of a copy of ``code``; None if there is no room."""
        start = -(-self.used // _ALIGNMENT) * _ALIGNMENT
        if start + len(code) > self.size:
            return None
        self._writable[start : start + len(code)] = code
        self.used = start + len(code)
        return self._executable.address + start

    def close(self) -> None:
        """Give the memory back now. Nothing may execute the code any more."""
        self._writable.close()
        self._executable.close()

    def clear(self) -> None:
        """Forget all code: nothing may execute it any more."""
        self.used = 0
