"""Guest memory by virtual address, for semihosting and debuggers.

An address is translated as for the guest at this moment, with the permissions of its current mode, page by page.
"""

from __future__ import annotations

from collections.abc import Iterator

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.exits import LeaveGuest
from dbt.abi.layout import PAGE_RAM, PAGE_SHIFT, PAGE_SIZE
from dbt.memory.guest_memory import GuestMemory

_END = 1 << 32


class BadAddress(Exception):
    """Raised if there is no RAM at a virtual address, or if the guest may not read it."""

    def __init__(self, gva: Gva) -> None:
        super().__init__(f"there is no RAM to be read at the virtual address {gva:#010x}")
        self.gva = gva


class VirtualMemory:
    """Reads and writes RAM by GVA. As in QEMU's semihosting, a write needs only the permission to read."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._ram, self._flags = memory.ram.bytes, memory.ram.page_flags

    def locate(self, gva: Gva) -> Gpa:
        """Return the physical address of a byte of RAM. Raise BadAddress if there is none."""
        try:
            gpa = self._memory.locate_for_host(gva, 0)
        except LeaveGuest:
            raise BadAddress(gva) from None
        if not self._flags[gpa >> PAGE_SHIFT] & PAGE_RAM:
            raise BadAddress(gva)
        return gpa

    def pieces(self, gva: Gva, size: int) -> Iterator[tuple[Gpa, int]]:
        """Yield physical address and size of each piece of the bytes that lies within a page, in order."""
        end = gva + size
        if gva < 0 or end > _END or size > self._memory.ram.size:  # pages that are mapped again and again
            raise BadAddress(Gva(max(gva, 0) & _END - 1))
        while gva < end:
            length = min(PAGE_SIZE - gva % PAGE_SIZE, end - gva)
            yield self.locate(gva), length
            gva = Gva(gva + length)

    def check(self, gva: Gva, size: int) -> None:
        """Raise BadAddress unless all bytes can be reached."""
        for _ in self.pieces(gva, size):
            pass

    def read(self, gva: Gva, size: int) -> bytes:
        """Return ``size`` bytes. Raise BadAddress if not all of them can be reached."""
        if 0 < size <= PAGE_SIZE - gva % PAGE_SIZE and 0 <= gva < _END:  # most pieces lie within a page
            gpa = self.locate(gva)
            return self._ram[gpa : gpa + size].tobytes()
        return b"".join([self._memory.read_ram(gpa, length) for gpa, length in self.pieces(gva, size)])

    def read_string(self, gva: Gva) -> bytes:
        """Return the bytes up to a NUL. Raise BadAddress if there is none before the memory ends."""
        data = bytearray()
        while True:
            if gva >= _END or len(data) > self._memory.ram.size:
                raise BadAddress(Gva(_END - 1))
            length = PAGE_SIZE - gva % PAGE_SIZE
            piece = self._memory.read_ram(self.locate(gva), length)
            nul = piece.find(0)
            if nul >= 0:
                return bytes(data + piece[:nul])
            data += piece
            gva = Gva(gva + length)

    def write(self, gva: Gva, data: bytes) -> None:
        """Write all of ``data``, or none of it and raise BadAddress, as where the guest's stores abort."""
        done, pieces = 0, list(self.pieces(gva, len(data)))
        if any(self._memory.refuses(gpa, length) for gpa, length in pieces):
            raise BadAddress(gva)
        for gpa, length in pieces:
            self._memory.write_ram(gpa, data[done : done + length])
            done += length
