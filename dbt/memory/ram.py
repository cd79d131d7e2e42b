"""Guest RAM: regions anywhere in the 32-bit guest physical address space.

The host reserves one window of addresses for all of it, in which GPA 0 is at ``address`` whether there is RAM or not.
So the host address of a byte is ``address + gpa`` for every region, and RAM in one piece is as fast as without regions.
Only the regions have memory behind them. The page flags say which pages are RAM.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from dbt.abi.addresses import GPA_0, Gpa, Hva
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import GUEST_PAGES, PAGE_HAS_CODE, PAGE_RAM, PAGE_SHIFT, PAGE_SIZE, PAGE_WRITABLE
from dbt.memory.dirty_log import DirtyLog

_END = 1 << 32
#: 1 for the flags of a page that has a code page, 0 for others: RAM may have a million pages, nearly all without code.
_MARKS_OF_CODE = bytes(1 if flags & PAGE_HAS_CODE else 0 for flags in range(256))
#: A run of pages that are not detached.
_ATTACHED = re.compile(rb"\0+")
#: A part of so many bytes is worth a mapping of the host's, of which a process has 65,000. Linux gives 4 MiB at a time.
_LEAST_DETACHED = 256 << 10
_MOST_DETACHMENTS = 512
#: The size of the aligned runs in which RAMs share memory (:mod:`dbt.memory.sharing`).
SHARED_RUN = 64 << 10
_GIVEN_BACK, _POOLED = 1, 2
_OF_POOL = re.compile(rb"\x02+")
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_F_SEAL_FUTURE_WRITE = 0x10  # since Linux 5.1


class RamRegion(NamedTuple):
    """``size`` bytes of RAM from ``base`` on, both multiples of 4096.

    The guest's stores to a ``read_only`` region are ignored, as those to a ROM. The hypervisor can write to it.
    """

    base: Gpa
    size: int
    read_only: bool = False

    @property
    def end(self) -> int:
        """The address after the last byte, at most 2^32."""
        return self.base + self.size

    def __str__(self) -> str:
        base = f"{self.base:#x}" if self.base else "0"
        return f"[{base}, {self.end:#x}){' read-only' * self.read_only}"


class RamLayout:
    """Where a machine has RAM, as a value that never changes: ``regions`` in the order of their addresses.

    Raises ValueError for regions that a guest cannot have.
    """

    __slots__ = ("regions",)

    def __init__(self, regions: tuple[RamRegion, ...]) -> None:
        if not regions:
            raise ValueError("a machine needs at least one region of RAM")
        self.regions: Final = tuple(sorted(regions))
        for region in self.regions:
            if region.size <= 0 or region.size % PAGE_SIZE:
                raise ValueError(f"RAM size {region.size:#x} is not a positive multiple of {PAGE_SIZE:#x}")
            if region.base < 0 or region.base % PAGE_SIZE:
                raise ValueError(f"RAM cannot begin at {region.base:#x}, which is not a multiple of {PAGE_SIZE:#x}")
            if region.end > _END:
                raise ValueError(f"RAM at {region} does not fit into the guest's 32-bit physical address space")
        for before, after in pairwise(self.regions):
            if before.end > after.base:
                raise ValueError(f"the RAM regions {before} and {after} overlap")

    @classmethod
    def of(cls, memory: int | Sequence[RamRegion], base: Gpa = GPA_0) -> RamLayout:
        """Return the layout of a number of bytes from ``base`` on, or of these regions."""
        return cls((RamRegion(base, memory),) if isinstance(memory, int) else tuple(memory))

    @property
    def size(self) -> int:
        """The size of all regions together, in bytes."""
        return sum(region.size for region in self.regions)

    @property
    def end(self) -> int:
        """The address after the last region, at most 2^32."""
        return self.regions[-1].end

    @property
    def main(self) -> RamRegion:
        """The region for stacks and heaps: the largest that can be written to, of equal ones the lowest."""
        writable = [region for region in self.regions if not region.read_only]
        return max(writable or self.regions, key=lambda region: (region.size, -region.base))

    @property
    def flat(self) -> RamRegion | None:
        """The region, if there is exactly one and it can be written to, else None. One comparison then tells what
        is RAM.
        """
        return self.regions[0] if len(self.regions) == 1 and not self.regions[0].read_only else None

    def covers(self, gpa: Gpa, size: int) -> bool:
        """Return True if all of ``[gpa, gpa + size)`` is RAM, in one region or in several without a gap."""
        if gpa < 0 or size < 0:
            return False
        for base, length, _ in self.regions:
            left = base + length - gpa
            if 0 < left <= length:
                if size <= left:
                    return True
                size -= left
                gpa = Gpa(base + length)
        return not size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RamLayout) and self.regions == other.regions

    def __hash__(self) -> int:
        return hash(self.regions)

    def __repr__(self) -> str:
        return ", ".join(map(str, self.regions))


def data_parts(handle: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of ``[start, stop)`` where a file has data, as bounds. All others are zero."""
    while start < stop:
        try:
            start = os.lseek(handle, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # there is nothing more
                raise
            return
        end = os.lseek(handle, start, os.SEEK_HOLE)
        if start < stop:
            yield start, min(end, stop)
        start = end


class RamFile:
    """A file in memory in which the offset of a byte is its GPA, ``size`` bytes large (memfd_create(2)).

    It is zero but for ``parts``: GPA and size in bytes, in the order of their addresses. It is closed when nobody
    refers to it any more. Raises OSError if the host has no room for it.
    """

    def __init__(self, size: int) -> None:
        self.parts: list[tuple[int, int]] = []
        self.handle = os.memfd_create("dbt-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.handle, size)
        fcntl.fcntl(self.handle, fcntl.F_ADD_SEALS, _SIZE_SEALS)

    def write(self, gpa: Gpa, data: bytes | memoryview[int]) -> None:
        """Write whole pages, in the order of their addresses."""
        self.put(gpa, data)
        start, end = gpa, gpa + len(data)
        if self.parts and sum(self.parts[-1]) == gpa:
            start = Gpa(self.parts.pop()[0])
        self.parts.append((start, end - start))

    @classmethod
    def received(cls, handle: int, size: int) -> RamFile:
        """Return a file that another process has made and may still be writing. ``handle`` is the file's from now on.

        Raise ValueError unless it is one of this size that cannot become shorter.
        """
        file = cls.__new__(cls)
        file.parts, file.handle = [], handle
        try:
            seals = fcntl.fcntl(handle, fcntl.F_GET_SEALS)
            if seals & _SIZE_SEALS == _SIZE_SEALS and os.fstat(handle).st_size == size:
                return file
        except OSError:  # it is a file of another kind
            pass
        raise ValueError(f"it is no file in memory of {size:,} bytes that keeps its size")

    def put(self, gpa: Gpa, data: bytes | memoryview[int]) -> None:
        """Write whole pages in any order. :meth:`find_parts` follows the last one."""
        written = 0
        while written < len(data):
            written += os.pwrite(self.handle, data[written:] if written else data, gpa + written)

    def get(self, gpa: Gpa, size: int) -> bytes:
        """Return bytes of the file. Raise OSError."""
        data = os.pread(self.handle, size, gpa)
        while len(data) < size:
            data += os.pread(self.handle, size - len(data), gpa + len(data))
        return data

    def find_parts(self) -> None:
        """Find out which parts are not zero."""
        self.parts = list(self.data())

    def stop_writing(self) -> None:
        """Let nobody write to it any more, whoever has it open. Raise OSError if somebody has mapped it to write."""
        fcntl.fcntl(self.handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)

    @property
    def is_written(self) -> bool:
        """True if somebody may still write to it."""
        return not fcntl.fcntl(self.handle, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE

    @property
    def is_frozen(self) -> bool:
        """True if nobody can write to it but by what was mapped before."""
        return bool(fcntl.fcntl(self.handle, fcntl.F_GET_SEALS) & (fcntl.F_SEAL_WRITE | _F_SEAL_FUTURE_WRITE))

    def parts_within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield where the parts that overlap ``[start, end)`` begin and end in it."""
        first = bisect_right(self.parts, (start, _END))
        for at, size in self.parts[max(0, first - 1) :]:
            if at >= end:
                return
            if at + size > start:
                yield max(at, start), min(at + size, end)

    def data(self) -> Iterator[tuple[int, int]]:
        """Yield GPA and size of the parts for which the host has pages. All others are zero."""
        for start, end in data_parts(self.handle, 0, _END):
            yield start, end - start

    def seal(self) -> None:
        """Let nobody change it any more, not even by another descriptor.

        There is no mapping by which it could be written. So it is enough that none can be made, which takes no time;
        F_SEAL_WRITE has the kernel look at all pages, and often wait for some milliseconds.
        """
        try:
            fcntl.fcntl(self.handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | _F_SEAL_FUTURE_WRITE)
        except OSError:
            fcntl.fcntl(self.handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


class Pool:
    """A file in memory with runs that RAMs share, each of :data:`SHARED_RUN` bytes, by their places."""

    def __init__(self, runs: int) -> None:
        self._file = RamFile(max(runs, 1) * SHARED_RUN)

    def write(self, place: int, data: memoryview[int]) -> None:
        """Write a run, which is not mapped yet. Places are written in their order."""
        self._file.write(Gpa(place * SHARED_RUN), data)

    @property
    def handle(self) -> int:
        return self._file.handle


class Ram:
    """The RAM of one machine, zeroed. ``memory`` is its size in bytes, from address 0 on, or its regions.

    ``bytes`` is a writable view in which a byte's index is its GPA. Access to it where there is no RAM is a crash.
    ``address`` is the HVA of GPA 0. ``page_flags`` has a byte for each page of the guest physical address space, and
    one more: see :data:`dbt.abi.layout.PAGE_RAM`. ``dirty_log`` knows what was written since when.
    Raises ValueError for regions that make no sense, and OSError if the host has no room for them.
    """

    def __init__(self, memory: int | Sequence[RamRegion]) -> None:
        self.layout = layout = RamLayout.of(memory)
        self.size, self.end = layout.size, layout.end
        self._window = HostRange(self.end, reserve=True)
        self._flags = HostRange(GUEST_PAGES + 1)
        self.page_flags = self._flags.view()
        for region in layout.regions:
            self._window.commit(region.base, region.size)
            flags = PAGE_RAM if region.read_only else PAGE_RAM | PAGE_WRITABLE
            first = region.base >> PAGE_SHIFT
            pages = region.size >> PAGE_SHIFT
            self.page_flags[first : first + pages] = bytes([flags]) * pages
        self.bytes = self._window.view()
        self.dirty_log = DirtyLog(self.size, self.bytes, self.page_flags)
        #: What RAM was mapped from, if that is so.
        self.file: RamFile | None = None
        #: Where it is kept, if that is a file: see :meth:`keep_in_file`.
        self.home: RamFile | None = None
        #: Not 0 for pages that show nothing of :attr:`file`: 1 for those that were given back, and have memory of their
        #: own since, 2 for those that are mapped from a pool.
        self.detached = bytearray()
        self._detachments = 0

    def map_file(self, file: RamFile) -> None:
        """Hold what a file holds. Stores do not change it. Raise OSError if the host refuses, after which the content
        is undefined. The dirty log does not hear of it.
        """
        for region in self.layout.regions:
            self._window.map_file(region.base, region.size, file.handle)
        self.file, self.home = file, None
        self.detached, self._detachments = bytearray(), 0

    def keep_in_file(self) -> None:
        """Be kept in a file in memory from now on, so that :meth:`freeze` copies nothing. Raise OSError.

        The first store to each page takes 1 us longer, and a forked process has no such RAM. Precondition: RAM is zero.
        """
        file = RamFile(self.end)
        for region in self.layout.regions:
            self._window.map_file(region.base, region.size, file.handle, shared=True)
        self.home = file

    def freeze(self) -> RamFile | None:
        """Return a file of what RAM holds, which stores do not change any more. None if RAM is not kept in a file.

        Raise OSError if the host refuses, after which the content is undefined.
        """
        file = self.home
        if file is not None:
            file.find_parts()
            self.map_file(file)
        return file

    def give_back(self, gpa: Gpa, size: int) -> None:
        """Make whole pages of RAM zero, and give their memory back to the host. The dirty log does not hear of it.

        What others share of :attr:`file` stays there, but this RAM does not show it any more.
        """
        if self.home is not None:
            self._window.discard_shared(gpa, size)
            return
        self._window.discard(gpa, size)
        for run in _OF_POOL.finditer(self.detached, gpa >> PAGE_SHIFT, gpa + size >> PAGE_SHIFT):
            self.bytes[run.start() << PAGE_SHIFT : run.end() << PAGE_SHIFT] = bytes(len(run[0]) << PAGE_SHIFT)
        if self.file is not None:  # whose content has come back now
            for start, end in self.file.parts_within(gpa, gpa + size):
                self._detach(start, end)

    def map_pool(self, gpa: Gpa, pool: Pool, place: int, count: int) -> None:
        """Hold ``count`` runs of a pool from ``place`` on, which are equal to what is held. Stores do not change it.

        Raise OSError if the host refuses. Precondition: RAM is not kept in a file.
        """
        size = count * SHARED_RUN
        self._window.map_file(gpa, size, pool.handle, at=place * SHARED_RUN)
        if not self.detached:
            self.detached = bytearray(self.end >> PAGE_SHIFT)
        self.detached[gpa >> PAGE_SHIFT : gpa + size >> PAGE_SHIFT] = bytes([_POOLED]) * (size >> PAGE_SHIFT)

    def is_pooled(self, page: int) -> bool:
        """Return True if a page, by its number, is mapped from a pool."""
        return bool(self.detached) and self.detached[page] == _POOLED

    def _detach(self, start: int, end: int) -> None:
        """Make a part zero that is mapped from :attr:`file`, and has no private pages.

        A mapping of its own costs nothing. But the host limits their number, so there are few, and small parts are
        written over.
        """
        if not self.detached:
            self.detached = bytearray(self.end >> PAGE_SHIFT)
        first, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
        for run in _ATTACHED.finditer(self.detached, first, last):
            at, size = run.start() << PAGE_SHIFT, run.end() - run.start() << PAGE_SHIFT
            if size < _LEAST_DETACHED or self._detachments == _MOST_DETACHMENTS:
                self.bytes[at : at + size] = bytes(size)
                continue
            self._window.map_zeros(at, size)
            self._detachments += 1
            self.detached[run.start() : run.end()] = bytes([_GIVEN_BACK]) * len(run[0])

    @property
    def address(self) -> Hva:
        return self._window.address

    @property
    def page_flags_address(self) -> Hva:
        return self._flags.address

    def __contains__(self, gpa: Gpa) -> bool:
        return 0 <= gpa < _END and bool(self.page_flags[gpa >> PAGE_SHIFT] & PAGE_RAM)

    def pages_with_code(self) -> Iterator[int]:
        """Return the numbers of the pages that have a code page, in order."""
        for region in self.layout.regions:
            first = region.base >> PAGE_SHIFT
            marks = self.page_flags[first : region.end >> PAGE_SHIFT].tobytes().translate(_MARKS_OF_CODE)
            number = marks.find(1)
            while number >= 0:
                yield first + number
                number = marks.find(1, number + 1)

    def close(self) -> None:
        """Release the memory now. ``bytes`` and ``page_flags`` raise ValueError afterwards; what a user has made of
        them, such as a slice, shows zeros.
        """
        self.file = self.home = None
        self.dirty_log.close()
        self._window.close_views(self.bytes)
        self._flags.close_views(self.page_flags)
