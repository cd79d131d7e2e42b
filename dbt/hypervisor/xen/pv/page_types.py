"""What the pages of a para-virtual guest are: a table or writable, and never both. After Xen's types of pages on x86.

A page has a type as long as somebody refers to it as that: writable mappings, descriptors that name a table, and pins.
What a table says is checked when it becomes one and at each change, so the processor can use it as it is. Mappings that
cannot write are not counted.

Of the short descriptors of ARMv7 a guest can have tables of 1 KiB, and pages of 4 KiB that are accessible in user mode.
A second-level table's page has four tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.shared import shared
from dbt.devices.state import Byte, Stateful, Wiring, Word
from dbt.hypervisor.xen.interface import Errno, HypercallError
from dbt.memory.dma import Dma

#: The types. NONE is of pages that nobody refers to.
NONE, WRITABLE, LEAF, ROOT = range(4)
#: The domains (of the MMU) that a guest's tables can have: of processes, and of the kernel.
PROCESS_DOMAIN, KERNEL_DOMAIN = 0, 1
#: The largest guest, in pages.
MOST_PAGES: Final = 1 << 14
#: So many tables may become tables by one hypercall. Others have to be pinned before.
_MOST_NEW: Final = 64

_KIND: Final = 3
_TABLE, _PAGE, _PAGE_XN = 1, 2, 3
_PXN, _NS, _SBZ, _DOMAIN_SHIFT = 1 << 2, 1 << 3, 1 << 4, 5
_AP: Final = 0x230  # APX and AP
_AP_READ, _AP_WRITE = 0x020, 0x030  # for user mode
_FRAME: Final = ~(PAGE_SIZE - 1) & 0xFFFFFFFF
TABLES: Final = frozenset({LEAF, ROOT})
_DOMAINS: Final = frozenset({PROCESS_DOMAIN, KERNEL_DOMAIN})
_PAGES: Final = frozenset({_PAGE, _PAGE_XN})
_ACCESSIBLE: Final = frozenset({_AP_READ, _AP_WRITE})
_RESERVED_OF_TABLE: Final = _PXN | _NS | _SBZ
_EINVAL, _EPERM, _EBUSY = int(Errno.EINVAL), int(Errno.EPERM), int(Errno.EBUSY)


@shared
@dataclass(eq=False)
class PageTypes(Stateful):
    """``types`` and ``counts`` are those of the pages of RAM, and empty until the guest begins. ``shared`` is a page
    outside RAM that the guest can map.

    Methods that can fail return an error number, or 0: they are compiled for native code, too.
    """

    dma: Wiring[Dma]
    shared: Wiring[int]
    types: list[Byte] = field(default_factory=list, metadata={"apart": True})
    counts: list[Word] = field(default_factory=list, metadata={"apart": True})
    #: Of the present hypercall: whether valid descriptors were changed, whether pages can be executed that could not,
    #: and how many pages have become tables.
    flushes: Wiring[bool] = False
    executables: Wiring[bool] = False
    new: Wiring[int] = 0
    #: The number of the first page of RAM.
    first: Wiring[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.first = self.dma.layout.main.base >> PAGE_SHIFT

    def is_possible(self) -> bool:
        size = self.dma.layout.main.size >> PAGE_SHIFT
        return (
            len(self.types) == len(self.counts)
            and len(self.types) in (0, size)
            and all(
                kind <= ROOT and bool(kind) == bool(count) for kind, count in zip(self.types, self.counts, strict=True)
            )
        )

    def begin(self) -> None:
        """Know the pages of RAM. Raise HypercallError if they are too many."""
        size = self.dma.layout.main.size >> PAGE_SHIFT
        if size > MOST_PAGES:
            raise HypercallError(Errno.ENOMEM)
        self.types, self.counts = [NONE] * size, [0] * size

    def end(self) -> None:
        """Know nothing any more."""
        self.types, self.counts = [], []

    def begin_call(self) -> None:
        """A hypercall begins."""
        self.flushes, self.executables, self.new = False, False, 0

    def index(self, page: int) -> int:
        """Return the number of the page of RAM that has an address, or -1 for anything else."""
        number = (page >> PAGE_SHIFT) - self.first
        return number if 0 <= number < len(self.types) else -1

    def type_of(self, page: int) -> int:
        """Return the type of a page; NONE for what is not the guest's RAM."""
        number = self.index(page)
        return NONE if number < 0 else self.types[number]

    def is_table(self, page: int) -> bool:
        return self.type_of(page) in TABLES

    def get(self, page: int, kind: int) -> int:
        """Refer to a page as something. It is an error if it is something else, or cannot be that."""
        number = self.index(page)
        if number < 0:
            return _EINVAL
        if self.counts[number]:
            if self.types[number] != kind:
                return _EINVAL
            self.counts[number] += 1
            return 0
        self.types[number], self.counts[number] = kind, 1
        if kind == WRITABLE:
            return 0
        self.new += 1
        error = _EBUSY if self.new > _MOST_NEW else self._refer_all(page, kind)
        if error:
            self.types[number], self.counts[number] = NONE, 0
        return error

    def put(self, page: int, kind: int) -> None:
        """Refer to a page as something no longer. Nothing happens if it is not that: a saved state may say that
        somebody refers to it who does not, and here native code writes where the index says.
        """
        number = self.index(page)
        if number < 0 or kind == NONE or self.types[number] != kind:
            return
        self.counts[number] -= 1
        if not self.counts[number]:
            self.types[number] = NONE
            if kind != WRITABLE:
                self._leave_all(page, page + PAGE_SIZE, kind)

    def change(self, at: int, entry: int) -> int:
        """Write a descriptor into a table. It is an error if there is no table, or that cannot be its entry."""
        kind = self.type_of(at)
        if not self.is_table(at):
            return _EINVAL
        error = self._refer(kind, entry) if entry else 0
        if error:
            return error
        before = self.dma.word(at)
        self.dma.put_word(at, entry)
        if kind == LEAF and entry & _KIND == _PAGE:
            self.executables = True
        if before:
            self.flushes = True
            self._leave(kind, before)
        return 0

    def _refer(self, kind: int, entry: int) -> int:
        """Check a descriptor of a table, and count what it refers to."""
        if kind == ROOT:
            if entry & _KIND != _TABLE or entry & _RESERVED_OF_TABLE:
                return _EINVAL
            if entry >> _DOMAIN_SHIFT & 15 not in _DOMAINS:
                return _EPERM
            return self.get(entry & _FRAME, LEAF)
        if entry & _KIND not in _PAGES or entry & _AP not in _ACCESSIBLE:
            return _EINVAL
        page = entry & _FRAME
        if page == self.shared:
            return 0
        if self.index(page) < 0:
            return _EINVAL
        return self.get(page, WRITABLE) if entry & _AP == _AP_WRITE else 0

    def _refer_all(self, page: int, kind: int) -> int:
        """Do :meth:`_refer` for all descriptors of a table, or for none if it is an error for one."""
        at, error, end = self.dma.first_used(page, page + PAGE_SIZE), 0, page + PAGE_SIZE
        while at < end and not error:
            error = self._refer(kind, self.dma.word(at))
            if error:
                self._leave_all(page, at, kind)
            else:
                at = self.dma.first_used(at + 4, end)
        return error

    def _leave(self, kind: int, entry: int) -> None:
        """Count that a descriptor refers to something no longer."""
        page = entry & _FRAME
        if kind == ROOT:
            self.put(page, LEAF)
        elif entry & _AP == _AP_WRITE and page != self.shared:
            self.put(page, WRITABLE)

    def _leave_all(self, page: int, end: int, kind: int) -> None:
        """Do :meth:`_leave` for the descriptors of a table up to an address."""
        at = self.dma.first_used(page, end)
        while at < end:
            self._leave(kind, self.dma.word(at))
            at = self.dma.first_used(at + 4, end)
