"""What a forked process's memory was in the process from which it was forked, to share it again.

Python writes to the objects that it uses: a reference more, and later a reference less. So a page of which a forked
process has a copy of its own is often equal to the original, which all others have, too. The zygote moves its memory
into a file in memory, which is mapped in the place of it, copy-on-write. What a process gives back of that mapping
shows the file again. Comparing and giving back is done in native code (:mod:`dbt.backend.originals`), which uses
nothing that it could give back.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterator
from mmap import PAGESIZE
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.abi.addresses import Hva
from dbt.abi.hostmemory import HostRange, seal
from dbt.memory.contents import own_pages

if TYPE_CHECKING:
    from dbt.engine.native import NativeCode

_NAME: Final = "dbt-originals"
_MAPS: Final = "/proc/self/maps"
#: Smaller mappings are not worth it, in bytes, and larger ones are address space that is kept free.
_LEAST: Final = 64 << 10
_MOST: Final = 64 << 20
_MAPPING: Final = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) rw-p ([0-9a-f]+) \S+ \d+ *(.*)$", re.MULTILINE)
_libc: Final = ctypes.CDLL(None)
_PIECE: Final = 1 << 16


class _Mapping(NamedTuple):
    """Private, writable memory: its address, its size in bytes, and where in a file its content begins."""

    address: int
    size: int
    offset: int
    name: bytes


class Originals:
    """The memory of this process as it is now, for processes that are forked from it. There may be no other thread.
    ``native`` has the code for it, and has to stay open.
    """

    def __init__(self, native: NativeCode) -> None:
        self._native = native
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        put = _function(native, "put_into_file", pointer, number, pointer, ctypes.c_int32, number, pointer)
        self._drop = _function(native, "drop_equal", pointer, number, pointer, pointer, pointer)
        self._madvise = _address_of(_libc.madvise)
        self._maps = -1
        found = [one for one in _mappings(_read(_MAPS)) if _is_heap(one)]
        size = sum(one.size for one in found)
        file = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(file, size)
            copy = HostRange(size, reserve=True)
            copy.map_file(0, size, file, shared=True)
            at = 0
            for one in found:
                put(None, one.address, one.size, copy.address + at, file, at, _address_of(_libc.mmap))
                at += one.size
            copy.close()
            seal(file)
            self._shown = HostRange(size, reserve=True)
            self._shown.map_file(0, size, file)
            self._shown.view()[::PAGESIZE].tobytes()  # all of it is this process's too, so that nobody else's alone
        finally:
            os.close(file)

    def keep_maps_open(self) -> None:
        """Open what tells how memory is mapped in this process, which cannot do so later."""
        self._maps = os.open(_MAPS, os.O_RDONLY | os.O_CLOEXEC)

    def drop_equal(self) -> int:
        """Give back the memory of this process that is equal to the original. Return how many bytes that is.

        Nothing happens in a process with another thread, which might write meanwhile.
        """
        if self._maps < 0 or threading.active_count() > 1:
            return 0
        pages = 0
        for one in _mappings(_read_again(self._maps)):
            if one.name.startswith(f"/memfd:{_NAME}".encode()):
                marks = own_pages(Hva(one.address), one.size)
                buffer = (ctypes.c_ubyte * len(marks)).from_buffer(marks)
                original = self._shown.address + one.offset
                pages += self._drop(None, one.address, len(marks), ctypes.addressof(buffer), original, self._madvise)
        return pages * PAGESIZE


def _function(native: NativeCode, name: str, *arguments: Any) -> Any:
    """Return a function that is called without giving others a chance to execute."""
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *arguments)(native.entry(name))


def _address_of(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def _mappings(text: bytes) -> Iterator[_Mapping]:
    for start, end, offset, name in _MAPPING.findall(text):
        address = int(start, 16)
        yield _Mapping(address, int(end, 16) - address, int(offset, 16), name)


def _is_heap(one: _Mapping) -> bool:
    """Whether it is the C library's heap or Python's, or variables of a library. Files in memory are no heap."""
    return _LEAST <= one.size <= _MOST and one.name != b"[stack]" and not one.name.startswith(b"/memfd:")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _read_again(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    pieces = []
    while piece := os.read(file, _PIECE):
        pieces.append(piece)
    return b"".join(pieces)
