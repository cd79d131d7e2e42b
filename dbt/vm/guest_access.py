"""A machine's registers and memory for whoever embeds it: a debugger, a test, a fuzzer."""

from __future__ import annotations

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import CpuState
from dbt.inspector.inspector import Inspector
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from dbt.vm.ownership import Ownership
from dbt.vm.parts import Parts
from dbt.vm.registers import Registers
from isa.arm.state import BANKS, PSR_E, PSR_MODE, PSR_T


class GuestAccess:
    """What can be read and written while a machine stands between two instructions.

    Raises RuntimeError where the machine may not be used: see :class:`dbt.vm.ownership.Ownership`.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._ownership = Ownership()
        #: The sixteen registers of the current mode, to read and to write.
        self.r = Registers(parts.cpu, self._ownership.check)

    @property
    def cpu(self) -> CpuState:
        """The registers as the engine has them, banked ones too."""
        self._ownership.check()
        return self._parts.cpu

    @property
    def ram(self) -> Ram:
        """The RAM as the engine has it. What is written to it directly is not seen by code that was translated."""
        self._ownership.check()
        return self._parts.ram

    @property
    def memory(self) -> GuestMemory:
        """Loads and stores as the guest does them."""
        self._ownership.check()
        return self._parts.memory

    @property
    def inspector(self) -> Inspector:
        """What a debugger sees."""
        self._ownership.check()
        return self._parts.inspector

    @property
    def pc(self) -> int:
        """The address of the next instruction."""
        return self.r[15]

    @pc.setter
    def pc(self, gva: int) -> None:
        if gva & 3 or not 0 <= gva <= 0xFFFFFFFF:
            raise ValueError(f"{gva:#x} is not the address of an A32 instruction: a 32-bit multiple of 4")
        self.r[15] = gva

    @property
    def cpsr(self) -> int:
        """The CPSR (B1.3.3). To set what this machine does not have, Thumb state, big-endian data or a mode that is
        none, is a ValueError; bit J stays 0.
        """
        self._ownership.check()
        return self.cpu.cpsr

    @cpsr.setter
    def cpsr(self, value: int) -> None:
        self._ownership.check()
        if value & PSR_T:  # choice: no-thumb
            raise ValueError(f"CPSR {value:#010x} has bit T set, and this machine has no Thumb state")
        if value & PSR_E:  # choice: no-big-endian
            raise ValueError(f"CPSR {value:#010x} has bit E set, and this machine has no big-endian data")
        if value & PSR_MODE not in BANKS:
            raise ValueError(f"CPSR {value:#010x} has no valid mode in its bits 4:0")
        self.cpu.cpsr = value

    def read(self, gpa: int, size: int) -> bytes:
        """``size`` bytes of RAM; ValueError outside it."""
        self._ownership.check()
        return self.inspector.read(Gpa(gpa), size)

    def write(self, gpa: int, data: bytes) -> None:
        """Write to RAM, code included; ValueError outside it."""
        self._ownership.check()
        self.inspector.write(Gpa(gpa), data)

    def peek_word(self, gpa: int) -> int | None:
        """The word of RAM at ``gpa``, without asking devices; None outside it."""
        self._ownership.check()
        return self.inspector.peek_word(Gpa(gpa))

    def peek_code(self, gva: int) -> int | None:
        """The instruction word at a virtual address, as the guest's page tables have it now; None if there is none."""
        self._ownership.check()
        return self.inspector.peek_code(Gva(gva))

    def symbolize(self, gva: int) -> str:
        """``name+0x12``, or the address in hexadecimal where the program has no symbol."""
        return self.inspector.symbolize(Gva(gva))

    def describe_pc(self, pc: int) -> str:
        """``0x00008010 (main+0x10: ldr r0, [r1])``: an address for people."""
        self._ownership.check()
        return self.inspector.describe_pc(Gva(pc))
