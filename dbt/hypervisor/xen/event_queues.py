"""How pending events are put where the guest finds them: as bits in the shared page, or in queues (the FIFO ABI).

The layouts are those of xen/include/public/event_channel.h. A guest begins with the bits (two levels: a bit for each
port, and one for each word of such bits). It may change to queues, once: then each port has a word in an event array,
and words of pending ports are linked in the order of their events, in one queue for each priority. Array and control
block are pages of the guest's, which changes them as it likes: nothing that is read there is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.devices.shared import shared
from dbt.devices.state import Byte, Part, Stateful, Wiring, Word
from dbt.hypervisor.xen.interface import Errno, HypercallError
from dbt.hypervisor.xen.shared_page import MASK_BITS, PENDING_BITS, SharedPage, kept
from dbt.memory.dma import Dma

#: The ports of a domain are below this, as the toolstack's default has it.
PORTS: Final = 1024
_PENDING, _MASKED, _LINKED, _BUSY = 1 << 31, 1 << 30, 1 << 29, 1 << 28
LINK_BITS: Final = 17
_LINK: Final = (1 << LINK_BITS) - 1
QUEUES: Final = 16
DEFAULT_PRIORITY, LOWEST_PRIORITY = 7, 15
#: The control block: a bit for each queue that is not empty, and the first port of each.
_CONTROL_BYTES: Final = 8 + 4 * QUEUES
_HEADS: Final = 8
_WORDS_PER_PAGE: Final = PAGE_SIZE // 4
_MOST_PAGES: Final = (1 << LINK_BITS) // _WORDS_PER_PAGE
_SELECTED_BITS: Final = 64


@shared
@dataclass(eq=False)
class EventQueues(Stateful):
    """Pending events. ``control`` is where the control block is, or 0 while the guest uses bits.

    ``tails`` are the last ports of the queues. ``priorities`` are those of the ports, ``queued`` the queues that they
    were in last. ``early`` says of each port whether it has become pending before there was a word for it.
    """

    dma: Wiring[Dma]
    shared: Part[SharedPage] = field(metadata={"count": 1})
    control: Word = 0
    pages: list[Word] = field(default_factory=list, metadata={"room": _MOST_PAGES})
    tails: list[Word] = field(default_factory=lambda: [0] * QUEUES)
    priorities: list[Byte] = field(default_factory=lambda: [DEFAULT_PRIORITY] * PORTS)
    queued: list[Byte] = field(default_factory=lambda: [DEFAULT_PRIORITY] * PORTS)
    early: list[bool] = field(default_factory=lambda: [False] * PORTS)

    def is_possible(self) -> bool:
        covers = self.dma.layout.covers
        return (
            (len(self.tails), len(self.priorities), len(self.queued), len(self.early)) == (QUEUES, PORTS, PORTS, PORTS)
            and max(self.tails) < PORTS
            and max(*self.priorities, *self.queued) <= LOWEST_PRIORITY
            and len(self.pages) <= _MOST_PAGES
            and all(not page % PAGE_SIZE and covers(Gpa(page), PAGE_SIZE) for page in self.pages)
            and (not self.control or covers(Gpa(self.control), _CONTROL_BYTES))
        )

    # -- the guest's choice of the ABI ---------------------------------------------------------

    def use_queues(self, page: Gpa, offset: int, port_count: int) -> None:
        """Use queues from now on, with the control block there. Raise HypercallError if that cannot be."""
        if offset > PAGE_SIZE - _CONTROL_BYTES or offset & 7 or self.control:
            raise HypercallError(Errno.EINVAL)
        for port in range(1, port_count):
            self.early[port] = self.shared.bit(PENDING_BITS, port)
        self.control = page + offset

    def add_page(self, page: Gpa) -> int:
        """Add a page to the event array. Return the first port that it has a word for."""
        if not self.control:
            raise HypercallError(Errno.EOPNOTSUPP)
        if len(self.pages) >= _MOST_PAGES:
            raise HypercallError(Errno.ENOSPC)
        first = len(self.pages) * _WORDS_PER_PAGE
        self.pages = [*self.pages, page]
        for port in range(first, min(first + _WORDS_PER_PAGE, PORTS)):
            if self.early[port]:
                self.early[port] = False
                self.set_pending(port)
        return first

    def leave(self, page: Gpa) -> None:
        """The guest is about to lose a page. What is there of events goes on out of its sight, as in Xen."""
        self.shared.leave(page)
        if self.control - self.control % PAGE_SIZE == page:
            self.control = kept(self.dma, self.control, 1)
        if page in self.pages:  # Ports have their words in the first page, so one is enough for all others.
            self.pages = [
                kept(self.dma, one, 2 + (number > 0)) if one == page else one for number, one in enumerate(self.pages)
            ]

    def forget(self) -> None:
        """Use bits again, as at power-on."""
        self.control, self.pages, self.tails = 0, [], [0] * QUEUES

    def set_priority(self, port: int, priority: int, is_used: bool) -> None:
        """Set the queue of a port for further events, if it is used. Raise HypercallError if that cannot be."""
        if not self.control:
            raise HypercallError(Errno.ENOSYS)
        if not is_used:
            raise HypercallError(Errno.EACCES)
        if priority > LOWEST_PRIORITY:
            raise HypercallError(Errno.EINVAL)
        self.priorities[port] = priority

    # -- ports ---------------------------------------------------------------------------------

    def open(self, port: int) -> None:
        """A port comes into use."""
        self.priorities[port] = DEFAULT_PRIORITY

    @property
    def is_plain(self) -> bool:
        """True if native code can write to all places. The ports have words in the first page of the array."""
        if self.control and not self.dma.is_plain(self.control):
            return False
        return self.shared.is_plain and (not len(self.pages) or self.dma.is_plain(self.pages[0]))

    def is_busy(self, port: int) -> bool:
        """Return True if a port is still in a queue, so that it cannot be used for something else."""
        return self.control != 0 and self._word(port) & _LINKED != 0

    def is_pending(self, port: int) -> bool:
        if not self.control:
            return self.shared.bit(PENDING_BITS, port)
        return self._word(port) & _PENDING != 0

    def is_masked(self, port: int) -> bool:
        if not self.control:
            return self.shared.bit(MASK_BITS, port)
        return self._place(port) is None or self._word(port) & _MASKED != 0

    def clear_pending(self, port: int) -> None:
        self.early[port] = False
        if not self.control:
            self.shared.clear_bit(PENDING_BITS, port)
        elif self._place(port) is not None:
            self._set_word(port, self._word(port) & ~_PENDING)

    def unmask(self, port: int) -> None:
        """Unmask a port, and deliver the event that it has."""
        if not self.control:
            if self.shared.clear_bit(MASK_BITS, port) and self.is_pending(port):
                self._select(port)
        elif self._place(port) is not None:
            word = self._word(port) & ~_MASKED
            self._set_word(port, word)
            if word & _PENDING:
                self.set_pending(port)

    def set_pending(self, port: int) -> None:
        """An event has come at a port. Interrupt the virtual CPU unless the guest knows of it, or has masked it."""
        if not self.control:
            if not self.shared.set_bit(PENDING_BITS, port) and not self.is_masked(port):
                self._select(port)
        elif self._place(port) is None:
            self.early[port] = True
        else:
            word = self._word(port) | _PENDING
            self._set_word(port, word)
            if not word & (_MASKED | _LINKED):
                self._set_word(port, word | _LINKED)
                self._enqueue(port)

    def _select(self, port: int) -> None:
        if not self.shared.select(port // _SELECTED_BITS):
            self.shared.mark_pending()

    # -- queues --------------------------------------------------------------------------------

    def _enqueue(self, port: int) -> None:
        """Put a port, whose word says that it is linked, at the end of its queue."""
        before, queue = self.queued[port], self.priorities[port]
        if self.tails[before] == port:
            self.tails[before] = 0  # It has been taken out, and nothing may be linked to it there.
        self.queued[port] = queue
        tail = self.tails[queue]
        is_linked = bool(tail) and self._link(tail, port)
        self.tails[queue] = port
        if is_linked:
            return
        self.dma.put_word(self.control + _HEADS + 4 * queue, port)
        ready = self.dma.word(self.control)
        if not ready >> queue & 1:
            self.dma.put_word(self.control, ready | 1 << queue)
            self.shared.mark_pending()

    def _link(self, tail: int, port: int) -> bool:
        """Link a port behind the last one. Return False if the guest has taken that out: then the queue is empty."""
        word = self._word(tail)
        if not word & _LINKED:  # nor has it if there is no word
            return False
        self._set_word(tail, word & ~(_BUSY | _LINK) | port)
        return True

    def _place(self, port: int) -> int | None:
        page = port // _WORDS_PER_PAGE
        return self.pages[page] + 4 * (port % _WORDS_PER_PAGE) if page < len(self.pages) else None

    def _word(self, port: int) -> int:
        """Return the word of a port, or 0 if there is none."""
        place = self._place(port)
        return 0 if place is None else self.dma.word(place)

    def _set_word(self, port: int, word: int) -> None:
        place = self._place(port)
        if place is not None:
            self.dma.put_word(place, word)
