"""The page of information that the guest shares with the hypervisor, and that of its virtual CPU.

Both are in guest RAM, where the guest wants to have them, so they are part of its memory like everything else there.
The layout is struct shared_info of xen/include/public/xen.h on ARM. Everything in it is the guest's to change.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.devices.shared import shared
from dbt.devices.state import Stateful, Wiring, Word
from dbt.devices.wiring import Line
from dbt.hypervisor.xen.interface import FIRST_SHARED_PAGE, PV_PAGES, Errno, HypercallError
from dbt.memory.dma import Dma

#: struct vcpu_info: evtchn_upcall_pending is its first byte, and evtchn_upcall_mask the second.
VCPU_INFO_SIZE: Final = 48
_UPCALL_MASK: Final = 1
_PENDING_SELECTORS: Final = 8
#: struct shared_info: behind the information of one virtual CPU are two bits for each port, and the wall clock.
PENDING_BITS, MASK_BITS, _WALL_CLOCK = VCPU_INFO_SIZE, VCPU_INFO_SIZE + 512, VCPU_INFO_SIZE + 1024
_WALL_CLOCK_WORDS: Final = struct.Struct("<IIII")  # version, seconds, nanoseconds, upper half of the seconds
_EVERYTHING: Final = b"\xff" * 8


@shared
@dataclass(eq=False)
class SharedPage(Stateful):
    """Where the shared information is, and what is read and written there. ``upcall`` is the event interrupt, whose
    level is evtchn_upcall_pending. ``epoch`` is the time of day at power-on, in seconds since 1970.
    """

    dma: Wiring[Dma]
    upcall: Wiring[Line]
    epoch: Wiring[int]
    page: Word = FIRST_SHARED_PAGE
    #: Where the virtual CPU's information is, if the guest has moved it out of the page, or 0.
    vcpu_info: Word = 0

    def is_possible(self) -> bool:
        covers = self.dma.layout.covers
        return (
            not self.page % PAGE_SIZE
            and covers(Gpa(self.page), PAGE_SIZE)
            and (not self.vcpu_info or covers(Gpa(self.vcpu_info), VCPU_INFO_SIZE))
            and self.vcpu_info % PAGE_SIZE <= PAGE_SIZE - VCPU_INFO_SIZE
        )

    def power_on(self) -> None:
        """Fill the page in, as it is when the domain is created."""
        self.dma.write(self.page, bytes(PAGE_SIZE))
        clock = _WALL_CLOCK_WORDS.pack(2, self.epoch & 0xFFFFFFFF, 0, self.epoch >> 32)
        self.dma.write(self.page + _WALL_CLOCK, clock)

    def is_at(self, page: Gpa) -> bool:
        """Return True if the shared information is in a page."""
        return page == self.page

    def move(self, page: Gpa) -> None:
        """Put the shared information to another page, whose content is lost. Where it was, there are zeros."""
        if page != self.page:
            self.dma.write(page, self.dma.read(self.page, PAGE_SIZE))
            self.dma.write(self.page, bytes(PAGE_SIZE))
            self.page = page

    def move_vcpu_info(self, place: Gpa) -> None:
        """Put the virtual CPU's information to another place, once. All events count as pending then."""
        if self.vcpu_info:
            raise HypercallError(Errno.EINVAL)
        self.dma.write(place, self.dma.read(self._vcpu, VCPU_INFO_SIZE))
        self.vcpu_info = place
        self.dma.write(place + _PENDING_SELECTORS, _EVERYTHING)
        self.mark_pending()

    def leave(self, page: Gpa) -> None:
        """The guest is about to lose a page. What the virtual CPU has there goes on out of its sight, as in Xen."""
        if self.vcpu_info and self.vcpu_info - self.vcpu_info % PAGE_SIZE == page:
            self.vcpu_info = kept(self.dma, self.vcpu_info, 0)

    @property
    def _vcpu(self) -> int:
        return self.vcpu_info if self.vcpu_info else self.page

    @property
    def is_upcall_pending(self) -> bool:
        """The level of the event interrupt."""
        return self.dma.byte(self._vcpu) != 0

    @property
    def is_upcall_masked(self) -> bool:
        """What evtchn_upcall_mask says, which only kernels in user mode have (:mod:`dbt.hypervisor.xen.pv`)."""
        return self.dma.byte(self._vcpu + _UPCALL_MASK) != 0

    def mask_upcall(self) -> None:
        self.dma.put_byte(self._vcpu + _UPCALL_MASK, 1)

    def sampled_level(self) -> bool:
        """Return the level of the event interrupt, for the interrupt controller."""
        return self.is_upcall_pending

    @property
    def is_plain(self) -> bool:
        """True if native code can write to both places."""
        return self.dma.is_plain(self.page) and self.dma.is_plain(self._vcpu)

    def mark_pending(self) -> None:
        """Interrupt the virtual CPU, because it has an event."""
        self.dma.put_byte(self._vcpu, 1)
        self.upcall(True)

    def lower_upcall(self) -> None:
        """Interrupt the virtual CPU no longer: it has seen that it had an event."""
        self.upcall(False)

    def set_bit(self, bits: int, number: int) -> bool:
        """Set a bit of the page, and return what it was. ``bits`` is PENDING_BITS or MASK_BITS."""
        return self._change_bit(self.page + bits, number, True)

    def clear_bit(self, bits: int, number: int) -> bool:
        """Clear a bit of the page, and return what it was."""
        return self._change_bit(self.page + bits, number, False)

    def select(self, number: int) -> bool:
        """Set a bit of evtchn_pending_sel, and return what it was."""
        return self._change_bit(self._vcpu + _PENDING_SELECTORS, number, True)

    def bit(self, bits: int, number: int) -> bool:
        return self.dma.byte(self.page + bits + (number >> 3)) >> (number & 7) & 1 != 0

    def _change_bit(self, base: int, number: int, value: bool) -> bool:
        at, bit = base + (number >> 3), 1 << (number & 7)
        before = self.dma.byte(at)
        if bool(before & bit) != value:
            self.dma.put_byte(at, before ^ bit)
        return before & bit != 0


def kept(dma: Dma, place: int, number: int) -> int:
    """Return another place for what the hypervisor has in a page that the guest is about to lose: it is copied to one
    that the hypervisor has for it, by its number.
    """
    page = PV_PAGES + number * PAGE_SIZE
    dma.write(page, dma.read(place - place % PAGE_SIZE, PAGE_SIZE))
    return page + place % PAGE_SIZE
