"""Direct memory access: guest RAM as a device reads and writes it, by addresses that the guest has chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_HAS_CODE, PAGE_RAM, PAGE_SHIFT, PAGE_SIZE, PAGE_WRITABLE
from dbt.memory.guest_memory import GuestMemory

if TYPE_CHECKING:
    from dbt.memory.epochs import Epoch


class DmaError(ValueError):
    """Raised if a device is told to access what is not RAM. Nothing has been read or written then."""


class Dma:
    """RAM for devices. Addresses are any integers, because they come from the guest.

    ``layout`` says where there is RAM. What a device writes is entered into the dirty log, and changes code that has
    been translated, as all writes do.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.layout = memory.ram.layout
        main = self.layout.main
        #: Bounds of RAM, between which all is RAM; there may be more elsewhere.
        self.low, self.high = main.base, main.end
        self._read_only = [region for region in self.layout.regions if region.read_only]

    def begin_epoch(self) -> Epoch:
        """Return an epoch that begins now, with the pages that are written from now on (:mod:`dbt.memory.epochs`)."""
        return self._memory.begin_epoch()

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes from the GPA ``address`` on. Raise DmaError if not all of them are RAM."""
        return bytes(self.view(address, size))

    def view(self, address: int, size: int) -> memoryview:
        """Return ``size`` bytes from the GPA ``address`` on as they are in RAM, for reading at once. Raise DmaError if
        not all of them are RAM.
        """
        if not (size > 0 and self.low <= address and address + size <= self.high):
            self.check(address, size)
        return self._memory.ram.bytes[address : address + size]

    def read_half(self, address: int) -> int:
        """Return the two bytes from the GPA ``address`` on as a number. Raise DmaError if they are not RAM."""
        return int.from_bytes(self.view(address, 2), "little")

    # The methods from here to ``put_word`` are there for compiled code too (:mod:`dbt.backend.device_methods`), which
    # has made sure that there is RAM.

    def is_plain(self, address: int) -> bool:
        """Return True if the page of an address is RAM to which one can write, and has no code."""
        flags = self._memory.ram.page_flags[address >> PAGE_SHIFT]
        return flags & (PAGE_RAM | PAGE_WRITABLE | PAGE_HAS_CODE) == PAGE_RAM | PAGE_WRITABLE

    def takes_words(self, address: int) -> bool:
        """Return True if the word at an address can be written at once. In native code that is so in a page with code,
        too, unless a region was made from the word.
        """
        flags = self._memory.ram.page_flags[address >> PAGE_SHIFT]
        return flags & (PAGE_RAM | PAGE_WRITABLE) == PAGE_RAM | PAGE_WRITABLE

    def byte(self, address: int) -> int:
        """Return the byte at a GPA."""
        return self.view(address, 1)[0]

    def word(self, address: int) -> int:
        """Return the four bytes from a GPA on as a number."""
        return int.from_bytes(self.view(address, 4), "little")

    def first_used(self, address: int, end: int) -> int:
        """Return the GPA of the first word from ``address`` on that is not 0, or ``end``. Both are multiples of 4."""
        if address >= end:
            return end
        rest = self.read(address, end - address).lstrip(b"\0")
        return end - len(rest) & ~3

    def put_byte(self, address: int, value: int) -> None:
        """Write a byte."""
        self.write(address, value.to_bytes(1, "little"))

    def put_word(self, address: int, value: int) -> None:
        """Write four bytes."""
        self.write(address, value.to_bytes(4, "little"))

    def check(self, address: int, size: int) -> None:
        """Raise DmaError if not all of these bytes are RAM."""
        if size > 0 and self.low <= address and address + size <= self.high:  # as almost always
            return
        if not self.layout.covers(Gpa(address), size):
            raise DmaError(f"[{address:#x}, {address + size:#x}) is not within the RAM, {self.layout}")

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Write from the GPA ``address`` on. Raise DmaError if not all of the bytes are RAM.

        A write that touches read-only RAM is ignored, as a store of the guest is.
        """
        end = address + len(data)
        if not (self.low <= address < end <= self.high):
            self.check(address, len(data))
        if not self._read_only or not any(one.base < end and address < one.end for one in self._read_only):
            self._memory.write_known_ram(Gpa(address), data)

    def write_pieces(self, pieces: Sequence[tuple[int, int]], data: memoryview) -> None:
        """Write the bytes of ``data`` one after the other to pieces of RAM: GPA and size of each, which is not 0.
        As :meth:`write` otherwise, but for the precondition: :meth:`check` has seen them.
        """
        if not self._read_only:
            self._memory.write_known_pieces(pieces, data)
            return
        at = 0
        for address, size in pieces:
            self.write(address, data[at : at + size])
            at += size

    def refuse_stores(self, pages: Iterable[int]) -> None:
        """Let the guest's stores abort in the pages that begin at these addresses, and nowhere else. Devices write
        there. Precondition: they are RAM that is not read-only.
        """
        log, wanted = self._memory.ram.dirty_log, {page >> PAGE_SHIFT for page in pages}
        for page in log.refusing - wanted:
            log.allow_stores(page)
        for page in wanted - log.refusing:
            log.refuse_stores(page)

    def refuse_stores_to(self, page: int) -> None:
        """Let the guest's stores abort in the page that begins at an address, too."""
        self._memory.ram.dirty_log.refuse_stores(page >> PAGE_SHIFT)

    def allow_stores_to(self, page: int) -> None:
        """Let the guest store to the page again that begins at an address."""
        self._memory.ram.dirty_log.allow_stores(page >> PAGE_SHIFT)

    def give_back(self, address: int, size: int) -> None:
        """Make RAM zero, but for read-only RAM, and give the memory of whole pages to the host. Raise DmaError if not
        all of the bytes are RAM.
        """
        self.check(address, size)
        for region in self.layout.regions:
            start, end = max(address, region.base), min(address + size, region.end)
            if start < end and not region.read_only:
                self._give_back(start, end)

    def _give_back(self, start: int, end: int) -> None:
        first, last = -(-start // PAGE_SIZE) * PAGE_SIZE, end // PAGE_SIZE * PAGE_SIZE
        if first >= last:
            self._memory.write_ram(Gpa(start), bytes(end - start))
            return
        self._memory.give_back(Gpa(first), last - first)
        for at, stop in ((start, first), (last, end)):
            if at < stop:
                self._memory.write_ram(Gpa(at), bytes(stop - at))
