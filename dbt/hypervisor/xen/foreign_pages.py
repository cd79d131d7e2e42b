"""Pages of other guests: what a domain maps and copies by grants (GNTTABOP_map_grant_ref, unmap_grant_ref, copy).

A mapped page is one of the guest's own RAM, with the content of the page that was granted. What either side writes
comes to the other one where both stand together (:mod:`dbt.hypervisor.xen.host`), and each time the grant is looked at
again. While a guest makes a hypercall, the others stand still, so a copy is made at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import Stateful, Wiring
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.grant_table import GrantError, GrantTable
from dbt.hypervisor.xen.identity import Identity
from dbt.hypervisor.xen.interface import BACKEND_DOMAIN, Errno, HypercallError
from dbt.hypervisor.xen.reservation import Reservation
from dbt.memory.dma import Dma

if TYPE_CHECKING:
    from dbt.hypervisor.xen.domain import XenDomain

MAP, UNMAP, COPY = 0, 1, 5
#: Operations that one execution of the hypercall does. Then it is executed again, as by Xen.
_AT_ONCE: Final = 32
#: The pages that a domain can have mapped at the same time.
MOST_MAPS: Final = 4096
_MAP = struct.Struct("<QIIHhIQ")
_MAP_ANSWER = struct.Struct("<hIQ")
_UNMAP = struct.Struct("<QQIh")
_COPY = struct.Struct("<QHHxxxxQHHxxxxHHh")
_STATUS = struct.Struct("<h")
#: A :class:`ForeignMap` as a value of the state.
_PACKED = struct.Struct("<HIII??")
_HOST_MAP, _READ_ONLY, _DEVICE_MAP = 2, 4, 1
_SOURCE_IS_GRANT, _TARGET_IS_GRANT = 1, 2


class Status:
    """GNTST_*."""

    OKAY: Final = 0
    GENERAL_ERROR: Final = -1
    BAD_DOMAIN: Final = -2
    BAD_REFERENCE: Final = -3
    BAD_HANDLE: Final = -4
    NO_SPACE: Final = -7
    PERMISSION_DENIED: Final = -8
    BAD_PAGE: Final = -9
    BAD_COPY: Final = -10


class _Refused(Exception):
    """An operation is refused, with one of :class:`Status`."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ForeignMap(NamedTuple):
    """A page of ``domain``, which that has granted as ``reference`` and is at ``granted`` there, mapped at ``page``.

    ``is_revoked``: the grant has ended before the mapping, and nothing is there any more.
    """

    domain: int
    reference: int
    granted: int
    page: int
    writes: bool
    is_revoked: bool

    def pack(self) -> bytes:
        return _PACKED.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> ForeignMap:
        return cls(*_PACKED.unpack(data))

    @classmethod
    def is_packed(cls, data: bytes) -> bool:
        return len(data) == _PACKED.size and max(data[-2:]) <= 1


@dataclass(eq=False)
class ForeignPages(Stateful):
    """What a domain has mapped of others: ``maps`` has the mappings by handle, as :class:`ForeignMap` packs them.

    ``bases`` has, by handle, what both sides had when they stood together last.
    """

    identity: Wiring[Identity]
    dma: Wiring[Dma]
    arguments: Wiring[Arguments]
    grants: Wiring[GrantTable]
    reservation: Wiring[Reservation]
    maps: dict[int, bytes] = field(default_factory=dict)
    bases: Wiring[dict[int, bytes]] = field(default_factory=dict, init=False)

    def guard(self) -> None:
        """Let stores abort in the pages that are mapped to be read alone, and nowhere else. The maps are others now."""
        self.dma.refuse_stores(one.page for _, one in self.items() if not one.writes)

    def restore(self, state: Mapping[Any, Any]) -> None:
        super().restore(state)
        self.guard()

    def is_possible(self) -> bool:
        if not all(0 <= handle < MOST_MAPS and ForeignMap.is_packed(one) for handle, one in self.maps.items()):
            return False
        found = [one for _, one in self.items()]
        pages = [one.page for one in found]
        return (
            len(set(pages)) == len(pages)
            and all(self.reservation.is_lent(Gpa(page)) for page in pages)
            and all(one.domain not in (BACKEND_DOMAIN, self.identity.number) for one in found)
            and not any(one.granted % PAGE_SIZE for one in found)
        )

    def items(self) -> list[tuple[int, ForeignMap]]:
        """Return the mappings with their handles, in the order of these."""
        return [(handle, ForeignMap.unpack(self.maps[handle])) for handle in sorted(self.maps)]

    def find_bases(self) -> None:
        """Take it that both sides of each mapping stand together, and so have the same."""
        self.bases = {handle: self.dma.read(one.page, PAGE_SIZE) for handle, one in self.items() if not one.is_revoked}

    def call(self, command: int, handle: int, count: int) -> tuple[int, tuple[int, int] | None]:
        """Do one of :data:`OPERATIONS` with ``count`` structures. Return the result, and None, or the address and
        number of the structures for which the hypercall is to be executed again. Raise HypercallError.
        """
        form, operation = OPERATIONS[command]
        if count >> 31:
            raise HypercallError(Errno.EINVAL)
        for _ in range(min(count, _AT_ONCE)):
            operation(self, handle)
            handle = handle + form.size & 0xFFFFFFFF
        left = count - min(count, _AT_ONCE)
        return 0, (handle, left) if left else None

    # -- mapping -------------------------------------------------------------------------------

    def _map(self, at: int) -> None:
        place, flags, reference, domain, _, number, address = self.arguments.unpack(at, _MAP)
        try:
            number = self._begin(place, flags, reference, domain)
            address, status = domain << 32 | ForeignMap.unpack(self.maps[number]).granted, Status.OKAY
        except _Refused as refused:
            status = refused.status
        self.arguments.write(at + 18, _MAP_ANSWER.pack(status, number, address))

    def _begin(self, place: int, flags: int, reference: int, domain: int) -> int:
        """Map a page. Return the handle."""
        writes = not flags & _READ_ONLY
        if not flags & (_HOST_MAP | _DEVICE_MAP):
            raise _Refused(Status.BAD_REFERENCE)
        other, granted = self._granted(domain, reference, writes)
        if other is None or flags & ~_READ_ONLY != _HOST_MAP:
            raise _Refused(Status.GENERAL_ERROR)  # Xen on ARM refuses other flags; one's own pages are where they are
        handle = next((one for one in range(len(self.maps) + 1) if one not in self.maps), 0)
        if handle >= MOST_MAPS:
            raise _Refused(Status.NO_SPACE)
        if not self.reservation.lend(Gpa(place)):
            raise _Refused(Status.GENERAL_ERROR)
        content = other.dma.read(granted, PAGE_SIZE)
        self.dma.write(place, content)
        self.bases[handle] = content
        if not writes:
            self.dma.refuse_stores_to(place)
        self._keep(handle, ForeignMap(domain, reference, granted, place, writes, False))
        other.grants.mark(reference, writes)
        return handle

    def _keep(self, handle: int, one: ForeignMap) -> None:
        self.maps[handle] = one.pack()
        self._note("revoked" if one.is_revoked else "mapped", handle, one)

    def _note(self, what: str, handle: int, one: ForeignMap) -> None:
        if self.identity.host is not None:
            self.identity.host.note(what, self.identity.number, handle, one)

    def _granted(self, domain: int, reference: int, writes: bool) -> tuple[XenDomain | None, int]:
        """Return who has granted a page to this domain, or None for the domain itself, and the page's address there."""
        other = self.identity.other(domain)
        if other is None and domain not in (BACKEND_DOMAIN, self.identity.number):
            raise _Refused(Status.BAD_DOMAIN)
        if domain == BACKEND_DOMAIN:
            raise _Refused(Status.BAD_REFERENCE)
        grants, reservation = (self.grants, self.reservation) if other is None else (other.grants, other.reservation)
        if not grants.has_entry(reference):
            raise _Refused(Status.BAD_REFERENCE)
        try:
            page = grants.locate(reference, writes, self.identity.number)
        except GrantError:
            raise _Refused(Status.GENERAL_ERROR) from None
        if not reservation.is_own(page):
            raise _Refused(Status.BAD_PAGE)
        return other, page

    def is_granted(self, one: ForeignMap) -> bool:
        """Return True if a page may still be mapped: the grant is there, and is that of this page."""
        try:
            return self._granted(one.domain, one.reference, one.writes)[1] == one.granted
        except _Refused:
            return False

    def revoke(self, handle: int) -> None:
        """Take a page away, whose grant has ended. Its handle stays until the guest unmaps it."""
        one = ForeignMap.unpack(self.maps[handle])
        self.dma.give_back(one.page, PAGE_SIZE)
        self.bases.pop(handle, None)
        self._keep(handle, one._replace(is_revoked=True))

    # -- unmapping -----------------------------------------------------------------------------

    def _unmap(self, at: int) -> None:
        place, _, handle, _ = self.arguments.unpack(at, _UNMAP)
        status = Status.OKAY
        if handle not in self.maps:
            status = Status.BAD_HANDLE
        elif place != ForeignMap.unpack(self.maps[handle]).page:
            status = Status.GENERAL_ERROR
        else:
            self.end(handle)
        self.arguments.write(at + 20, _STATUS.pack(status))

    def end(self, handle: int) -> None:
        """End a mapping. What was written there comes to the page that it was."""
        one = ForeignMap.unpack(self.maps[handle])
        if not one.is_revoked and not self.is_granted(one):
            self.revoke(handle)
        one = ForeignMap.unpack(self.maps.pop(handle))
        other, base = self.identity.other(one.domain), self.bases.pop(handle, b"")
        if other is not None and not one.is_revoked and one.writes:
            mine, theirs = self.dma.read(one.page, PAGE_SIZE), other.dma.read(one.granted, PAGE_SIZE)
            if mine != theirs:
                other.dma.write(one.granted, merged(base, mine, theirs))
        self.dma.allow_stores_to(one.page)
        self.reservation.end_lending(Gpa(one.page))
        self._leave(handle, one)

    def let_go(self) -> None:
        """The domain is gone: its mappings end."""
        for handle, one in self.items():
            self._leave(handle, one)

    def _leave(self, handle: int, one: ForeignMap) -> None:
        """Tell the other side that a page is not used any more."""
        self._note("unmapped", handle, one)
        other = self.identity.other(one.domain)
        if other is not None and other.grants.has_entry(one.reference):
            other.grants.unmark(one.reference)

    # -- copying -------------------------------------------------------------------------------

    def _copy(self, at: int) -> None:
        source, from_, from_offset, target, to, to_offset, size, flags, _ = self.arguments.unpack(at, _COPY)
        status = Status.OKAY
        try:
            if from_offset + size > PAGE_SIZE or to_offset + size > PAGE_SIZE:
                raise _Refused(Status.BAD_COPY)
            read_from, page = self._place(source, from_, bool(flags & _SOURCE_IS_GRANT), writes=False)
            write_to, to_page = self._place(target, to, bool(flags & _TARGET_IS_GRANT), writes=True)
            if size:
                write_to.write(to_page + to_offset, read_from.read(page + from_offset, size))
        except _Refused as refused:
            status = refused.status
        self.arguments.write(at + 36, _STATUS.pack(status))

    def _place(self, number: int, domain: int, is_grant: bool, writes: bool) -> tuple[Dma, int]:
        """Return where one side of a copy is: a grant, or a frame of the guest's own."""
        if is_grant:
            named = self.identity.number if self.identity.is_self(domain) else domain
            other, page = self._granted(named, number & 0xFFFFFFFF, writes)
            return (self.dma if other is None else other.dma), page
        if not self.identity.is_self(domain):
            raise _Refused(Status.PERMISSION_DENIED)
        page = number << PAGE_SHIFT
        if not self.dma.layout.covers(Gpa(page), PAGE_SIZE) or not self.reservation.is_own(Gpa(page)):
            raise _Refused(Status.BAD_PAGE)
        return self.dma, page


def merged(base: bytes, mine: bytes, theirs: bytes) -> bytes:
    """Return what two sides have made of ``base``, which both had: each bit that one of them has changed is changed."""
    before = int.from_bytes(base, "little")
    changed = (int.from_bytes(mine, "little") ^ before) | (int.from_bytes(theirs, "little") ^ before)
    return (before ^ changed).to_bytes(len(base), "little")


OPERATIONS: Final[dict[int, tuple[struct.Struct, Callable[[ForeignPages, int], None]]]] = {
    MAP: (struct.Struct("32x"), ForeignPages._map),
    UNMAP: (struct.Struct("24x"), ForeignPages._unmap),
    COPY: (struct.Struct("40x"), ForeignPages._copy),
}
