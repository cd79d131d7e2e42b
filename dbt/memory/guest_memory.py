"""Guest memory as Python code accesses it: RAM, devices, and the notification of writes to code.

The reference tier, the loader, semihosting and debuggers use it. Native code uses the shadow page tables, with the same
results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.exits import DataAbort, LeaveGuest
from dbt.abi.layout import PAGE_HAS_CODE, PAGE_LOGGED, PAGE_RAM, PAGE_REFUSES, PAGE_SHIFT, PAGE_WRITABLE
from dbt.memory.ram import Ram
from isa.arm.faults import AccessKind, Fault

#: The flags of a page that say whether somebody wants to hear of a write to it.
_LOGGED_OR_CODE = PAGE_LOGGED | PAGE_HAS_CODE

if TYPE_CHECKING:
    from dbt.memory.dirty_log import Executor
    from dbt.memory.epochs import Epoch, Epochs
    from dbt.memory.translation import Translation


#: A function that is called with PC, GVA, size in bytes and whether it is a store, before an access is made. It may
#: raise LeaveGuest.
AccessHook = Callable[[Gva, Gva, int, bool], None]


class PrivateRegisters(Protocol):
    """A private peripheral: see :mod:`isa.arm.private`. Its numbers begin at 0 here."""

    def read_register(self, number: int) -> int: ...
    def write_register(self, number: int, low: int, high: int) -> None: ...


class Bus(Protocol):
    """The devices, by guest physical address. ``covers`` is called first. Sizes are 1, 2 or 4 bytes."""

    def covers(self, gpa: Gpa, size: int) -> bool: ...
    def read(self, gpa: Gpa, size: int) -> int: ...
    def write(self, gpa: Gpa, size: int, value: int) -> None: ...

    def native_device(self, gpa: Gpa) -> tuple[Gpa, int, int] | None:
        """Return where the registers of the device at ``gpa`` begin, the number of its class and the address of its
        block (:mod:`dbt.devices.shared`), or None if native code cannot make accesses to the page.
        """

    def private(self, number: int) -> tuple[PrivateRegisters, int] | None:
        """Return the private peripheral that has the register of that number (:mod:`isa.arm.private`), and its number
        there, if there is one.
        """


class NoDevices:
    """A bus without devices."""

    def covers(self, gpa: Gpa, size: int) -> bool:
        return False

    def read(self, gpa: Gpa, size: int) -> int:
        raise LookupError(f"no device at GPA {gpa:#010x}")

    def write(self, gpa: Gpa, size: int, value: int) -> None:
        raise LookupError(f"no device at GPA {gpa:#010x}")

    def native_device(self, gpa: Gpa) -> None:
        return None

    def private(self, number: int) -> None:
        return None


class GuestMemory:
    """Loads and stores by GVA, little-endian. Without a ``translation`` a GVA is a GPA. The given one holds while no
    executor is attached.

    ``on_write(gpa, size)`` is called before RAM changes under a code page, that is where the page's flags have
    :data:`dbt.abi.layout.PAGE_HAS_CODE`.
    """

    def __init__(self, ram: Ram, bus: Bus | None = None, translation: Translation | None = None) -> None:
        self.ram = ram
        self.bus: Bus = bus if bus is not None else NoDevices()
        self.translation = self._own_translation = translation
        self._flags = ram.page_flags
        self.on_write: Callable[[Gpa, int], None] | None = None
        self._on_access: AccessHook | None = None
        self._answers: list[int] = []  # to device accesses that the present instruction has made before
        self.device_accesses = 0  # made by :meth:`read_device` and :meth:`write_device`

    def connect(
        self, translation: Translation, executor: Executor, on_write: Callable[[Gpa, int], None] | None = None
    ) -> None:
        """Attach the executor of the guest's code, which says how addresses are translated and if it must hear of
        writes.
        """
        self.translation, self.on_write = translation, on_write
        self.ram.dirty_log.connect(executor)

    def disconnect(self) -> None:
        """Nobody executes the guest's code any more."""
        self.translation = self._own_translation
        self.on_write = self._on_access = None
        self.ram.dirty_log.disconnect()

    def watch(self, on_access: AccessHook | None) -> None:
        """Call a function before each load and store of the guest that is permitted, or none."""
        self._on_access = on_access

    def replay(self, answers: list[int]) -> None:
        """Take the answers to the next device accesses from a list, because they have been made. An instruction whose
        device accesses have begun is to be completed.
        """
        self._answers = answers

    def locate(self, gva: Gva, size: int, access: int, pc: Gva) -> Gpa:
        """Return the GPA of an access that does not cross a page. Raise LeaveGuest with an abort if there is none."""
        return Gpa(gva) if self.translation is None else self.translation.locate(gva, size, access, pc)

    def locate_for_host(self, gva: Gva, access: int) -> Gpa:
        """Return the GPA of a byte that the host accesses for the guest, by the page tables as they are now: what has
        been kept of them differs between tiers. Raise LeaveGuest with an abort if there is none.
        """
        return Gpa(gva) if self.translation is None else self.translation.locate(gva, 1, access, gva, anew=True)

    def load(self, gva: Gva, size: int, pc: Gva, aligned: bool = False, user: bool = False) -> int:
        """Return the ``size`` bytes (1, 2 or 4) at ``gva``, zero-extended. Raise LeaveGuest with a DataAbort if not
        permitted.

        ``user`` applies the permissions of user mode, whatever the mode is. ``aligned`` makes an address that is not a
        multiple of the size an alignment fault.
        """
        if gva & (size - 1):
            if aligned:
                raise LeaveGuest(DataAbort(pc, gva, size, False, Fault.ALIGNMENT))
            if (gva & 0xFFF) + size > 0x1000:
                return self._load_bytes(gva, size, pc, user)
        gpa = self.locate(gva, size, AccessKind.USER if user else 0, pc)
        if self._on_access is not None:
            self._on_access(pc, gva, size, False)
        if self._flags[gpa >> PAGE_SHIFT] & PAGE_RAM:
            return int.from_bytes(self.ram.bytes[gpa : gpa + size], "little")
        if gva & (size - 1):
            return self._load_bytes(gva, size, pc, user)
        if self.bus.covers(gpa, size):
            return self.read_device(gpa, size)
        raise LeaveGuest(DataAbort(pc, gva, size, False, Fault.EXTERNAL))

    def _load_bytes(self, gva: Gva, size: int, pc: Gva, user: bool) -> int:
        """Return the bytes of an unaligned load that is not within one page of RAM, byte by byte."""
        return sum(self.load(Gva((gva + i) & 0xFFFFFFFF), 1, pc, False, user) << 8 * i for i in range(size))

    def store(self, gva: Gva, size: int, value: int, pc: Gva, aligned: bool = False, user: bool = False) -> None:
        """Store the low ``size`` bytes of ``value``. Raise LeaveGuest with a DataAbort if not permitted."""
        if gva & (size - 1):
            if aligned:
                raise LeaveGuest(DataAbort(pc, gva, size, True, Fault.ALIGNMENT))
            if (gva & 0xFFF) + size > 0x1000:
                self._store_bytes(gva, size, value, pc, user)
                return
        access = AccessKind.WRITE | AccessKind.USER if user else AccessKind.WRITE
        gpa = self.locate(gva, size, access, pc)
        if self._on_access is not None:
            self._on_access(pc, gva, size, True)
        flags = self._flags[gpa >> PAGE_SHIFT]
        if flags & PAGE_RAM:
            if flags & PAGE_WRITABLE:  # choice: read-only-ram
                self.write_known_ram(gpa, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))
            elif flags & PAGE_REFUSES:
                raise LeaveGuest(DataAbort(pc, gva, size, True, Fault.EXTERNAL))
        elif gva & (size - 1):
            self._store_bytes(gva, size, value, pc, user)
        elif self.bus.covers(gpa, size):
            self.write_device(gpa, size, value)
        else:
            raise LeaveGuest(DataAbort(pc, gva, size, True, Fault.EXTERNAL))

    def _store_bytes(self, gva: Gva, size: int, value: int, pc: Gva, user: bool) -> None:
        """Do an unaligned store that is not within one page of RAM, byte by byte. Store all bytes or none."""
        self._probe_store(gva, size, pc, user)
        for i in range(size):
            self.store(Gva((gva + i) & 0xFFFFFFFF), 1, value >> 8 * i, pc, False, user)

    def _probe_store(self, gva: Gva, size: int, pc: Gva, user: bool) -> None:
        """Raise the exception that a store of ``size`` single bytes would raise, without storing."""
        access = AccessKind.WRITE | AccessKind.USER if user else AccessKind.WRITE
        for i in range(size):
            byte = Gva((gva + i) & 0xFFFFFFFF)
            gpa = self.locate(byte, 1, access, pc)
            is_there = gpa in self.ram or self.bus.covers(gpa, 1)
            if not is_there or self.ram.page_flags[gpa >> PAGE_SHIFT] & PAGE_REFUSES:
                raise LeaveGuest(DataAbort(pc, byte, 1, True, Fault.EXTERNAL))

    def read_device(self, gpa: Gpa, size: int) -> int:
        if self._answers:
            return self._answers.pop(0)
        self.device_accesses += 1
        return self.bus.read(gpa, size)

    def write_device(self, gpa: Gpa, size: int, value: int) -> None:
        if self._answers:
            self._answers.pop(0)
            return
        self.device_accesses += 1
        self.bus.write(gpa, size, value & ((1 << 8 * size) - 1))

    def read_private(self, number: int) -> int | None:
        """Return a word of a private peripheral (:mod:`isa.arm.private`), or None if there is no such peripheral."""
        found = self.bus.private(number)
        if found is None:
            return None
        self.device_accesses += 1
        device, there = found
        return device.read_register(there)

    def write_private(self, number: int, low: int, high: int) -> bool:
        """Write a register of a private peripheral. Return False if there is no such peripheral."""
        found = self.bus.private(number)
        if found is None:
            return False
        self.device_accesses += 1
        device, there = found
        device.write_register(there, low, high)
        return True

    # -- physical ------------------------------------------------------------------------------

    def in_ram(self, gpa: Gpa) -> int:
        """Return 1 if there is RAM at ``gpa``, a multiple of 4, else 0."""
        return self._flags[gpa >> PAGE_SHIFT] & PAGE_RAM

    def load_physical(self, gpa: Gpa) -> int:
        """Return the word of RAM at ``gpa``."""
        return int.from_bytes(self.ram.bytes[gpa : gpa + 4], "little")

    def write_ram(self, gpa: Gpa, data: bytes | memoryview) -> None:
        """Write within RAM on the hypervisor's behalf (loader, DMA, debugger), telling ``on_write``."""
        self._check(gpa, len(data))
        self.write_known_ram(gpa, data)

    def give_back(self, gpa: Gpa, size: int) -> None:
        """Make whole pages of RAM zero, as :meth:`write_ram` would, and give their memory back to the host."""
        self._check(gpa, size)
        self._before_write(gpa, size, gpa >> PAGE_SHIFT, gpa + size - 1 >> PAGE_SHIFT)
        self.ram.give_back(gpa, size)

    def write_known_ram(self, gpa: Gpa, data: bytes | memoryview) -> None:
        """Do as :meth:`write_ram`. Precondition: all of the bytes are RAM."""
        first, last = gpa >> PAGE_SHIFT, gpa + len(data) - 1 >> PAGE_SHIFT
        if (
            self._flags[first] & _LOGGED_OR_CODE != PAGE_LOGGED
            or self._flags[last] & _LOGGED_OR_CODE != PAGE_LOGGED
            or last - first > 1
        ):
            self._before_write(gpa, len(data), first, last)
        self.ram.bytes[gpa : gpa + len(data)] = data

    def write_known_pieces(self, pieces: Iterable[tuple[int, int]], data: memoryview) -> None:
        """Write the bytes of ``data`` one after the other to pieces of RAM: GPA and size of each, which is not 0.
        Precondition: as for :meth:`write_known_ram`.
        """
        flags, ram, at = self._flags, self.ram.bytes, 0
        for gpa, size in pieces:
            end = gpa + size
            first, last = gpa >> PAGE_SHIFT, end - 1 >> PAGE_SHIFT
            if (
                flags[first] & _LOGGED_OR_CODE != PAGE_LOGGED
                or (last != first and flags[last] & _LOGGED_OR_CODE != PAGE_LOGGED)
                or last - first > 1
            ):
                self._before_write(Gpa(gpa), size, first, last)
            ram[gpa:end] = data[at : at + size]
            at += size

    def _before_write(self, gpa: Gpa, size: int, first: int, last: int) -> None:
        """Note that the pages from number ``first`` to ``last`` are about to be written."""
        if not size:
            return
        if self.on_write is not None and max(self._flags[first : last + 1]) >= PAGE_HAS_CODE:
            self.on_write(gpa, size)
        self.ram.dirty_log.note(first, last)

    # -- epochs --------------------------------------------------------------------------------

    @cached_property
    def epochs(self) -> Epochs:
        """The epochs of this RAM. They are imported late, because few guests have one."""
        from dbt.memory.epochs import Epochs

        return Epochs(self.ram.dirty_log, self._flags)

    def begin_epoch(self, keeps_contents: bool = False) -> Epoch:
        """Return an epoch that begins now: see :mod:`dbt.memory.epochs`. The guest must not be executing."""
        return self.epochs.begin(keeps_contents)

    def roll_back(self, epoch: Epoch) -> int:
        """Give RAM the content that it had when ``epoch`` began: see :meth:`dbt.memory.epochs.Epochs.roll_back`.

        Decoded and compiled code stays, but for what was made from words that change.
        """
        return self.epochs.roll_back(epoch, self.on_write)

    def refuses(self, gpa: Gpa, size: int) -> bool:
        """Return True if a byte is in a page to which the guest's stores abort, though it is RAM."""
        refusing = self.ram.dirty_log.refusing
        pages = range(gpa >> PAGE_SHIFT, (gpa + size - 1 >> PAGE_SHIFT) + 1)
        return bool(refusing) and not refusing.isdisjoint(pages)

    def _check(self, gpa: Gpa, size: int) -> None:
        if not self.ram.layout.covers(gpa, size):
            raise ValueError(f"[{gpa:#x}, {gpa + size:#x}) is not within the RAM, {self.ram.layout}")

    def read_ram(self, gpa: Gpa, size: int) -> bytes:
        """Return ``size`` bytes of RAM. Raise ValueError if not all of them are RAM."""
        self._check(gpa, size)
        return bytes(self.ram.bytes[gpa : gpa + size])
