"""What the pages of a para-virtual guest are: a table or writable, and never both. After Xen's types of pages on x86.

A page has a type as long as somebody refers to it as that: writable mappings, descriptors that name a table, and pins.
What a table says is checked when it becomes one and at each change, so the processor can use it as it is. Mappings that
cannot write are not counted.

Of the short descriptors of ARMv7 a guest can have tables of 1 KiB, and pages of 4 KiB that are accessible in user mode.
A second-level table's page has four tables.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import Byte, Stateful, Wiring, Word
from dbt.hypervisor.xen.interface import Errno, HypercallError
from dbt.memory.dma import Dma
from dbt.memory.ram import RamRegion

#: The types. NONE is of pages that nobody refers to.
NONE, WRITABLE, LEAF, ROOT = range(4)
#: The domains (of the MMU) that a guest's tables can have: of processes, and of the kernel.
PROCESS_DOMAIN, KERNEL_DOMAIN = 0, 1
#: The largest guest, in pages.
MOST_PAGES: Final = 1 << 14
#: So many tables may become tables by one hypercall. Others have to be pinned before.
_MOST_NEW: Final = 64

_ENTRIES = struct.Struct(f"<{PAGE_SIZE // 4}I")
_NOTHING: Final = bytes(PAGE_SIZE)
_KIND: Final = 3
_TABLE, _PAGE, _PAGE_XN = 1, 2, 3
_PXN, _NS, _SBZ, _DOMAIN_SHIFT = 1 << 2, 1 << 3, 1 << 4, 5
_AP: Final = 0x230  # APX and AP
_AP_READ, _AP_WRITE = 0x020, 0x030  # for user mode
_FRAME: Final = ~(PAGE_SIZE - 1) & 0xFFFFFFFF


@dataclass(eq=False)
class PageTypes(Stateful):
    """``types`` and ``counts`` are those of the pages of RAM, and empty until the guest begins. ``shared`` is a page
    outside RAM that the guest can map.
    """

    dma: Wiring[Dma]
    shared: Wiring[Gpa]
    types: list[Byte] = field(default_factory=list)
    counts: list[Word] = field(default_factory=list)
    #: Of the present hypercall: whether valid descriptors were changed, whether pages can be executed that could not,
    #: and how many pages have become tables.
    flushes: Wiring[bool] = False
    executables: Wiring[bool] = False
    new: Wiring[int] = 0
    _ram: Wiring[RamRegion] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ram = self.dma.layout.main

    def is_possible(self) -> bool:
        size = self._ram.size >> PAGE_SHIFT
        return (
            len(self.types) == len(self.counts)
            and len(self.types) in (0, size)
            and all(
                kind <= ROOT and bool(kind) == bool(count) for kind, count in zip(self.types, self.counts, strict=True)
            )
        )

    def begin(self) -> None:
        """Know the pages of RAM. Raise HypercallError if they are too many."""
        size = self._ram.size >> PAGE_SHIFT
        if size > MOST_PAGES:
            raise HypercallError(Errno.ENOMEM)
        self.types, self.counts = [NONE] * size, [0] * size

    def end(self) -> None:
        """Know nothing any more."""
        self.types, self.counts = [], []

    def begin_call(self) -> None:
        """A hypercall begins."""
        self.flushes, self.executables, self.new = False, False, 0

    def index(self, page: Gpa) -> int:
        """Return the number of a page of RAM. Raise HypercallError for anything else."""
        number = (page >> PAGE_SHIFT) - (self._ram.base >> PAGE_SHIFT)
        if not 0 <= number < len(self.types):
            raise HypercallError(Errno.EINVAL)
        return number

    def type_of(self, page: Gpa) -> int:
        """Return the type of a page. Raise HypercallError if it is not the guest's RAM."""
        return self.types[self.index(page)]

    def get(self, page: Gpa, kind: int) -> None:
        """Refer to a page as something. Raise HypercallError if it is something else, or cannot be that."""
        number = self.index(page)
        if self.counts[number]:
            if self.types[number] != kind:
                raise HypercallError(Errno.EINVAL)
            self.counts[number] += 1
            return
        self.types[number], self.counts[number] = kind, 1
        if kind == WRITABLE:
            return
        self.new += 1
        done: list[int] = []
        try:
            if self.new > _MOST_NEW:
                raise HypercallError(Errno.EBUSY)
            for entry in self._entries(page):
                self._refer(kind, entry)
                done.append(entry)
        except HypercallError:
            for entry in done:
                self._leave(kind, entry)
            self.types[number], self.counts[number] = NONE, 0
            raise

    def put(self, page: Gpa) -> None:
        """Refer to a page no longer."""
        number = self.index(page)
        self.counts[number] -= 1
        if self.counts[number]:
            return
        kind, self.types[number] = self.types[number], NONE
        if kind != WRITABLE:
            for entry in self._entries(page):
                self._leave(kind, entry)

    def _entries(self, page: Gpa) -> list[int]:
        """Return the descriptors of a table but for those that are 0."""
        data = self.dma.read(page, PAGE_SIZE)
        return [] if data == _NOTHING else list(filter(None, _ENTRIES.unpack(data)))

    def change(self, at: Gpa, entry: int) -> None:
        """Write a descriptor into a table. Raise HypercallError if there is no table, or that cannot be its entry."""
        kind = self.type_of(Gpa(at & _FRAME))
        if kind not in (LEAF, ROOT):
            raise HypercallError(Errno.EINVAL)
        before = int.from_bytes(self.dma.view(at, 4), "little")
        if entry:
            self._refer(kind, entry)
        self.dma.write(at, entry.to_bytes(4, "little"))
        self.executables |= kind == LEAF and entry & _KIND == _PAGE
        if before:
            self.flushes = True
            self._leave(kind, before)

    def _refer(self, kind: int, entry: int) -> None:
        """Check a descriptor of a table, and count what it refers to."""
        if kind == ROOT:
            if entry & _KIND != _TABLE or entry & (_PXN | _NS | _SBZ):
                raise HypercallError(Errno.EINVAL)
            if entry >> _DOMAIN_SHIFT & 15 not in (PROCESS_DOMAIN, KERNEL_DOMAIN):
                raise HypercallError(Errno.EPERM)
            self.get(Gpa(entry & _FRAME), LEAF)
            return
        if entry & _KIND not in (_PAGE, _PAGE_XN) or entry & _AP not in (_AP_READ, _AP_WRITE):
            raise HypercallError(Errno.EINVAL)
        page = Gpa(entry & _FRAME)
        if page == self.shared:
            return
        self.index(page)
        if entry & _AP == _AP_WRITE:
            self.get(page, WRITABLE)

    def _leave(self, kind: int, entry: int) -> None:
        """Count that a descriptor refers to something no longer."""
        page = Gpa(entry & _FRAME)
        if kind == ROOT or (entry & _AP == _AP_WRITE and page != self.shared):
            self.put(page)
