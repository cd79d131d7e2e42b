"""The arguments of hypercalls in guest memory, by guest virtual address in the caller's regime.

Everything there is the guest's and may change at any time, so it is copied once. A structure may cross pages. What
cannot be reached ends the hypercall with -EFAULT, before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.exits import LeaveGuest
from dbt.abi.layout import PAGE_RAM, PAGE_REFUSES, PAGE_SHIFT, PAGE_SIZE
from dbt.hypervisor.xen.interface import Errno, HypercallError
from dbt.memory.guest_memory import GuestMemory
from isa.arm.faults import AccessKind

_END = 1 << 32
_WORD = _END - 1


class Arguments:
    """Guest memory as hypercalls access it: with the caller's translation and permissions."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._flags = memory.ram.page_flags
        #: The kind of access: that of user mode for a kernel that runs in it.
        self.access = 0

    def read(self, handle: int, size: int) -> bytes:
        """Return ``size`` bytes. Raise HypercallError if not all of them can be read."""
        ram = self._memory.ram.bytes
        return b"".join([bytes(ram[gpa : gpa + length]) for gpa, length in self._pieces(handle, size, self.access)])

    def write(self, handle: int, data: bytes) -> None:
        """Write all of ``data``, or nothing and raise HypercallError."""
        done = 0
        for gpa, length in list(self._pieces(handle, len(data), self.access | AccessKind.WRITE)):
            self._memory.write_ram(gpa, data[done : done + length])
            done += length

    def places(self, handle: int, size: int) -> list[Gpa]:
        """Return the GPAs of the parts of ``size`` bytes, one in each page, that can be written. Raise HypercallError
        if not all of them can.
        """
        return [gpa for gpa, _ in self._pieces(handle, size, self.access | AccessKind.WRITE)]

    def place(self, handle: int, size: int, as_user: int) -> int:
        """Return the GPA of ``size`` bytes, or -1 if they are not in one page that can be read. ``as_user``: with the
        rights of user mode. Compiled code has this, too (:mod:`dbt.backend.device_methods`).
        """
        if handle % PAGE_SIZE + size > PAGE_SIZE:
            return -1
        try:
            ((gpa, _),) = self._pieces(handle, size, AccessKind.USER if as_user else 0)
        except HypercallError:
            return -1
        return gpa

    def unpack(self, handle: int, form: Struct) -> tuple[Any, ...]:
        """Return the members of the structure at ``handle``."""
        return form.unpack(self.read(handle, form.size))

    def _pieces(self, handle: int, size: int, access: int) -> Iterator[tuple[Gpa, int]]:
        gva, end = handle & _WORD, (handle & _WORD) + size
        if end > _END:
            raise HypercallError(Errno.EFAULT)
        while gva < end:
            length = min(PAGE_SIZE - gva % PAGE_SIZE, end - gva)
            try:
                gpa = self._memory.locate_for_host(Gva(gva), access)
            except LeaveGuest:
                raise HypercallError(Errno.EFAULT) from None
            flags = self._flags[gpa >> PAGE_SHIFT]
            if not flags & PAGE_RAM or (flags & PAGE_REFUSES and access & AccessKind.WRITE):
                raise HypercallError(Errno.EFAULT)
            yield gpa, length
            gva += length
