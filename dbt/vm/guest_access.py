"""Access to a machine's registers and memory for programs that embed it, such as debuggers, tests and fuzzers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import CpuState
from dbt.board.loader import Image
from dbt.board.timeline import Timeline
from dbt.engine.tier import JitMode, Tier
from dbt.frontend.optimizations import Optimizations
from dbt.inspector.inspector import Inspector
from dbt.inspector.symbols import SymbolTable
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from dbt.vm.attachments import Attachments
from dbt.vm.guest import NO_GUEST
from dbt.vm.input import InputSource
from dbt.vm.options import MachineOptions
from dbt.vm.ownership import Ownership
from dbt.vm.parts import Parts
from dbt.vm.registers import Registers
from isa.arm.state import BANKS, PSR_E, PSR_MODE, PSR_T

if TYPE_CHECKING:
    from dbt.board.board import Board


class GuestAccess:
    """What can be read and written while a machine is between two instructions.

    All members raise RuntimeError if the machine may not be used now; see :class:`dbt.vm.ownership.Ownership`.
    """

    def __init__(self, options: MachineOptions, parts: Parts) -> None:
        self.options = options
        self.vcpu, self.semihosting = parts.vcpu, parts.semihosting
        self._parts = parts
        self._guest = NO_GUEST._replace(cpu_model=options.board_model.program_cpu)
        self._ownership = Ownership()
        #: The sixteen registers of the current mode, to read and to write.
        self.r = Registers(parts.cpu, self._ownership.check)

    @property
    def cpu(self) -> CpuState:
        """The registers in the form that native code uses, with the banked ones."""
        self._ownership.check()
        return self._parts.cpu

    @property
    def ram(self) -> Ram:
        """The RAM in the form that native code uses.

        Neither translated code nor the dirty log notices what is written to it directly.
        """
        self._ownership.check()
        return self._parts.ram

    @property
    def memory(self) -> GuestMemory:
        """Guest memory, with loads and stores as the guest does them."""
        self._ownership.check()
        return self._parts.memory

    @property
    def inspector(self) -> Inspector:
        """The inspector, which shows the guest as a debugger sees it."""
        self._ownership.check()
        return self._parts.inspector

    @property
    def program_identity(self) -> bytes:
        """What names the program that has been loaded in the cache directory. It is empty if there is none."""
        self._ownership.check()
        return self._parts.identity.digest()

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
        """The CPSR (B1.3.3).

        Setting it raises ValueError for what this machine does not have: Thumb state, big-endian data, or a mode that
        does not exist. Bit J stays 0.
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
        """Return ``size`` bytes of RAM at a physical address. Raise ValueError if they are not all RAM."""
        self._ownership.check()
        return self.inspector.read(Gpa(gpa), size)

    def write(self, gpa: int, data: bytes) -> None:
        """Write to RAM at a physical address, which may hold code. Raise ValueError if it is not RAM."""
        self._ownership.check()
        self.inspector.write(Gpa(gpa), data)

    def peek_word(self, gpa: int) -> int | None:
        """Return the word of RAM at ``gpa``, or None if there is no RAM. Devices are not accessed."""
        self._ownership.check()
        return self.inspector.peek_word(Gpa(gpa))

    def peek_code(self, gva: int) -> int | None:
        """Return the instruction word at a virtual address by the guest's present page tables, or None if there is
        none.
        """
        self._ownership.check()
        return self.inspector.peek_code(Gva(gva))

    def symbolize(self, gva: int) -> str:
        """Return an address as ``name+0x12``, or in hexadecimal if no symbol is near."""
        return self.inspector.symbolize(Gva(gva))

    def describe_pc(self, pc: int) -> str:
        """Return an address for people, such as ``0x00008010 (main+0x10: ldr r0, [r1])``."""
        self._ownership.check()
        return self.inspector.describe_pc(Gva(pc))

    # -- what it is and where it stands --------------------------------------------------------

    @property
    def tier(self) -> Tier:
        """The tier that executes the code. It is made when it is first needed, because that may build native code."""
        self._ownership.check()
        return self.vcpu.tier

    @property
    def tier_name(self) -> str:
        return self.options.tier if isinstance(self.options.tier, str) else self.tier.name

    @property
    def jit(self) -> JitMode:
        return self.options.jit

    @property
    def optimizations(self) -> Optimizations:
        return self.options.optimizations

    @property
    def cpu_model(self) -> str:
        """The processor of the present guest."""
        return self.options.cpu or self._guest.cpu_model

    @property
    def semihosting_enabled(self) -> bool:
        """True if SVC 0x123456 of the present guest reaches the host."""
        chosen = self.options.semihosting
        return self._guest.semihosting if chosen is None else chosen

    @property
    def is_kernel(self) -> bool:
        return self._guest.is_kernel

    @property
    def image(self) -> Image | None:
        """The program or kernel that was loaded last, or None."""
        return self._guest.image

    @property
    def symbols(self) -> SymbolTable:
        return self.inspector.symbols

    @property
    def attachments(self) -> Attachments:
        """The virtio devices, and what they have of the host."""
        return self._parts.attachments

    @property
    def board(self) -> Board:
        """The board with its devices. A reset makes another one."""
        return self._parts.peripherals.board

    @property
    def timeline(self) -> Timeline:
        return self.vcpu.timeline

    @property
    def input_source(self) -> InputSource:
        """The source of the guest's input; see :meth:`attach_input`."""
        return self._parts.port.source

    @property
    def icount(self) -> int:
        """The instructions retired since the reset."""
        return self.vcpu.icount

    @property
    def progress(self) -> int:
        """The instructions retired since the reset, which is also exact while a slice runs."""
        return self.vcpu.progress

    @property
    def retired(self) -> dict[str, int]:
        """See :attr:`dbt.vm.vcpu.Vcpu.retired`."""
        return self.vcpu.retired

    @property
    def event_counts(self) -> Counter[str]:
        """See :attr:`dbt.vm.vcpu.Vcpu.event_counts`."""
        return self.vcpu.event_counts
