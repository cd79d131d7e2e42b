"""What a forked process's memory was in the process from which it was forked, to share it again.

Python writes to the objects that it uses: a reference more, and later a reference less. So a page of which a forked
process has a copy of its own is often equal to the original, which all others have, too. The zygote moves its memory
into a file in memory, which is mapped in the place of it, copy-on-write. What a process gives back of that mapping
shows the file again. Comparing and giving back is done in native code (:mod:`dbt.backend.originals`), which uses
nothing that it could give back.

Machines that are made alike write alike, too, as forked processes allocate at the same addresses. A *model* is what one
of them has written, in a file with the same places. A process maps those pages of it that are equal to its own. It
believes nothing of the model but what it compares, and the file cannot change after it is complete.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import threading
from array import array
from collections.abc import Iterable, Iterator
from mmap import PAGESIZE
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.abi.addresses import Hva
from dbt.abi.hostmemory import HostRange, seal
from dbt.memory.contents import own_pages

if TYPE_CHECKING:
    from dbt.engine.native import NativeCode

_MAPS: Final = "/proc/self/maps"
#: Smaller mappings are not worth it, in bytes, and larger ones are address space that is kept free.
_LEAST: Final = 64 << 10
_MOST: Final = 64 << 20
_MAPPING: Final = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) rw-p ([0-9a-f]+) \S+ \d+ *(.*)")
_libc: Final = ctypes.CDLL(None)
_MADV_POPULATE_WRITE: Final = 23
#: Pages on end that are marked.
_RUN: Final = re.compile(rb"[^\0]+")
#: How much of a file is copied, and how much of a list is read, at once.
_PIECE: Final = 1 << 16
_LITTLE: Final = 1 << 12


class _Mapping(NamedTuple):
    """Private, writable memory: its address, its size in bytes, and where in a file its content begins."""

    address: int
    size: int
    offset: int
    name: bytes


class _File:
    """A file in memory, of which a page has the place of a page of the heap, and where this process sees it."""

    def __init__(self, name: str, size: int) -> None:
        self.name = f"/memfd:{name}".encode()
        self.handle = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.handle, size)
        self._shown = HostRange(size, reserve=True)

    def show(self) -> None:
        """Let this process, and those that it forks, see the file."""
        self._shown.map_file(0, self._shown.size, self.handle)

    @property
    def is_sealed(self) -> bool:
        return bool(fcntl.fcntl(self.handle, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)

    def keep_unchanged(self) -> None:
        """Let processes that are forked from now on read the file, and not write to it. Raise OSError."""
        reader = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        os.close(self.handle)
        self.handle = reader

    def writer(self) -> int:
        """Return a descriptor by which this process may write to the file, which the caller closes. Raise OSError."""
        return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)

    @property
    def _path(self) -> str:
        return f"/proc/self/fd/{self.handle}"

    def at(self, offset: int) -> int:
        """Return the address where this process sees a place of the file."""
        return self._shown.address + offset

    def touch(self) -> None:
        """Have all of the file in memory of this process, too, so that it is nobody else's alone."""
        self._shown.view()[::PAGESIZE].tobytes()


class Originals:
    """The memory of this process as it is now, for processes that are forked from it. There may be no other thread.
    ``native`` has the code for it, and has to stay open.
    """

    def __init__(self, native: NativeCode) -> None:
        self._native = native
        pointer, number, handle = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
        put = _function(native, "put_into_file", pointer, number, pointer, handle, number, pointer)
        self._drop = _function(native, "drop_equal", pointer, number, pointer, pointer, pointer)
        self._map = _function(native, "map_equal", pointer, number, pointer, pointer, handle, number, pointer)
        self._madvise, self._mmap = _address_of(_libc.madvise), _address_of(_libc.mmap)
        self._populate = ctypes.CFUNCTYPE(handle, ctypes.c_size_t, ctypes.c_size_t, handle)(self._madvise)
        self._maps = -1
        with open(_MAPS, "rb") as maps:
            found = [one for one in _mappings(maps) if _is_heap(one)]
        self._size = sum(one.size for one in found)
        self._addresses: list[tuple[int, int]] = []  # where the pages of the file were, in its order: address and size
        self._file, self._model = _File("dbt-originals", self._size), _File("dbt-model", self._size)
        self._model.keep_unchanged()
        self._model.show()
        copy = HostRange(self._size, reserve=True)
        copy.map_file(0, self._size, self._file.handle, shared=True)
        at = 0
        for one in found:
            put(None, one.address, one.size, copy.address + at, self._file.handle, at, self._mmap)
            self._addresses.append((one.address, one.size))
            at += one.size
        copy.close()
        seal(self._file.handle)
        self._file.show()
        self._file.touch()

    # -- in a process that was forked ------------------------------------------------------------

    def keep_maps_open(self) -> None:
        """Open what tells how memory is mapped in this process, which cannot do so later."""
        self._maps = os.open(_MAPS, os.O_RDONLY | os.O_CLOEXEC)

    def drop_equal(self) -> int:
        """Give back the memory of this process that is equal to the original, or to the model if there is one. Return
        how many bytes that is.

        Nothing happens in a process with another thread, which might write meanwhile.
        """
        if self._maps < 0 or threading.active_count() > 1:
            return 0
        files = [self._file, self._model] if self._model.is_sealed else [self._file]
        pages = 0
        for one, own in self._heap():
            marks = own_pages(Hva(one.address), one.size)
            buffer = (ctypes.c_ubyte * len(marks)).from_buffer(marks)
            place = None, one.address, len(marks), ctypes.addressof(buffer)
            for file in files:
                if file is own:
                    pages += self._drop(*place, file.at(one.offset), self._madvise)
                else:
                    pages += self._map(*place, file.at(one.offset), file.handle, one.offset, self._mmap)
        return pages * PAGESIZE

    def written(self) -> int:
        """Return a file in memory that says which pages this process has for itself now: those that each writes to that
        does the same (:meth:`copied_ahead`). The caller closes it.
        """
        runs = []
        for one, _ in self._heap():
            first = one.offset // PAGESIZE
            found = _RUN.finditer(own_pages(Hva(one.address), one.size))
            runs += [(first + run.start(), first + run.end()) for run in found]
        file = os.memfd_create("dbt-pages", os.MFD_CLOEXEC)
        os.pwrite(file, array("I", [page for run in sorted(runs) for page in run]).tobytes(), 0)
        return file

    def own_heap(self) -> int:
        """Return a file in memory with what this process has for itself, in the places of the originals, from which
        a model can be made. The caller closes it.
        """
        if self._maps < 0:
            raise RuntimeError("this process has kept nothing open by which it could look at its memory")
        file = os.memfd_create("dbt-heap", os.MFD_CLOEXEC)
        os.ftruncate(file, self._size)
        for one, _ in self._heap():
            for number, is_own in enumerate(own_pages(Hva(one.address), one.size)):
                if is_own:
                    at = number * PAGESIZE
                    os.pwrite(file, ctypes.string_at(one.address + at, PAGESIZE), one.offset + at)
        return file

    def _heap(self) -> Iterator[tuple[_Mapping, _File]]:
        """Yield the mappings of the originals and of the model, each with its file."""
        for one in _mappings(_lines(self._maps)):
            for file in (self._file, self._model):
                if one.name.startswith(file.name) and one.address != file.at(one.offset):
                    yield one, file

    def copy_pages(self, places: array[int]) -> None:
        """Have pages for itself before it writes to them: :meth:`copied_ahead`. A host that cannot do
        that, with a Linux before 5.14, copies each when it is written to.
        """
        for at in range(0, len(places), 2):
            if self._populate(places[at], places[at + 1], _MADV_POPULATE_WRITE):
                return

    # -- in the process from which others are forked -----------------------------------------------

    def copied_ahead(self, written: int) -> array[int]:
        """Return address and size of each part of the memory that is in an answer to :meth:`written`, in turn. Raise
        ValueError for what is none.
        """
        ends = array("I", os.pread(written, 2 * self._size // PAGESIZE * array("I").itemsize, 0))
        found, last, base = array("Q"), 0, 0
        mappings = iter(self._addresses)
        address, size = next(mappings)
        for at in range(0, len(ends) - 1, 2):
            start, end = ends[at] * PAGESIZE, ends[at + 1] * PAGESIZE
            if not last <= start < end <= self._size:
                raise ValueError("pages that are none of the memory of this process")
            last = end
            while start < end:
                while start >= base + size:
                    base += size
                    address, size = next(mappings)
                part = min(end, base + size) - start
                found.extend((address + start - base, part))
                start += part
        return found

    def take_model(self, heap: int) -> None:
        """Have a model: what a process has answered to :meth:`own_heap`. Raise ValueError if there is one already, or
        for a file that can be none.
        """
        if self._model.is_sealed:
            raise ValueError("there is a model already")
        if (size := os.fstat(heap).st_size) != self._size:
            raise ValueError(f"a model of {size} bytes for memory of {self._size}")
        file = self._model.writer()
        try:
            for start, end in _data(heap, size):
                for at in range(start, end, _PIECE):
                    os.pwrite(file, os.pread(heap, min(_PIECE, end - at), at), at)
            seal(file)
        finally:
            os.close(file)


def _data(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a file of ``size`` bytes that are no holes: each as its start and its end."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there are only holes
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def _function(native: NativeCode, name: str, *arguments: Any) -> Any:
    """Return a function that is called without giving others a chance to execute."""
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *arguments)(native.entry(name))


def _address_of(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def _mappings(lines: Iterable[bytes]) -> Iterator[_Mapping]:
    """Yield the mappings of proc(5)'s ``maps`` that are private and can be written to."""
    for line in lines:
        found = _MAPPING.match(line)
        if found is not None:
            start, end, offset, name = found.groups()
            address = int(start, 16)
            yield _Mapping(address, int(end, 16) - address, int(offset, 16), name)


def _is_heap(one: _Mapping) -> bool:
    """Whether it is the C library's heap or Python's, or variables of a library. Files in memory are no heap."""
    return _LEAST <= one.size <= _MOST and one.name != b"[stack]" and not one.name.startswith(b"/memfd:")


def _lines(file: int) -> Iterator[bytes]:
    """Yield the lines of a file from its beginning, and keep little of it in memory."""
    os.lseek(file, 0, os.SEEK_SET)
    rest = b""
    while piece := os.read(file, _LITTLE):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
