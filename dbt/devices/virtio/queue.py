"""The split virtqueue (virtio 1.2, section 2.7), which trusts nothing that the guest has written.

A queue has three tables in guest RAM: descriptors, the *available* ring that the driver writes, and the *used* ring
that the device writes. A chain of descriptors is a request: first the buffers that the device reads, then those that
it writes.

Whatever is wrong with a table raises QueueError: then the device needs a reset. How much work a chain can ask for is
bounded by :data:`MAX_SIZE` descriptors and :data:`MAX_BYTES` bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dbt.devices.state import Stateful, Wiring, Word
from dbt.memory.dma import Dma

#: Entries of the largest queue, and descriptors of the longest chain.
MAX_SIZE: Final = 1024
#: The bytes of all buffers of a chain, unless the device says otherwise. Drivers stay far below; a request must not
#: keep the host busy for long.
MAX_BYTES: Final = 64 << 20

RING_F_INDIRECT_DESC: Final = 1 << 28
RING_F_EVENT_IDX: Final = 1 << 29

_NEXT, _WRITE, _INDIRECT = 1, 2, 4
_NO_INTERRUPT = 1
_DESCRIPTOR = struct.Struct("<QIHH")
_INDEX = struct.Struct("<H")
_MASK = 0xFFFF


class QueueError(ValueError):
    """Raised for a queue that no driver would write. The text says what is wrong."""


#: A buffer in guest RAM: its GPA, which may be any 64-bit number, and its size in bytes.
Buffer = tuple[int, int]


class Chain:
    """A request: ``head`` names it; ``readable`` and ``writable`` are the buffers, all within RAM.

    ``out_size`` and ``in_size`` are the bytes that the device can read and write: those of the buffers.
    """

    __slots__ = ("_dma", "head", "in_size", "out_size", "readable", "writable")

    def __init__(
        self,
        dma: Dma,
        head: int,
        readable: Sequence[Buffer],
        writable: Sequence[Buffer],
        out_size: int,
        in_size: int,
    ) -> None:
        self._dma = dma
        self.head = head
        self.readable = readable
        self.writable = writable
        self.out_size = out_size
        self.in_size = in_size

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return the bytes that the driver sends, from ``offset`` on and at most ``size``, fewer if there are fewer."""
        end = self.out_size if size is None else min(offset + size, self.out_size)
        return b"".join([self._dma.view(*piece) for piece in _pieces(self.readable, offset, end)])

    def write(self, data: bytes | memoryview, offset: int = 0) -> int:
        """Write to the buffers from ``offset`` on, and return how many bytes there was room for."""
        if not offset and len(self.writable) == 1 and len(data) <= self.in_size:  # as for nearly all frames
            if data:
                self._dma.write(self.writable[0][0], data)
            return len(data)
        done = max(0, min(len(data), self.in_size - offset))
        self._dma.write_pieces(_pieces(self.writable, offset, offset + done), memoryview(data))
        return done


def _pieces(buffers: Sequence[Buffer], start: int, end: int) -> list[Buffer]:
    """Return the parts of the buffers that have the bytes from ``start`` to ``end`` of them all."""
    pieces: list[Buffer] = []
    at = 0
    for buffer in buffers:
        if at >= end:
            break
        address, size = buffer
        after = at + size
        if start <= at and after <= end:  # as nearly all are
            pieces.append(buffer)
        elif after > start:
            first = start if start > at else at
            pieces.append((address + first - at, (after if after < end else end) - first))
        at = after
    return pieces


@dataclass(eq=False)
class VirtQueue(Stateful):
    """One queue. Its tables are at ``desc``, ``avail`` and ``used``, each a GPA in two words, the low one first.

    ``size`` is the number of its entries. ``next_avail`` is the index of the available ring up to which the device has
    taken requests, ``next_used`` that of the used ring up to which it has answered. Indices count modulo 2^16.
    ``signalled`` is ``next_used`` when an interrupt was considered last; ``has_signalled`` is False before.
    """

    dma: Wiring[Dma]
    size: int = MAX_SIZE
    ready: bool = False
    desc_low: Word = 0
    desc_high: Word = 0
    avail_low: Word = 0
    avail_high: Word = 0
    used_low: Word = 0
    used_high: Word = 0
    next_avail: int = 0
    next_used: int = 0
    signalled: int = 0
    has_signalled: bool = False
    given: Wiring[list[int]] = field(default_factory=list, init=False)  # heads and lengths, during an access
    #: The latest request with an indirect table, which is looked at when it begins and when it is served: what it
    #: follows from (its head, the most bytes, the table), and the request.
    latest: Wiring[tuple[tuple[int, int, bytes], Chain] | None] = field(default=None, init=False)

    def is_possible(self) -> bool:
        indices = (self.next_avail, self.next_used, self.signalled)
        return 0 < self.size <= MAX_SIZE and all(0 <= index <= _MASK for index in indices)

    @property
    def desc(self) -> int:
        return self.desc_high << 32 | self.desc_low

    @property
    def avail(self) -> int:
        return self.avail_high << 32 | self.avail_low

    @property
    def used(self) -> int:
        return self.used_high << 32 | self.used_low

    def reset(self) -> None:
        """Make it as at power-on."""
        self.ready, self.size = False, MAX_SIZE
        self.desc_low = self.desc_high = self.avail_low = self.avail_high = self.used_low = self.used_high = 0
        self.next_avail = self.next_used = self.signalled = 0
        self.has_signalled = False

    # -- requests ------------------------------------------------------------------------------

    def waiting(self) -> int:
        """Return how many requests the driver has made available that have not been taken."""
        count = self._index(self.avail + 2) - self.next_avail & _MASK
        if count > self.size:
            raise self._too_many(count)
        return count

    def _too_many(self, count: int) -> QueueError:
        return QueueError(f"{count} requests are available in a queue of {self.size}")

    def take(self) -> int | None:
        """Take the next request and return its head, or None if there is none."""
        ring = self.dma.view(self.avail, 4 + 2 * self.size)
        count = ring[2] + (ring[3] << 8) - self.next_avail & _MASK
        if count > self.size:
            raise self._too_many(count)
        if not count:
            return None
        at = 4 + 2 * (self.next_avail % self.size)
        self.next_avail = self.next_avail + 1 & _MASK
        return ring[at] + (ring[at + 1] << 8)

    def take_some(self, most: int) -> list[int]:
        """Take at most so many requests and return their heads."""
        count = min(self.waiting(), most)
        first = self.next_avail % self.size
        ring = self.dma.view(self.avail + 4, 2 * self.size).cast("H")
        heads = ring[first : first + count].tolist()
        heads += ring[: count - len(heads)].tolist()
        self.next_avail = self.next_avail + count & _MASK
        return heads

    def put_back(self, count: int) -> None:
        """Have the last ``count`` requests not taken."""
        self.next_avail = self.next_avail - count & _MASK

    def chain(self, head: int, features: int, most: int = MAX_BYTES) -> Chain:
        """Return the request that begins with descriptor ``head``, whose buffers have at most ``most`` bytes."""
        dma, entries, index, left = self.dma, self.size, head, MAX_SIZE
        table: bytes | memoryview = dma.view(self.desc, 16 * entries)
        key: tuple[int, int, bytes] | None = None
        readable: list[Buffer] = []
        writable: list[Buffer] = []
        out_size = in_size = 0
        is_indirect = False
        low, high, unpack = dma.low, dma.high, _DESCRIPTOR.unpack_from
        while True:
            if index >= entries:
                raise QueueError(f"descriptor {index} in chain {head} is behind the end of a table of {entries}")
            if not left:  # A loop is found by its length.
                raise QueueError(f"descriptor chain {head} has more than {MAX_SIZE} descriptors, or is a loop")
            left -= 1
            address, size, flags, index = unpack(table, 16 * index)
            if flags & _INDIRECT:
                if is_indirect or flags & _NEXT or not features & RING_F_INDIRECT_DESC:
                    raise QueueError(f"descriptor chain {head} must not have an indirect descriptor there")
                if not size or size % 16:
                    raise QueueError(f"the indirect table of chain {head} has {size} bytes")
                is_whole = left == MAX_SIZE - 1
                table, entries, index, is_indirect = dma.read(address, size), size // 16, 0, True
                if is_whole:
                    key = (head, most, table)
                    if self.latest is not None and self.latest[0] == key:
                        return self.latest[1]
                continue
            if not size:
                raise QueueError(f"descriptor chain {head} has an empty buffer")
            if out_size + in_size + size > most:
                raise QueueError(f"descriptor chain {head} has more than {most} bytes")
            if address < low or address + size > high:
                dma.check(address, size)
            if flags & _WRITE:
                writable.append((address, size))
                in_size += size
            elif writable:
                raise QueueError(f"descriptor chain {head} has a readable buffer behind a writable one")
            else:
                readable.append((address, size))
                out_size += size
            if not flags & _NEXT:
                chain = Chain(dma, head, readable, writable, out_size, in_size)
                if key is not None:
                    self.latest = (key, chain)
                return chain

    # -- answers -------------------------------------------------------------------------------

    def push(self, head: int, written: int) -> None:
        """Give a request back, with the number of bytes that were written to its buffers, when :meth:`publish` is
        called.
        """
        self.given += (head, written)

    def publish(self) -> bool:
        """Let the driver find what has been given back. Return True if that is anything."""
        given = self.given
        if not given:
            return False
        self.given = []
        at = 0
        while at < len(given):  # once, or twice at the end of the ring
            place = self.next_used % self.size
            part = given[at : at + 2 * (self.size - place)]
            self.dma.write(self.used + 4 + 8 * place, struct.pack(f"<{len(part)}I", *part))
            self.next_used = self.next_used + len(part) // 2 & _MASK
            at += len(part)
        self.dma.write(self.used + 2, _INDEX.pack(self.next_used))
        return True

    def wants_interrupt(self, features: int) -> bool:
        """Return True if the driver wants to hear of the answers since this was asked last."""
        old, new, is_first = self.signalled, self.next_used, not self.has_signalled
        self.signalled, self.has_signalled = new, True
        if features & RING_F_EVENT_IDX:
            event = self._index(self.avail + 4 + 2 * self.size)
            return is_first or (new - event - 1 & _MASK) < (new - old & _MASK)
        return not self._index(self.avail) & _NO_INTERRUPT

    def want_notice(self, features: int) -> None:
        """Tell the driver to notify the device of the next request."""
        if features & RING_F_EVENT_IDX:
            self.dma.write(self.used + 4 + 8 * self.size, _INDEX.pack(self.next_avail))

    def _index(self, address: int) -> int:
        return self.dma.read_half(address)
