"""The block back end (xen/include/public/io/blkif.h), over the media that virtio disks have too.

A *segment* is a part of a granted page, in sectors of 512 bytes. A request has up to 11 of them, or it is *indirect*:
then it names pages with a table of segments. What the front end has put into its ring when the back end looks is one
batch. It completes at a tick that follows from the sizes, with one event for all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from dbt.abi.layout import PAGE_SIZE
from dbt.devices.medium import BYTES_PER_NS, LATENCY_NS, SECTOR, Medium
from dbt.devices.state import Byte, Part, Wiring
from dbt.devices.wiring import Alarm
from dbt.hypervisor.xen.back_ends.back_end import BackEnd, FrontEndError
from dbt.hypervisor.xen.back_ends.shared_ring import SharedRing
from dbt.hypervisor.xen.grant_table import GrantError

_READ, _WRITE, _FLUSH, _DISCARD, _INDIRECT = 0, 1, 3, 5, 6
_OKAY, _ERROR, _UNSUPPORTED = 0, -1, -2
#: The beginning of a request: operation, number of segments, and behind a handle the number of the request and the
#: first sector.
_HEAD: Final = struct.Struct("<BBHxxxxQQ")
_SEGMENT: Final = struct.Struct("<IBBxx")
_MOST_SEGMENTS: Final = 11
#: An indirect request: the operation that is meant, the number of segments; where the grants of their pages are.
_INDIRECT_HEAD: Final = struct.Struct("<xBH")
_PAGES_AT, _MOST_PAGES = 28, 8
_MOST_INDIRECT: Final = 256
_PER_PAGE: Final = PAGE_SIZE // _SEGMENT.size
_SECTORS: Final = struct.Struct("<Q")
_SECTORS_AT: Final = 24
_SECURE: Final = 1
_RESPONSE: Final = struct.Struct("<QBxhxxxx")
_REQUEST_SIZE: Final = _HEAD.size + _MOST_SEGMENTS * _SEGMENT.size
_PAGE_SECTORS: Final = PAGE_SIZE // SECTOR
#: Grants that stay in use between requests at most, as in Linux.
_MOST_PERSISTENT: Final = 1056
_VDISK_READONLY: Final = 4
#: The protocol of front ends on 32-bit ARM, whose structures are those of 64-bit ones.
_PROTOCOL: Final = "arm-abi"
#: The numbers of disks: those of the first 16 have Linux' major number, and 16 partitions each; others are extended.
_MAJOR, _EXTENDED, _NAMED = 202 << 8, 1 << 28, 16


def disk_number(index: int) -> int:
    """Return the number of the disk xvda, xvdb and so on, counted from 0."""
    return _MAJOR | index << 4 if index < _NAMED else _EXTENDED | index << 8


class Segment(NamedTuple):
    """Some sectors of a granted page, from the first to the last one."""

    reference: int
    first: int
    last: int


@dataclass(eq=False, kw_only=True)
class BlockBackEnd(BackEnd):
    """A disk. ``failed`` is told why the host could not do a request, and whether it was to read.

    ``batch`` has the requests that are being served. ``persistent`` are the grants that stay in use, if the front end
    has agreed (``is_persistent``): it then uses the same pages again.
    """

    kind: ClassVar[str] = "vbd"

    medium: Part[Medium]
    failed: Wiring[Callable[[OSError, bool], None]]
    ring: Part[SharedRing] = field(init=False)
    batch: list[bytes] = field(default_factory=list)
    is_persistent: bool = False
    persistent: dict[int, Byte] = field(default_factory=dict)
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ring = SharedRing(self.bus.grants, _REQUEST_SIZE)
        self.alarm = self.bus.time.alarm(self.name, self.rings)

    def is_possible(self) -> bool:
        return (
            len(self.batch) <= self.ring.size
            and all(len(request) == _REQUEST_SIZE for request in self.batch)
            and len(self.persistent) <= _MOST_PERSISTENT
            and self.ring.is_open == self.is_connected
            and self.has_ports(1)
        )

    # -- XenStore ------------------------------------------------------------------------------

    def offer(self) -> Mapping[str, str]:
        return {
            "bootable": "1",
            "dev": f"xvd{chr(ord('a') + (self.number >> 4 & 15))}" if self.number < _EXTENDED else str(self.number),
            "type": "phy",
            "mode": "r" if self.medium.read_only else "w",
            "device-type": "disk",
            "feature-flush-cache": "1",
            "feature-discard": "0" if self.medium.read_only else "1",
            "discard-granularity": str(SECTOR),
            "discard-alignment": "0",
            "discard-secure": "0",
            "feature-persistent": "1",
            "feature-max-indirect-segments": str(_MOST_INDIRECT),
        }

    def describe(self) -> Mapping[str, str]:
        return {"virtual-device": str(self.number), "device-type": "disk"}

    def connect(self) -> Mapping[str, str]:
        protocol = self.said("protocol")
        if protocol not in (None, _PROTOCOL):
            raise FrontEndError(f"its protocol is {protocol!r:.50}, and not {_PROTOCOL}")
        self.ring.open(self.said_number("ring-ref"))
        self.bind(self.said_number("event-channel"))
        self.is_persistent = self.says("feature-persistent")
        return {
            "sectors": str(self.medium.sectors),
            "info": str(_VDISK_READONLY if self.medium.read_only else 0),
            "sector-size": str(SECTOR),
            "physical-sector-size": str(SECTOR),
        }

    def holds(self) -> Iterable[int]:
        return [*self.persistent, *self.ring.holds()]

    def disconnect(self) -> None:
        self.alarm.cancel()
        self.batch = []
        for reference in self.persistent:
            self.bus.grants.release(reference)
        self.persistent = {}
        self.ring.close()

    # -- requests ------------------------------------------------------------------------------

    def attend(self) -> None:
        if self.batch:
            return  # The next requests are taken when these are done, without an event.
        self.batch = self.ring.take(self.ring.size)
        if not self.batch:
            self.ring.want(1)
        else:
            self.counts.batches += 1
            self.counts.requests += len(self.batch)
            size = sum(map(_size_of, self.batch))
            self.alarm.set(self.bus.time.now + self.ticks(LATENCY_NS + size // BYTES_PER_NS))

    def proceed(self) -> None:
        batch, self.batch = self.batch, []
        if self.ring.answer([self._answer(request) for request in batch]):
            self.notify()
        self.attend()

    def _answer(self, request: bytes) -> bytes:
        operation, count, _, number, sector = _HEAD.unpack_from(request)
        is_indirect = operation == _INDIRECT
        if is_indirect:
            operation, count = _INDIRECT_HEAD.unpack_from(request)
        try:
            status = self._do(operation, count, sector, request, is_indirect)
        except GrantError:
            status = _ERROR
        except OSError as error:
            self.failed(error, operation == _READ)
            status = _ERROR
        return _RESPONSE.pack(number, operation, status)

    def _do(self, operation: int, count: int, sector: int, request: bytes, is_indirect: bool) -> int:
        if is_indirect and operation not in (_READ, _WRITE):
            return _ERROR
        match operation:
            case 0 | 1:
                segments = self._indirect(request, count) if is_indirect else _direct(request, count)
                return _ERROR if segments is None else self._transfer(operation == _READ, sector, segments)
            case 3:
                self.medium.flush()
                return _OKAY if not count else self._do(_WRITE, count, sector, request, is_indirect)
            case 5:
                return self._discard(count, sector, request)
            case _:
                return _UNSUPPORTED

    def _indirect(self, request: bytes, count: int) -> list[Segment] | None:
        """Return the segments of an indirect request, or None if there cannot be so many."""
        if not 0 < count <= _MOST_INDIRECT:
            return None
        found: list[Segment] = []
        for at in range(_PAGES_AT, _PAGES_AT + 4 * _MOST_PAGES, 4):
            size = min(count - len(found), _PER_PAGE) * _SEGMENT.size
            if size:
                table = self.bus.grants.read(int.from_bytes(request[at : at + 4], "little"), 0, size)
                found += map(Segment._make, _SEGMENT.iter_unpack(table))
        return found

    def _transfer(self, is_read: bool, sector: int, segments: Sequence[Segment]) -> int:
        if any(not one.first <= one.last < _PAGE_SECTORS for one in segments):
            return _ERROR
        sizes = [(one.last - one.first + 1) * SECTOR for one in segments]
        size = sum(sizes)
        if not self._is_there(sector, size // SECTOR) or (not is_read and self.medium.read_only):
            return _ERROR
        grants = self.bus.grants
        for one in segments:  # All of them have to be granted before anything is done.
            grants.locate(one.reference, writes=is_read)
        if is_read:
            data, at = self.medium.read(sector * SECTOR, size), 0
            for one, length in zip(segments, sizes, strict=True):
                grants.write(one.reference, one.first * SECTOR, data[at : at + length])
                at += length
        else:
            pieces = [
                grants.read(one.reference, one.first * SECTOR, length)
                for one, length in zip(segments, sizes, strict=True)
            ]
            self.medium.write(sector * SECTOR, b"".join(pieces))
        if self.is_persistent:
            self._keep(segments)
        return _OKAY

    def _keep(self, segments: Sequence[Segment]) -> None:
        """Keep the grants of a request in use, so that the front end takes the same pages again."""
        for reference in (one.reference for one in segments):
            if reference not in self.persistent and len(self.persistent) < _MOST_PERSISTENT:
                self.bus.grants.hold(reference, writes=False)
                self.persistent[reference] = 1

    def _discard(self, flags: int, sector: int, request: bytes) -> int:
        """Accept that sectors are not needed. They keep their content here."""
        count: int = _SECTORS.unpack_from(request, _SECTORS_AT)[0]
        if flags & _SECURE or self.medium.read_only:
            return _UNSUPPORTED
        return _OKAY if self._is_there(sector, count) else _ERROR

    def _is_there(self, sector: int, count: int) -> bool:
        """Return True if these are sectors of the medium."""
        return sector <= self.medium.sectors and count <= self.medium.sectors - sector


def _direct(request: bytes, count: int) -> list[Segment] | None:
    """Return the segments in a request, or None if there cannot be so many."""
    if not 0 < count <= _MOST_SEGMENTS:
        return None
    table = request[_HEAD.size : _HEAD.size + count * _SEGMENT.size]
    return list(map(Segment._make, _SEGMENT.iter_unpack(table)))


def _size_of(request: bytes) -> int:
    """Return how many bytes a request moves at most, as far as its form tells."""
    operation: int
    count: int
    operation, count, *_ = _HEAD.unpack_from(request)
    if operation == _INDIRECT:
        _, count = _INDIRECT_HEAD.unpack_from(request)
        return min(count, _MOST_INDIRECT) * PAGE_SIZE
    if operation not in (_READ, _WRITE, _FLUSH):
        return 0
    segments = _direct(request, count) or ()
    return sum(max(one.last - one.first + 1, 0) * SECTOR for one in segments)
