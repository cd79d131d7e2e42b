"""Host memory that native code uses: zeroed ranges with an address, and executable copies."""

from __future__ import annotations

import ctypes
import mmap
import os

_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class HostRange:
    """``size`` zeroed bytes at ``address``, a multiple of ``alignment``; untouched pages cost nothing.

    ``shared``: a forked process sees what is written after the fork.
    """

    def __init__(self, size: int, alignment: int = mmap.PAGESIZE, shared: bool = False) -> None:
        flags = (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE) | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self.mapping = mmap.mmap(-1, size + alignment, flags=flags)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.mapping))
        self.address = -(-start // alignment) * alignment
        self._skip = self.address - start
        self.size = size

    def view(self) -> memoryview[int]:
        """The bytes."""
        return memoryview(self.mapping)[self._skip : self._skip + self.size]


class ExecutableMapping:
    """The first ``size`` bytes of a file, mapped read-execute at ``address``. OSError if the host forbids it.

    By way of the C library: Python's mmap tells the address of writable memory only.
    """

    def __init__(self, handle: int, size: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        address = self._libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_SHARED, handle, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "cannot map executable memory")
        self.address: int = address
        self.size = size

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._libc.munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size))


def executable_copy(code: bytes) -> ExecutableMapping:
    """Code that was written into a memfd and is mapped read-execute only."""
    handle = os.memfd_create("dbt-code")
    try:
        os.pwrite(handle, code, 0)
        return ExecutableMapping(handle, len(code))
    finally:
        os.close(handle)
