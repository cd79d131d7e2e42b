"""The front end of a disk."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial

from dbt.hypervisor.xen.back_ends.block import BlockBackEnd, disk_number
from tests.devices.virtio.disks import a_file
from tests.xen.front_ends import DATA, FIRST_GRANT, PERMIT, RING, Bench, FrontEnd, Ring

READ, WRITE, BARRIER, FLUSH, DISCARD, INDIRECT = 0, 1, 2, 3, 5, 6
OK, ERROR, UNSUPPORTED = 0, -1, -2
SECTORS = 256
_REQUEST, SEGMENT = struct.Struct("<BBHxxxxQQ88s"), struct.Struct("<IBBxx")
Segment = tuple[int, int, int]


def ignored(error: OSError, is_read: bool) -> None:
    """Tell nobody."""


def request(kind: int, sector: int = 0, segments: Sequence[Segment] = (), number: int = 1, flags: int = -1) -> bytes:
    table = b"".join(SEGMENT.pack(*one) for one in segments)
    return _REQUEST.pack(kind, len(segments) if flags < 0 else flags, 0, number, sector, table)


def discard(sector: int, count: int, flags: int = 0) -> bytes:
    return _REQUEST.pack(DISCARD, flags, 0, 1, sector, struct.pack("<Q", count))


class Disk:
    """A disk's front end, with a file in memory behind the back end."""

    def __init__(self, medium: type, read_only: bool = False, persistent: int = 0) -> None:
        self.file = a_file(SECTORS)
        maker = partial(BlockBackEnd, number=disk_number(0), medium=medium(self.file, read_only), failed=ignored)
        self.bench = Bench(maker)
        self.front = FrontEnd(self.bench)
        self.ring = Ring(self.bench, RING, FIRST_GRANT, 112, 16)
        self.front.connect({"ring-ref": FIRST_GRANT, "protocol": "arm-abi", "feature-persistent": persistent})

    def page(self, number: int, flags: int = PERMIT) -> int:
        """Grant a page for data."""
        return self.bench.grant(FIRST_GRANT + 1 + number, DATA + (number << 12), flags)

    def do(self, *requests: bytes) -> list[int]:
        """Return the statuses of requests."""
        if self.ring.put(*requests):
            self.front.kick()
        found = [struct.unpack("<QBxh4x", one) for one in self.ring.take()]
        assert len(found) == len(requests)
        return [status for _, _, status in found]
