"""The memory balloon (virtio 1.2, section 5.5), with statistics and free page reporting as QEMU's.

What the guest gives away reads as zero from then on. So a snapshot does not contain it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from dbt.devices.state import Wiring, Word
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.queue import Chain
from dbt.memory.dma import Dma, DmaError

_F_STATS_VQ, _F_PAGE_POISON, _F_REPORTING = 1 << 1, 1 << 4, 1 << 5
_INFLATE, _DEFLATE, _STATS, _REPORTING = range(4)
#: struct virtio_balloon_config: the pages that the guest shall give, those that it has given, a number that is not used
#: here, and what freed pages are filled with.
_CONFIG: Final = struct.Struct("<IIII")
_ACTUAL, _POISON = 4, 12
PAGE_SIZE: Final = 4096
_ZEROS: Final = bytes(1 << 20)
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
        if queue == _INFLATE and not self.poison:
            data = chain.read()
            for (page,) in struct.iter_unpack("<I", data[: len(data) & ~3]):
                self._give(page * PAGE_SIZE, PAGE_SIZE)
        elif queue == _REPORTING and not self.poison:
            for address, size in chain.writable:
                self._give(address, size)
        return 0

    def _give(self, address: int, size: int) -> None:
        """Take memory from the guest. What is not RAM, or is read-only, stays as it is."""
        try:
            for at in range(0, size, len(_ZEROS)):
                self.dma.write(address + at, memoryview(_ZEROS)[: size - at])
        except DmaError:
            pass
