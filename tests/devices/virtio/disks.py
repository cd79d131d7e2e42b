"""Files of disks in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from dbt.devices.medium import DirectMedium, OverlaidMedium
from dbt.devices.virtio.block import Block


@dataclass
class MemoryFile:
    """What :class:`dbt.devices.medium.DiskFile` demands. ``flushes`` are counted; ``fails`` makes it fail."""

    data: bytearray
    flushes: int = 0
    fails: bool = False
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        if self.fails:
            raise OSError(5, "Input/output error")
        return bytes(self.data[offset : offset + size]).ljust(size, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.flushes += 1


def a_file(sectors: int = 64, seed: int = 1) -> MemoryFile:
    return MemoryFile(bytearray(Random(seed).randbytes(sectors * 512)))


def direct(file: MemoryFile, read_only: bool = False) -> Block:
    return Block(DirectMedium(file, read_only), b"disk")


def overlaid(file: MemoryFile) -> Block:
    return Block(OverlaidMedium(file, False), b"disk")
