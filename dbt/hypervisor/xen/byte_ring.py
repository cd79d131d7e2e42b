"""A ring of bytes in a page of the guest's, between two indices that only grow and are taken modulo its size.

It is a part of the interfaces of the console and of XenStore. How far the indices are believed is for these to say.
"""

from __future__ import annotations

from typing import NamedTuple

from dbt.abi.addresses import Gpa
from dbt.memory.dma import Dma


class ByteRing(NamedTuple):
    """The ring of ``size`` bytes at ``base``."""

    base: Gpa
    size: int

    def read(self, dma: Dma, index: int, count: int) -> bytes:
        """Return ``count`` bytes from an index on, no more than the ring has."""
        ring, start = dma.read(self.base, self.size), index % self.size
        return (ring[start:] + ring[:start])[:count]

    def write(self, dma: Dma, index: int, data: bytes) -> None:
        """Put bytes there from an index on, no more than the ring has."""
        start = index % self.size
        first = data[: self.size - start]
        dma.write(self.base + start, first)
        dma.write(self.base, data[len(first) :])
