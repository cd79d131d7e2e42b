"""The memory of a domain (xen/include/public/memory.h): where shared pages are, and what the guest has given back.

A page that the guest has given back by decrease_reservation is zero and takes no memory of the host's. Unlike
in Xen, an access to it does not abort, and it may be written before it is populated again; then it is zero once more.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import Byte, Stateful, Wiring
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.event_channels import page_of
from dbt.hypervisor.xen.identity import Identity
from dbt.hypervisor.xen.interface import MAGIC_PAGES, RAM_BASE, Errno, HypercallError
from dbt.memory.dma import Dma

#: The command is in the lower bits of R0; above them is how many extents are done already.
COMMAND_BITS: Final = 6
_LAST_FRAME: Final = 1 << 20
_LARGEST_ORDER: Final = 9
#: Extents that one execution of the hypercall deals with, and frames with which there is an end to it. Then it is
#: executed again, as by Xen.
_EXTENTS_AT_ONCE, _FRAMES_AT_ONCE = 64, 512
_ADD_TO_PHYSMAP = struct.Struct("<HHIQQ")
_REMOVE_FROM_PHYSMAP = struct.Struct("<HxxxxxxQ")
_RESERVATION = struct.Struct("<QQIIHxxxxxx")
_DOMAIN = struct.Struct("<H")
_EXTENT = struct.Struct("<Q")
_SHARED_INFO, _GRANT_TABLE = 0, 1
#: What is in a hole: nothing, or a page of another domain's.
_EMPTY, _LENT = 1, 2


@dataclass(eq=False)
class Reservation(Stateful):
    """The memory of the guest. ``holes`` has the numbers of the frames that it has given back, and says of each whether
    a page of another domain's is there now.

    ``move_shared`` puts the shared information to a page, and ``map_grants`` a page of the grant table. ``is_shared``
    and ``has_grants`` say whether one of these is there. ``leave`` is told of a page that the guest is about to lose.
    """

    identity: Wiring[Identity]
    dma: Wiring[Dma]
    arguments: Wiring[Arguments]
    move_shared: Wiring[Callable[[Gpa], None]]
    map_grants: Wiring[Callable[[int, Gpa, Callable[[Gpa], None]], None]]
    is_shared: Wiring[Callable[[Gpa], bool]]
    has_grants: Wiring[Callable[[Gpa], bool]]
    leave: Wiring[Callable[[Gpa], None]]
    holes: dict[int, Byte] = field(default_factory=dict)

    def is_possible(self) -> bool:
        return all(value in (_EMPTY, _LENT) and self._is_ram(frame) for frame, value in self.holes.items())

    def call(self, command: int, handle: int) -> tuple[int, int | None]:
        """Do XENMEM_*. Return the result, and None or the R0 with which the hypercall is to be executed again. Raise
        HypercallError.
        """
        number, done = command & (1 << COMMAND_BITS) - 1, command >> COMMAND_BITS
        if number in _OF_EXTENTS:
            return self._change(_OF_EXTENTS[number], number, done, handle)
        match number:
            case 2:  # maximum_ram_page
                return self._last_frame + 1, None
            case 3 | 4:  # current_reservation, maximum_reservation
                self.identity.check_self(*self.arguments.unpack(handle, _DOMAIN))
                return self._frames - (len(self.holes) if number == 3 else 0), None
            case 14:  # maximum_gpfn
                self.identity.check_self(*self.arguments.unpack(handle, _DOMAIN))
                return self._last_frame, None
            case 7:
                self._add_to_physmap(handle)
            case 15:
                self._remove_from_physmap(handle)
            case _:
                raise HypercallError(Errno.ENOSYS)
        return 0, None

    @property
    def size(self) -> int:
        """The bytes of RAM that the guest had in the beginning, and may have."""
        return sum(one.size for one in self.dma.layout.regions if one.base >= RAM_BASE)

    @property
    def _frames(self) -> int:
        return self.size // PAGE_SIZE

    @property
    def _last_frame(self) -> int:
        return (self.dma.layout.end >> PAGE_SHIFT) - 1

    def _is_ram(self, frame: int) -> bool:
        """Return True if a frame is one of the guest's RAM, and not of what the toolstack has put beside it."""
        page = Gpa(frame << PAGE_SHIFT)
        return page >= RAM_BASE and self.dma.layout.covers(page, PAGE_SIZE)

    # -- shared pages --------------------------------------------------------------------------

    def _add_to_physmap(self, handle: int) -> None:
        domain, _, space, index, frame = self.arguments.unpack(handle, _ADD_TO_PHYSMAP)
        self.identity.check_self(domain)
        page = page_of(self.dma, frame, Errno.EINVAL)
        if page >= MAGIC_PAGES and page < RAM_BASE:
            raise HypercallError(Errno.EINVAL)
        if space not in (_SHARED_INFO, _GRANT_TABLE):
            raise HypercallError(Errno.ENOSYS)
        if self.is_lent(page) or (space == _SHARED_INFO and (index or self.has_grants(page))) or self.is_shared(page):
            raise HypercallError(Errno.EINVAL)
        if space == _SHARED_INFO:
            self.leave(page)
            self.move_shared(page)
        else:
            self.map_grants(index, page, self.leave)
        self.holes.pop(frame, None)

    def _remove_from_physmap(self, handle: int) -> None:
        domain, frame = self.arguments.unpack(handle, _REMOVE_FROM_PHYSMAP)
        self.identity.check_self(domain)
        if page_of(self.dma, frame, Errno.ENOENT) >> PAGE_SHIFT in self.holes:
            raise HypercallError(Errno.ENOENT)
        if not self._change_extent(Reservation._take, frame, 1):
            raise HypercallError(Errno.EINVAL)

    # -- pages of other domains ----------------------------------------------------------------

    def lend(self, page: Gpa) -> bool:
        """Let a page of another domain's be in the place of one of the guest's, which is lost. Return False if nothing
        can be there.
        """
        frame = page >> PAGE_SHIFT
        if page % PAGE_SIZE or not self._is_ram(frame) or self.is_shared(page) or self.has_grants(page):
            return False
        if self.is_lent(page):
            return False
        self.leave(page)
        self.holes[frame] = _LENT
        return True

    def is_lent(self, page: Gpa) -> bool:
        """Return True if a page of another domain's is there."""
        return self.holes.get(page >> PAGE_SHIFT) == _LENT

    def is_own(self, page: Gpa) -> bool:
        """Return True if a page of the guest's own is there, or one that the toolstack has made."""
        return page >> PAGE_SHIFT not in self.holes

    def end_lending(self, page: Gpa) -> None:
        """There is no page of another domain's any more, and nothing else."""
        self.dma.give_back(page, PAGE_SIZE)
        self.holes[page >> PAGE_SHIFT] = _EMPTY

    # -- ballooning ----------------------------------------------------------------------------

    def _change(
        self, change: Callable[[Reservation, int], bool], number: int, done: int, handle: int
    ) -> tuple[int, int | None]:
        extents, count, order, _, domain = self.arguments.unpack(handle, _RESERVATION)
        if done >= count:
            return done, None
        try:
            self.identity.check_self(domain)
        except HypercallError as error:
            if error.errno == Errno.ESRCH:
                return done, None  # as Xen does
            raise
        if count > (1 << 32 - COMMAND_BITS) - 1 or order > _LARGEST_ORDER:
            return done, None
        stop = min(count, done + _EXTENTS_AT_ONCE, done + (_FRAMES_AT_ONCE >> order))
        while done < stop:
            try:
                (first,) = self.arguments.unpack(extents + done * _EXTENT.size, _EXTENT)
            except HypercallError:
                return done, None
            if first & (1 << order) - 1 or not self._change_extent(change, first, 1 << order):
                return done, None
            done += 1
        return done, None if done >= count else number | done << COMMAND_BITS

    def _change_extent(self, change: Callable[[Reservation, int], bool], first: int, count: int) -> bool:
        """Take or give frames that follow each other, which are zero then. Return False if one of them cannot be."""
        done = 0
        while done < count and change(self, first + done):
            done += 1
        if done:
            self.dma.give_back(first << PAGE_SHIFT, done << PAGE_SHIFT)
        return done == count

    def _take(self, frame: int) -> bool:
        """Take a frame from the guest. Return False if it has none there, or if the page is shared."""
        page = Gpa(frame << PAGE_SHIFT)
        if frame >= _LAST_FRAME or not self._is_ram(frame) or frame in self.holes:
            return False
        if self.is_shared(page) or self.has_grants(page):
            return False
        self.leave(page)
        self.holes[frame] = _EMPTY
        return True

    def _give(self, frame: int) -> bool:
        """Give the guest a frame, which is zero. Return False unless it has given one back there."""
        if self.holes.get(frame) != _EMPTY:
            return False
        del self.holes[frame]
        return True

    def _refuse(self, frame: int) -> bool:
        """Give the guest no frame that has no place: the memory of a domain is at places that it knows."""
        return False


_OF_EXTENTS: Final[dict[int, Callable[[Reservation, int], bool]]] = {
    0: Reservation._refuse,
    1: Reservation._take,
    6: Reservation._give,
}
