"""Host memory that native code uses: zeroed ranges with an address, and executable copies.

By way of the C library: Python's own mmap tells the address of writable memory only, cannot reserve addresses
without memory, and is not unmapped while a view of it is alive.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import weakref

from dbt.abi.addresses import Hva

_MAP_NORESERVE = 0x4000
_MAP_FIXED = 0x10
_PROT_NONE = 0
_MADV_REMOVE = 9
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: The size and alignment of a large page of the host (MADV_HUGEPAGE in madvise(2)).
LARGE_PAGE = 2 << 20
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = _libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _map(address: Hva | None, size: int, protection: int, flags: int, handle: int = -1, offset: int = 0) -> Hva:
    found = _libc.mmap(address, size, protection, flags, handle, offset)
    if found in (None, _FAILED):
        error = ctypes.get_errno()
        raise OSError(error, f"{os.strerror(error)}: cannot map {size:#x} bytes of host memory")
    return Hva(found)


class HostRange:
    """``size`` zeroed bytes at ``address``, a multiple of ``alignment``; untouched pages cost nothing.

    A forked process has a copy of its own. ``reserve``: there are only the addresses until :meth:`commit` puts memory
    there; to touch the others is a crash.
    Raises OSError if the host refuses. A view keeps the range alive, but not beyond :meth:`close`.
    """

    def __init__(self, size: int, alignment: int = mmap.PAGESIZE, reserve: bool = False) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._mapped = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE + (alignment if alignment > mmap.PAGESIZE else 0)
        protection = _PROT_NONE if reserve else mmap.PROT_READ | mmap.PROT_WRITE
        self._start = _map(None, self._mapped, protection, flags)
        self.address = Hva(-(-self._start // alignment) * alignment)
        self.size = size
        self._viewed: list[weakref.ref[ctypes.Array[ctypes.c_ubyte]]] = []  # what views are of

    def commit(self, offset: int, size: int) -> None:
        """Put zeroed memory of its own into a part of a reserved range. Both are multiples of the page size."""
        self._check(offset, size)
        if _libc.mprotect(self.address + offset, size, mmap.PROT_READ | mmap.PROT_WRITE):
            raise OSError(ctypes.get_errno(), "cannot commit host memory")

    def map_file(self, offset: int, size: int, handle: int, shared: bool = False, at: int | None = None) -> None:
        """Replace a part by the bytes of a file at the same offset, or from ``at`` on. Stores do not change the file,
        unless it is ``shared``. Then a forked process has nothing there.
        """
        self._check(offset, size)
        flags = (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE) | _MAP_NORESERVE | _MAP_FIXED
        place, protection = offset if at is None else at, mmap.PROT_READ | mmap.PROT_WRITE
        address = _map(Hva(self.address + offset), size, protection, flags, handle, place)
        if shared and _libc.madvise(address, size, mmap.MADV_DONTFORK):
            raise OSError(ctypes.get_errno(), "cannot keep host memory from forked processes")

    def discard(self, offset: int, size: int) -> None:
        """Give the memory of a part back to the host, which is zero then. Both are multiples of the page size."""
        self._check(offset, size)
        if _libc.madvise(self.address + offset, size, mmap.MADV_DONTNEED):
            raise OSError(ctypes.get_errno(), "cannot give host memory back")

    def discard_shared(self, offset: int, size: int) -> None:
        """Do so for a part that is mapped ``shared`` from a file. The file has zeros there, too."""
        self._check(offset, size)
        if _libc.madvise(self.address + offset, size, _MADV_REMOVE):
            raise OSError(ctypes.get_errno(), "cannot give memory of a file back")

    def map_executable(self, offset: int, size: int, handle: int) -> None:
        """Replace a part by the first bytes of a file, to be executed there. OSError if the host forbids it."""
        self._check(offset, size)
        _map(Hva(self.address + offset), size, ExecutableMapping.protection, mmap.MAP_SHARED | _MAP_FIXED, handle)

    def map_zeros(self, offset: int, size: int) -> None:
        """Replace a part by zeroed memory of its own, whatever was mapped there. Raise OSError if the host refuses."""
        self._check(offset, size)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        _map(Hva(self.address + offset), size, mmap.PROT_READ | mmap.PROT_WRITE, flags)

    def shrink(self, size: int) -> None:
        """Release all but the first ``size`` bytes, a multiple of the page size. Nothing may use the rest any more."""
        self._check(0, size)
        end, mapped = self.address + size, self.address + size - self._start
        if mapped < self._mapped:
            _libc.munmap(end, self._mapped - mapped)
            self.size, self._mapped = size, mapped

    def use_large_pages(self) -> None:
        """Ask the host to use pages of :data:`LARGE_PAGE` bytes: one fault instead of 512. It may have none."""
        _libc.madvise(self.address, self.size, mmap.MADV_HUGEPAGE)

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size <= 0 or offset + size > self.size:
            raise ValueError(f"[{offset:#x}, {offset + size:#x}) is not within the range of {self.size:#x} bytes")

    def view(self) -> memoryview[int]:
        """The bytes."""
        kind: type[ctypes.Array[ctypes.c_ubyte]] = type("_Bytes", (ctypes.c_ubyte * self.size,), {})
        found = kind.from_address(self.address)
        found.owner = self  # type: ignore[attr-defined]  # which must live as long as views do
        self._viewed.append(weakref.ref(found))
        return memoryview(found).cast("B")

    def close(self) -> None:
        """Release the memory now. Nothing may use a view or the address any more."""
        if self._mapped:
            _libc.munmap(self._start, self._mapped)
            self._mapped = 0

    def close_views(self, *views: memoryview[int]) -> None:
        """Release the memory now, and these views of it. Nothing may use the address any more.

        If there are other views, their addresses are kept until the last of them is gone. The content is gone at once:
        they show zeros.
        """
        for view in views:
            with contextlib.suppress(BufferError):  # another object has a view of the view
                view.release()
        if not any(viewed() is not None for viewed in self._viewed):
            self.close()
        elif self._mapped:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
            _map(self._start, self._mapped, mmap.PROT_READ | mmap.PROT_WRITE, flags)

    def __del__(self) -> None:
        if hasattr(self, "_start"):
            self.close()


class ExecutableMapping:
    """The first ``size`` bytes of a file, mapped read-execute at ``address``. OSError if the host forbids it."""

    protection = mmap.PROT_READ | mmap.PROT_EXEC

    def __init__(self, handle: int, size: int, shared: bool = True) -> None:
        """With ``shared``, what others write to the file is seen here."""
        self.address = _map(None, size, self.protection, mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE, handle)
        self.size = size

    def close(self) -> None:
        """Unmap it now. Nothing may execute or write it any more."""
        if self.size:
            _libc.munmap(self.address, self.size)
            self.size = 0

    def __del__(self) -> None:
        if hasattr(self, "size"):
            self.close()


class WritableMapping(ExecutableMapping):
    """The same, mapped to be read and written, which is never executed at this address."""

    protection = mmap.PROT_READ | mmap.PROT_WRITE

    def leave_pages(self) -> None:
        """Let the process have no page of the file at this address until it touches it again. The file keeps them.

        The host counts a page that a process has at two addresses twice, and has a table for each.
        """
        if _libc.madvise(self.address, self.size, mmap.MADV_DONTNEED):
            raise OSError(ctypes.get_errno(), "cannot leave pages of a file")

    def give_back(self) -> None:
        """Give the memory of the file back to the host. It has zeros then, at each address at which it is mapped."""
        if _libc.madvise(self.address, self.size, _MADV_REMOVE):
            raise OSError(ctypes.get_errno(), "cannot give memory of a file back")


def executable_copy(code: bytes) -> ExecutableMapping:
    """Code that was written into a memfd and is mapped read-execute only.

    Forked processes share it, and none of them can change it for the others: whoever makes its mapping writable writes
    to a copy.
    """
    handle = os.memfd_create("dbt-code", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.pwrite(handle, code, 0)
        seal(handle)
        return ExecutableMapping(handle, len(code), shared=False)
    finally:
        os.close(handle)


def seal(handle: int) -> None:
    """Let nobody change a file in memory any more, whoever has it open. It was made with MFD_ALLOW_SEALING, and nothing
    is mapped from it so that it could be written.
    """
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
