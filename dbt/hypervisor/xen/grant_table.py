"""The grant table, version 1 (xen/include/public/grant_table.h): which frames the guest lets other domains access.

The table is in pages of guest RAM, where the guest has had them mapped. So it changes grants by plain stores, and each
access of a back end looks at the grant again: no access outlives its grant. What other guests do with grants is in
:mod:`dbt.hypervisor.xen.foreign_pages`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import Byte, Stateful, Wiring, Word
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.identity import Identity
from dbt.hypervisor.xen.interface import (
    BACKEND_DOMAIN,
    CONSOLE_PAGE,
    MAX_GRANT_FRAMES,
    STORE_PAGE,
    Errno,
    HypercallError,
)
from dbt.memory.dma import Dma

_ENTRY = struct.Struct("<HHI")  # flags, domain, frame
#: The entries in a page of the table.
FRAME_ENTRIES: Final = PAGE_SIZE // _ENTRY.size
_TYPE, _PERMIT_ACCESS, _READ_ONLY = 3, 1, 1 << 2
#: Set while another domain has the frame mapped. Linux does not use a page for anything else then.
_READING, _WRITING = 1 << 3, 1 << 4
_FLAGS = struct.Struct("<H")
_NO_FRAME: Final = 0
_MOST_HOLDS: Final = 255
_BAD_DOMAIN, _GENERAL_ERROR, _PERMISSION_DENIED, _BAD_ADDRESS = -2, -1, -8, -5
#: What is said to be the number of a page of the table that has no place.
_NO_NUMBER: Final = (1 << 64) - 1

_SETUP_TABLE = struct.Struct("<HxxIhxxxxxxQ")
_QUERY_SIZE = struct.Struct("<HxxIIh")
_QUERY_ANSWER = struct.Struct("<IIh")
_SET_VERSION = struct.Struct("<I")
_GET_VERSION = struct.Struct("<HHI")
_STATUS = struct.Struct("<h")
_CACHE_FLUSH = struct.Struct("<QHHI")
#: Clean, invalidate; and the page is given by a grant.
_SOURCE_IS_GRANT: Final = 1 << 31
_CACHE_OPERATIONS: Final = 3 | _SOURCE_IS_GRANT
_VERSION: Final = 1


class GrantError(ValueError):
    """Raised if a back end is told to access what the guest has not granted to it. Nothing has been accessed."""


@dataclass(eq=False)
class GrantTable(Stateful):
    """The table. ``frames`` are the addresses of its pages, or 0 for those that the guest has not had mapped.

    ``held`` says how often the back ends hold a grant, by its number. ``has_page`` says whether a page is the guest's.
    """

    identity: Wiring[Identity]
    dma: Wiring[Dma]
    arguments: Wiring[Arguments]
    has_page: Wiring[Callable[[Gpa], bool]]
    frames: list[Word] = field(default_factory=lambda: [_NO_FRAME])
    held: dict[int, Byte] = field(default_factory=dict)

    def is_possible(self) -> bool:
        covers = self.dma.layout.covers
        return (
            0 < len(self.frames) <= MAX_GRANT_FRAMES
            and all(
                page == _NO_FRAME or (not page % PAGE_SIZE and covers(Gpa(page), PAGE_SIZE)) for page in self.frames
            )
            and all(self.has_entry(number) and count for number, count in self.held.items())
        )

    # -- the pages of the table ----------------------------------------------------------------

    def map_frame(self, index: int, page: Gpa, leave: Callable[[Gpa], None]) -> None:
        """Put a page of the table to ``page``, whose content is lost: ``leave`` is told before. The table grows as far
        as it may. A kernel whose suspension was cancelled puts pages to where they are.
        """
        if index < len(self.frames) and self.frames[index] == page:
            return
        if index >= MAX_GRANT_FRAMES or page in self.frames:
            raise HypercallError(Errno.EINVAL)
        leave(page)
        self.frames += [_NO_FRAME] * (index + 1 - len(self.frames))
        before = self.frames[index]
        self.frames[index] = page
        if before != _NO_FRAME:
            self.dma.write(page, self.dma.read(before, PAGE_SIZE))
            self.dma.write(before, bytes(PAGE_SIZE))
            return
        self.dma.write(page, bytes(PAGE_SIZE))
        if not index:  # The toolstack has granted the magic pages to the back ends.
            for number, granted in enumerate((CONSOLE_PAGE, STORE_PAGE)):
                entry = _ENTRY.pack(_PERMIT_ACCESS, BACKEND_DOMAIN, granted >> PAGE_SHIFT)
                self.dma.write(page + number * _ENTRY.size, entry)

    def has_frame(self, page: Gpa) -> bool:
        """Return True if a page of the table is there."""
        return page in self.frames

    # -- the back ends' side -------------------------------------------------------------------

    def locate(self, reference: int, writes: bool, to: int = BACKEND_DOMAIN) -> Gpa:
        """Return the page that is granted to the back ends, or to the domain ``to``. Raise GrantError if it is not, at
        this moment.
        """
        flags, domain, granted = _ENTRY.unpack(self.dma.read(self.entry_of(reference), _ENTRY.size))
        if flags & _TYPE != _PERMIT_ACCESS or domain != to or (writes and flags & _READ_ONLY):
            raise GrantError(f"the grant {reference} does not permit this access")
        page = Gpa(granted << PAGE_SHIFT)
        if not self.dma.low <= page < self.dma.high and not self.dma.layout.covers(page, PAGE_SIZE):
            raise GrantError(f"the grant {reference} is one of what is not RAM")
        if to == BACKEND_DOMAIN and not self.has_page(page):  # other domains are told in which way it is wrong
            raise GrantError(f"the grant {reference} is one of a page that is not the guest's")
        return page

    def entry_of(self, reference: int) -> int:
        """Return the address of an entry of the table. Raise GrantError if it has none of that number."""
        if not self.has_entry(reference):
            raise GrantError(f"the grant table has no entry {reference}")
        frame, number = divmod(reference, FRAME_ENTRIES)
        return self.frames[frame] + number * _ENTRY.size

    def has_entry(self, reference: int) -> bool:
        """Return True if the table has an entry of this number."""
        frame = reference // FRAME_ENTRIES
        return 0 <= frame < len(self.frames) and self.frames[frame] != _NO_FRAME

    def hold(self, reference: int, writes: bool) -> None:
        """Mark a grant as in use until :meth:`release`, which the guest can see: it does not expect to end it then.

        If it ends it nevertheless, there is no access any more. Raise GrantError if the access is not permitted now.
        """
        self.locate(reference, writes)
        if self.held.get(reference, 0) == _MOST_HOLDS:
            raise GrantError(f"the grant {reference} is held {_MOST_HOLDS} times")
        self.held[reference] = self.held.get(reference, 0) + 1
        self.mark(reference, writes)

    def release(self, reference: int) -> None:
        """End what :meth:`hold` began."""
        self.held[reference] -= 1
        if not self.held[reference]:
            del self.held[reference]
            self.unmark(reference)

    def mark(self, reference: int, writes: bool) -> None:
        """Show the guest that a grant is in use."""
        self._mark(reference, _READING | _WRITING * writes, True)

    def unmark(self, reference: int) -> None:
        """Show the guest that a grant is not in use any more, unless somebody else uses it."""
        host = self.identity.host
        if not self.held.get(reference) and (host is None or not host.is_mapped(self.identity.number, reference)):
            self._mark(reference, _READING | _WRITING, False)

    def _mark(self, reference: int, bits: int, is_set: bool) -> None:
        at = self.entry_of(reference)
        (flags,) = _FLAGS.unpack(self.dma.read(at, _FLAGS.size))
        self.dma.write(at, _FLAGS.pack(flags | bits if is_set else flags & ~bits))

    def read(self, reference: int, offset: int, size: int) -> bytes:
        """Return bytes of a granted page. They lie within it. Raise GrantError if the access is not permitted."""
        page = self.locate(reference, writes=False)
        if not 0 <= offset <= offset + size <= PAGE_SIZE:
            raise GrantError(f"[{offset}, {offset + size}) is not within a page")
        return self.dma.read(page + offset, size)

    def write(self, reference: int, offset: int, data: bytes) -> None:
        """Write bytes of a granted page. They lie within it. Raise GrantError if the access is not permitted."""
        page = self.locate(reference, writes=True)
        if not 0 <= offset <= offset + len(data) <= PAGE_SIZE:
            raise GrantError(f"[{offset}, {offset + len(data)}) is not within a page")
        self.dma.write(page + offset, data)

    # -- the hypercall -------------------------------------------------------------------------

    def call(self, command: int, handle: int, count: int) -> int:
        """Do GNTTABOP_*. Return the result, or raise HypercallError."""
        operation = _OPERATIONS.get(command)
        if operation is None:
            raise HypercallError(Errno.ENOSYS)
        if count != 1:
            raise HypercallError(Errno.EINVAL)
        operation(self, handle)
        return 0

    def _status_of(self, domain: int) -> int:
        """Return what GNTST_* says of a domain whose table the guest wants: it may have its own alone."""
        try:
            self.identity.check_self(domain)
        except HypercallError as error:
            return _PERMISSION_DENIED if error.errno == Errno.EPERM else _BAD_DOMAIN
        return 0

    def _setup_table(self, handle: int) -> None:
        domain, count, _, frame_list = self.arguments.unpack(handle, _SETUP_TABLE)
        status = self._status_of(domain)
        if not status and count > MAX_GRANT_FRAMES:
            status = _GENERAL_ERROR
        if not status:
            self.frames += [_NO_FRAME] * (count - len(self.frames))
            numbers = [_NO_NUMBER if page == _NO_FRAME else page >> PAGE_SHIFT for page in self.frames[:count]]
            try:
                self.arguments.write(frame_list, struct.pack(f"<{count}Q", *numbers))
            except HypercallError:
                status = _BAD_ADDRESS
        self.arguments.write(handle + 8, _STATUS.pack(status))

    def _query_size(self, handle: int) -> None:
        domain, *_ = self.arguments.unpack(handle, _QUERY_SIZE)
        status = self._status_of(domain)
        if status:
            self.arguments.write(handle + 12, _STATUS.pack(status))
        else:
            self.arguments.write(handle + 4, _QUERY_ANSWER.pack(len(self.frames), MAX_GRANT_FRAMES, status))

    def _set_version(self, handle: int) -> None:
        (version,) = self.arguments.unpack(handle, _SET_VERSION)
        self.arguments.write(handle, _SET_VERSION.pack(_VERSION))
        if version != _VERSION:
            raise HypercallError(Errno.ENOSYS if version == _VERSION + 1 else Errno.EINVAL)

    def _get_version(self, handle: int) -> None:
        domain, pad, _ = self.arguments.unpack(handle, _GET_VERSION)
        self.identity.check_self(domain)
        self.arguments.write(handle, _GET_VERSION.pack(domain, pad, _VERSION))

    def _cache_flush(self, handle: int) -> None:
        """Clean or invalidate a part of a page. There is nothing to do but to check: caches hide nothing here."""
        address, offset, length, operation = self.arguments.unpack(handle, _CACHE_FLUSH)
        if offset >= PAGE_SIZE or offset + length > PAGE_SIZE or operation & ~_CACHE_OPERATIONS:
            raise HypercallError(Errno.EINVAL)
        if not length or not operation:
            return
        if operation & _SOURCE_IS_GRANT:
            raise HypercallError(Errno.EOPNOTSUPP)
        if not self.dma.layout.covers(Gpa(address), PAGE_SIZE - address % PAGE_SIZE):
            raise HypercallError(Errno.EPERM)


_OPERATIONS: Final[dict[int, Callable[[GrantTable, int], None]]] = {
    2: GrantTable._setup_table,
    6: GrantTable._query_size,
    8: GrantTable._set_version,
    10: GrantTable._get_version,
    12: GrantTable._cache_flush,
}
