"""The block device (virtio 1.2, section 5.2). Features, limits and answers are those of QEMU's virtio-blk-device."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from dbt.devices.medium import BYTES_PER_NS, LATENCY_NS, NO_ROOM, SECTOR, Medium
from dbt.devices.state import Part, Wiring
from dbt.devices.virtio.device import RequestError, TryLater, VirtioDevice
from dbt.devices.virtio.queue import Chain

_F_SEG_MAX, _F_GEOMETRY, _F_RO, _F_BLK_SIZE = 1 << 2, 1 << 4, 1 << 5, 1 << 6
_F_FLUSH, _F_TOPOLOGY, _F_CONFIG_WCE, _F_DISCARD, _F_WRITE_ZEROES = 1 << 9, 1 << 10, 1 << 11, 1 << 13, 1 << 14
_FEATURES = (
    _F_SEG_MAX | _F_GEOMETRY | _F_BLK_SIZE | _F_FLUSH | _F_TOPOLOGY | _F_CONFIG_WCE | _F_DISCARD | _F_WRITE_ZEROES
)
_IN, _OUT, _FLUSH, _GET_ID, _DISCARD, _WRITE_ZEROES = 0, 1, 4, 8, 11, 13
#: A bit of the type that only old drivers set, and that means nothing.
_BARRIER = 1 << 31
_OK, _IOERR, _UNSUPP = 0, 1, 2
_HEADER, _SEGMENT = struct.Struct("<IIQ"), struct.Struct("<QII")
_UNMAP = 1
_ID_BYTES = 20
#: struct virtio_blk_config up to write_zeroes_may_unmap.
_CONFIG = struct.Struct("<QIIHBBIBBHIBBHIIIIIB")
_WRITEBACK = 32
_MAX_SEGMENTS, _MAX_SECTORS = 254, 0x3FFFFF
_HEADS, _SECTORS_PER_TRACK, _MAX_CYLINDERS = 16, 63, 16383


def ignored(error: OSError, is_read: bool) -> None:
    """Tell nobody."""


@dataclass(eq=False)
class Block(VirtioDevice):
    """A disk with one queue. ``medium`` is what is on it, ``serial`` what GET_ID answers, at most 20 bytes.

    ``failed`` is told why the host could not do a request, and whether it was to read. The guest does not hear why.
    With ``waits_for_room`` it does not hear at all that the host has no room: the request takes until there is some.
    ``writeback`` is False while the driver wants each write to be on the medium when it is answered.
    """

    device_id: ClassVar[int] = 2
    queue_count: ClassVar[int] = 1
    receiver: ClassVar[str] = "disk"
    limited: ClassVar[tuple[str, ...]] = ("bytes", "operations")

    medium: Part[Medium]
    serial: Wiring[bytes] = b""
    failed: Wiring[Callable[[OSError, bool], None]] = ignored
    waits_for_room: Wiring[bool] = False
    writeback: bool = True
    has_new_size: Wiring[bool] = False

    def features(self) -> int:
        return _FEATURES | (_F_RO if self.medium.read_only else 0)

    def start(self, features: int) -> None:
        if not features & _F_CONFIG_WCE:
            self.writeback = bool(features & _F_FLUSH)

    def reset(self) -> None:
        self.writeback = True

    def config(self) -> bytes:
        sectors = self.medium.sectors
        cylinders = max(2, min(sectors // (_HEADS * _SECTORS_PER_TRACK), _MAX_CYLINDERS))
        return _CONFIG.pack(
            *(sectors, 0, _MAX_SEGMENTS),
            *(cylinders, _HEADS, _SECTORS_PER_TRACK),
            *(SECTOR, 0, 0, 0, 0),  # the size of a block; the topology is not known
            *(int(self.writeback), 0, 1),  # one queue
            *(_MAX_SECTORS, 1, 1),  # to discard
            *(_MAX_SECTORS, 1, 1),  # to write zeros
        )

    def write_config(self, offset: int, data: bytes) -> None:
        if offset <= _WRITEBACK < offset + len(data):
            self.writeback = bool(data[_WRITEBACK - offset])

    def arrive(self, data: bytes) -> None:
        """Have another medium than the driver knows."""
        self.has_new_size = True

    def has_config_change(self) -> bool:
        changed, self.has_new_size = self.has_new_size, False
        return changed

    def duration(self, queue: int, chain: Chain) -> int:
        return LATENCY_NS + (chain.out_size + chain.in_size) // BYTES_PER_NS

    def costs(self, queue: int, size: int) -> Sequence[int]:
        return max(size - _HEADER.size - 1, 0), 1

    def serve(self, queue: int, chain: Chain) -> int:
        header = chain.read(0, _HEADER.size)
        if len(header) < _HEADER.size or not chain.in_size:
            raise RequestError("a request of a disk has a header of 16 bytes and a byte for its status")
        kind, _, sector = _HEADER.unpack(header)
        try:
            status = self._do(kind & ~_BARRIER, sector, chain)
        except OSError as error:
            self.failed(error, kind & ~_BARRIER == _IN)
            if self.waits_for_room and error.errno in NO_ROOM:
                raise TryLater from None
            status = _IOERR
        chain.write(bytes([status]), chain.in_size - 1)
        return chain.in_size

    def _do(self, kind: int, sector: int, chain: Chain) -> int:
        match kind:
            case 0:
                return self._read(sector, chain)
            case 1:
                return self._write(sector, chain)
            case 4 | 5:
                self.medium.flush()
                return _OK
            case 8 | 9:
                name = (self.serial + b"\0")[: min(_ID_BYTES, chain.in_size - 1)]
                chain.write(name)
                return _OK
            case 11 | 13:
                return self._erase(chain, zeros=kind == _WRITE_ZEROES)
            case _:
                return _UNSUPP

    def _is_there(self, sector: int, size: int) -> bool:
        """Return True if these are whole sectors of the medium."""
        return size % SECTOR == 0 and sector <= self.medium.sectors and size // SECTOR <= self.medium.sectors - sector

    def _read(self, sector: int, chain: Chain) -> int:
        size = chain.in_size - 1
        if not self._is_there(sector, size):
            return _IOERR
        if size:
            chain.write(self.medium.read(sector * SECTOR, size))
        return _OK

    def _write(self, sector: int, chain: Chain) -> int:
        size = chain.out_size - _HEADER.size
        if self.medium.read_only or not self._is_there(sector, size):
            return _IOERR
        if size:
            self.medium.write(sector * SECTOR, chain.read(_HEADER.size))
        return self._wrote()

    def _wrote(self) -> int:
        if not self.writeback:
            self.medium.flush()
        return _OK

    def _erase(self, chain: Chain, zeros: bool) -> int:
        """Discard sectors, or fill them with zeros. What was discarded keeps its content here."""
        data = chain.read(_HEADER.size)
        if len(data) < _SEGMENT.size:
            raise RequestError("a request to discard or to write zeros has a segment of 16 bytes")
        if len(data) > _SEGMENT.size:
            return _UNSUPP
        sector, count, flags = _SEGMENT.unpack(data)
        if count > _MAX_SECTORS or not self._is_there(sector, count * SECTOR):
            return _IOERR
        if flags & ~_UNMAP or (flags and not zeros):
            return _UNSUPP
        if self.medium.read_only:
            return _IOERR
        if not zeros:
            return _OK
        self.medium.write_zeros(sector * SECTOR, count * SECTOR)
        return self._wrote()
