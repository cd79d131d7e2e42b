"""The memory balloon (virtio 1.2, section 5.5), with statistics and free page reporting as QEMU's.

What the guest gives away reads as zero from then on, and takes no memory of the host's. So no snapshot contains it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.devices.state import Wiring, Word
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.queue import Chain
from dbt.memory.dma import Dma

_F_STATS_VQ, _F_PAGE_POISON, _F_REPORTING = 1 << 1, 1 << 4, 1 << 5
_INFLATE, _DEFLATE, _STATS, _REPORTING = range(4)
#: struct virtio_balloon_config: the pages that the guest shall give, those that it has given, a number that is not used
#: here, and what freed pages are filled with.
_CONFIG: Final = struct.Struct("<IIII")
_ACTUAL, _POISON = 4, 12
_LATENCY_NS: Final = 1_000
#: Linux reports at most 32 blocks of 4 MiB at once.
_MOST_REPORTED: Final = 256 << 20


@dataclass(eq=False)
class Balloon(VirtioDevice):
    """A balloon. ``target`` is how many pages of 4 KiB the guest is asked for, ``actual`` how many it says that it has
    given.

    ``poison`` is what the guest fills free pages with. If it is not 0, they are left as they are.
    """

    device_id: ClassVar[int] = 5
    queue_count: ClassVar[int] = 4
    #: The driver's statistics wait until somebody wants them.
    input_queues: ClassVar[frozenset[int]] = frozenset({_STATS})
    receiver: ClassVar[str] = "balloon"

    dma: Wiring[Dma]
    target: Word = 0
    actual: Word = 0
    poison: Word = 0
    has_new_target: bool = False

    def features(self) -> int:
        return _F_STATS_VQ | _F_PAGE_POISON | _F_REPORTING

    def reset(self) -> None:
        self.actual = self.poison = 0

    def config(self) -> bytes:
        return _CONFIG.pack(self.target, self.actual, 0, self.poison)

    def write_config(self, offset: int, data: bytes) -> None:
        written = bytearray(self.config())
        written[offset : offset + len(data)] = data
        _, self.actual, _, self.poison = _CONFIG.unpack(written)

    def arrive(self, data: bytes) -> None:
        """Ask the guest for so many pages, a number of four bytes, the lowest first."""
        pages = int.from_bytes(data[:4], "little")
        self.has_new_target = self.has_new_target or pages != self.target
        self.target = pages

    def has_config_change(self) -> bool:
        changed, self.has_new_target = self.has_new_target, False
        return changed

    def most_bytes(self, queue: int) -> int:
        return _MOST_REPORTED if queue == _REPORTING else super().most_bytes(queue)

    def duration(self, queue: int, chain: Chain) -> int:
        return _LATENCY_NS + chain.out_size + chain.in_size // 8

    def serve(self, queue: int, chain: Chain) -> int:
        if self.poison:
            return 0
        if queue == _INFLATE:
            data = chain.read()
            self._take(page for (page,) in struct.iter_unpack("<I", data[: len(data) & ~3]))
        elif queue == _REPORTING:
            for address, size in chain.writable:
                self.dma.give_back(address, size)
        return 0

    def _take(self, pages: Iterable[int]) -> None:
        """Take pages from the guest, those in a row at once. Numbers of what is not RAM mean nothing."""
        covers = self.dma.layout.covers
        there = sorted({page for page in pages if covers(Gpa(page * PAGE_SIZE), PAGE_SIZE)})
        start = 0
        for at in range(1, len(there) + 1):
            if at == len(there) or there[at] != there[at - 1] + 1:
                self.dma.give_back(there[start] * PAGE_SIZE, (at - start) * PAGE_SIZE)
                start = at
