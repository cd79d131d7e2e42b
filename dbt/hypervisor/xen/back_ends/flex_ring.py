"""A pair of rings of bytes over several pages (DEFINE_XEN_FLEX_RING of xen/include/public/io/ring.h).

A page of the guest's has the indices, and names the pages of the rings. The first half of these is what the back end
writes, the second one what it reads. Indices only grow, and are taken modulo the size. Numbers of pages are copied when
the rings are opened; indices that no front end would write raise RingError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import Stateful, Wiring, Word
from dbt.hypervisor.xen.back_ends.shared_ring import RingError
from dbt.hypervisor.xen.grant_table import GrantTable

_U32: Final = struct.Struct("<I")
_WORD: Final = 0xFFFFFFFF
#: Where the page has its indices, the logarithm of the number of pages, and their grants.
_IN_CONS, _IN_PROD, _OUT_CONS, _OUT_PROD, _ORDER, _PAGES = 0, 4, 64, 68, 128, 132
#: The logarithm of the number of pages at most.
LARGEST_ORDER: Final = 6


@dataclass(eq=False)
class FlexRing(Stateful):
    """The rings. While they are open, ``pages`` are grants: of the page with the indices, and of those with bytes.

    ``taken`` and ``given`` count bytes that were read and written, modulo 2^32. Methods raise GrantError if the guest
    does not grant one of the pages any more.
    """

    grants: Wiring[GrantTable]
    pages: list[Word] = field(default_factory=list)
    taken: Word = 0
    given: Word = 0

    def is_possible(self) -> bool:
        return len(self.pages) in (0, *(1 + (1 << order) for order in range(1, LARGEST_ORDER + 1)))

    @property
    def is_open(self) -> bool:
        return bool(self.pages)

    @property
    def size(self) -> int:
        """The bytes of each of the two rings."""
        return len(self.pages) // 2 << PAGE_SHIFT

    def open(self, reference: int) -> None:
        """Begin with the rings that a granted page describes."""
        self._hold(reference)
        order = self._word(_ORDER)
        if not 1 <= order <= LARGEST_ORDER:
            raise RingError(f"rings of 2^{order} pages; at most 2^{LARGEST_ORDER} were offered")
        count = 1 << order
        for one in struct.unpack(f"<{count}I", self.grants.read(reference, _PAGES, 4 * count)):
            self._hold(one)
        self.taken, self.given = self._word(_OUT_CONS), self._word(_IN_PROD)

    def _hold(self, reference: int) -> None:
        self.grants.hold(reference, writes=True)
        self.pages.append(reference)

    def close(self) -> None:
        """Give the pages back. A second call does nothing."""
        for reference in self.pages:
            self.grants.release(reference)
        self.pages = []
        self.taken = self.given = 0

    def _word(self, offset: int) -> int:
        return int.from_bytes(self.grants.read(self.pages[0], offset, 4), "little")

    def _difference(self, larger: int, smaller: int) -> int:
        found = larger - smaller & _WORD
        if found > self.size:
            raise RingError(f"a ring of {self.size} bytes has indices {smaller} and {larger}")
        return found

    @property
    def waiting(self) -> int:
        """How many bytes can be read."""
        return self._difference(self._word(_OUT_PROD), self.taken)

    @property
    def room(self) -> int:
        """How many bytes can be written."""
        return self.size - self._difference(self.given, self._word(_IN_CONS))

    def look(self, count: int) -> bytes:
        """Return the next bytes, which are not more than :attr:`waiting`, and leave them there."""
        read = self.grants.read
        return b"".join([read(*place) for place in self._places(self.size, self.taken, count)])

    def take(self, count: int) -> bytes:
        """Take the next bytes, which are not more than :attr:`waiting`."""
        data = self.look(count)
        self.taken = self.taken + count & _WORD
        self.grants.write(self.pages[0], _OUT_CONS, _U32.pack(self.taken))
        return data

    def give(self, data: bytes) -> None:
        """Write bytes, which are not more than there is :attr:`room` for."""
        at = 0
        for reference, offset, length in self._places(0, self.given, len(data)):
            self.grants.write(reference, offset, data[at : at + length])
            at += length
        self.given = self.given + len(data) & _WORD
        self.grants.write(self.pages[0], _IN_PROD, _U32.pack(self.given))

    def _places(self, base: int, index: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield where bytes of a ring are that begins ``base`` bytes behind the first: grant, offset and size."""
        while count:
            at = index % self.size
            page, offset = divmod(base + at, PAGE_SIZE)
            length = min(count, PAGE_SIZE - offset)
            yield self.pages[1 + page], offset, length
            index, count = index + length, count - length
