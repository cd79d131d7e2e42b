"""The arena of native code: one memfd mapped twice, to write and to execute, never both at one address."""

from __future__ import annotations

import ctypes
import mmap
import os

_ALIGNMENT = 64


class CodeArena:
    """``size`` bytes for code. ``place`` copies code in and returns where it can be executed."""

    def __init__(self, size: int) -> None:
        handle = os.memfd_create("dbt-arena")
        try:
            os.ftruncate(handle, size)
            self._writable = mmap.mmap(handle, size)
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._libc.mmap.restype = ctypes.c_void_p
            self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
            address = self._libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_SHARED, handle, 0)
            if address in (None, ctypes.c_void_p(-1).value):
                raise OSError(ctypes.get_errno(), "cannot map executable memory")
        finally:
            os.close(handle)
        self.address: int = address
        self.size = size
        self.used = 0

    def place(self, code: bytes) -> int | None:
        """The address of a copy of ``code``; None if there is no room."""
        start = -(-self.used // _ALIGNMENT) * _ALIGNMENT
        if start + len(code) > self.size:
            return None
        self._writable[start : start + len(code)] = code
        self.used = start + len(code)
        return self.address + start

    def clear(self) -> None:
        """Forget all code: nothing may execute it any more."""
        self.used = 0

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._libc.munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size))
