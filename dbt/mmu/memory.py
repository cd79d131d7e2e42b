"""Guest memory as Python code accesses it: RAM, devices, and who must hear of a write.

This is the road of the reference evaluator, the loader, semihosting and debuggers. Native code has
its own, through the shadow page tables, with the same results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dbt.mmu.ram import PAGE_SHIFT, Ram
from dbt.runtime.exits import AbortReason, DataAbort, LeaveGuest


class Bus(Protocol):
    """Devices by guest physical address. ``covers`` is asked first."""

    def covers(self, gpa: int, size: int) -> bool: ...
    def read(self, gpa: int, size: int) -> int: ...
    def write(self, gpa: int, size: int, value: int) -> None: ...


class NoDevices:
    """A bus without devices."""

    def covers(self, gpa: int, size: int) -> bool:
        return False

    def read(self, gpa: int, size: int) -> int:
        raise LookupError(f"no device at GPA {gpa:#010x}")

    def write(self, gpa: int, size: int, value: int) -> None:
        raise LookupError(f"no device at GPA {gpa:#010x}")


class GuestMemory:
    """Loads and stores by GVA, little-endian. The stage 1 map is the identity.

    ``on_write(gpa, size)`` is called before RAM changes under a code page, that is when
    ``code_page_present[gpa >> 12]`` is set.
    """

    def __init__(self, ram: Ram, bus: Bus | None = None) -> None:
        self.ram = ram
        self.bus: Bus = bus if bus is not None else NoDevices()
        self.code_page_present = bytearray(ram.size >> PAGE_SHIFT)
        self.on_write: Callable[[int, int], None] | None = None

    def load(self, gva: int, size: int, pc: int, aligned: bool = False) -> int:
        """``size`` bytes at ``gva``, zero-extended; LeaveGuest with a DataAbort if not permitted."""
        if gva & (size - 1):
            if aligned:
                raise LeaveGuest(DataAbort(pc, gva, size, False, AbortReason.ALIGNMENT))
            if (gva & 0xFFF) + size > 0x1000 or gva >= self.ram.size:
                return sum(self.load((gva + i) & 0xFFFFFFFF, 1, pc) << 8 * i for i in range(size))
        if gva + size <= self.ram.size:
            return int.from_bytes(self.ram.bytes[gva : gva + size], "little")
        if self.bus.covers(gva, size):
            return self.bus.read(gva, size)
        raise LeaveGuest(DataAbort(pc, gva, size, False, AbortReason.UNMAPPED))

    def store(self, gva: int, size: int, value: int, pc: int, aligned: bool = False) -> None:
        """Store the low ``size`` bytes of ``value``; LeaveGuest with a DataAbort if not permitted."""
        if gva & (size - 1):
            if aligned:
                raise LeaveGuest(DataAbort(pc, gva, size, True, AbortReason.ALIGNMENT))
            if (gva & 0xFFF) + size > 0x1000 or gva >= self.ram.size:
                self.probe_store(gva, size, pc)
                for i in range(size):
                    self.store((gva + i) & 0xFFFFFFFF, 1, value >> 8 * i, pc)
                return
        if gva + size <= self.ram.size:
            self.write_ram(gva, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))
        elif self.bus.covers(gva, size):
            self.bus.write(gva, size, value & ((1 << 8 * size) - 1))
        else:
            raise LeaveGuest(DataAbort(pc, gva, size, True, AbortReason.UNMAPPED))

    def probe_store(self, gva: int, size: int, pc: int) -> None:
        """Raise what a store of ``size`` single bytes would raise, without storing."""
        for i in range(size):
            byte = (gva + i) & 0xFFFFFFFF
            if byte >= self.ram.size and not self.bus.covers(byte, 1):
                raise LeaveGuest(DataAbort(pc, byte, 1, True, AbortReason.UNMAPPED))

    def write_ram(self, gpa: int, data: bytes | memoryview) -> None:
        """Write within RAM on the hypervisor's behalf (loader, DMA, debugger), telling ``on_write``."""
        if gpa < 0 or gpa + len(data) > self.ram.size:
            raise ValueError(f"[{gpa:#x}, {gpa + len(data):#x}) is not within the {self.ram.size:#x} bytes of RAM")
        if self.on_write is not None and data:
            first, last = gpa >> PAGE_SHIFT, gpa + len(data) - 1 >> PAGE_SHIFT
            if any(self.code_page_present[first : last + 1]):
                self.on_write(gpa, len(data))
        self.ram.bytes[gpa : gpa + len(data)] = data

    def read_ram(self, gpa: int, size: int) -> bytes:
        if gpa < 0 or gpa + size > self.ram.size:
            raise ValueError(f"[{gpa:#x}, {gpa + size:#x}) is not within the {self.ram.size:#x} bytes of RAM")
        return bytes(self.ram.bytes[gpa : gpa + size])
