"""The ring of requests and responses that a front end and a back end share (xen/include/public/io/ring.h).

It is a page of the guest's, which is granted to the back end. Requests and responses use the same entries. Indices only
grow, and are taken modulo the number of entries. Everything there is the guest's: a request is copied once, and indices
that no front end would write raise RingError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.devices.state import Stateful, Wiring, Word
from dbt.hypervisor.xen.grant_table import GrantTable

#: req_prod is at the beginning, req_event, rsp_prod and rsp_event behind it.
_REQ_EVENT, _RSP_PROD, _RSP_EVENT, _ENTRIES = 4, 8, 12, 64
_WORD: Final = 0xFFFFFFFF


class RingError(ValueError):
    """Raised for a ring that no front end would write. The text says what is wrong."""


def entries_of(entry: int) -> int:
    """Return how many entries of so many bytes a ring of a page has: a power of two."""
    return 1 << ((PAGE_SIZE - _ENTRIES) // entry).bit_length() - 1


@dataclass(eq=False)
class SharedRing(Stateful):
    """A ring with entries of ``entry`` bytes. ``reference`` is its grant while it is open.

    ``taken`` and ``answered`` count requests and responses, modulo 2^32. Methods raise GrantError if the guest does not
    grant the page any more.
    """

    grants: Wiring[GrantTable]
    entry: Wiring[int]
    is_open: bool = False
    reference: Word = 0
    taken: Word = 0
    answered: Word = 0
    size: Wiring[int] = field(init=False)

    def __post_init__(self) -> None:
        self.size = entries_of(self.entry)

    def is_possible(self) -> bool:
        return (self.taken - self.answered & _WORD) <= self.size

    def open(self, reference: int) -> None:
        """Begin with the ring in a page that is granted to be written."""
        self.grants.hold(reference, writes=True)
        self.is_open, self.reference = True, reference
        self.taken = self.answered = self.grants.dma.word(self.grants.locate(reference, writes=True) + _RSP_PROD)

    def close(self) -> None:
        """Give the page back. A second call does nothing."""
        if self.is_open:
            self.is_open = False
            self.grants.release(self.reference)
        self.taken = self.answered = 0

    def holds(self) -> list[int]:
        """Return the grants that the ring holds."""
        return [self.reference] if self.is_open else []

    @property
    def waiting(self) -> int:
        """How many requests have not been taken. Raise RingError if that cannot be."""
        return self._waiting_at(self.grants.locate(self.reference, writes=False))

    def _waiting_at(self, page: Gpa) -> int:
        written = self.grants.dma.word(page)
        if (written - self.answered & _WORD) > self.size or (written - self.taken & _WORD) > self.size:
            raise RingError(f"a ring of {self.size} entries has requests up to {written}, after {self.answered}")
        return written - self.taken & _WORD

    def take(self, most: int, wants: int = 0) -> list[bytes]:
        """Return a copy of the next requests, at most so many. Ask for an event when ``wants`` more of them wait, if
        that is not 0.
        """
        page, dma = self.grants.locate(self.reference, writes=bool(wants)), self.grants.dma
        count = min(self._waiting_at(page), most)
        found = []
        for number in range(self.taken, self.taken + count):
            found.append(dma.read(page + _ENTRIES + number % self.size * self.entry, self.entry))
        self.taken = self.taken + count & _WORD
        if wants:
            dma.put_word(page + _REQ_EVENT, self.taken + wants & _WORD)
        return found

    def want(self, count: int) -> None:
        """Ask for an event when so many requests wait that have not been taken."""
        page = self.grants.locate(self.reference, writes=True)
        self.grants.dma.put_word(page + _REQ_EVENT, self.taken + count & _WORD)

    def answer(self, responses: Sequence[bytes]) -> bool:
        """Write responses, of at most the size of an entry. Return whether the front end wants an event for them."""
        before, dma = self.answered, self.grants.dma
        page = self.grants.locate(self.reference, writes=True)
        for response in responses:
            dma.write(page + _ENTRIES + self.answered % self.size * self.entry, response)
            self.answered = self.answered + 1 & _WORD
        dma.put_word(page + _RSP_PROD, self.answered)
        wanted = dma.word(page + _RSP_EVENT)
        return (self.answered - wanted & _WORD) < (self.answered - before & _WORD)
