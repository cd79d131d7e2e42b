"""The inspector: a guest as a debugger sees it. It reads registers, memory, code and symbols, and explains faults.

Nothing here changes the guest, but for :meth:`Inspector.write` and :meth:`Inspector.write_virtual`.
"""

from __future__ import annotations

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import CpuState
from dbt.abi.exits import LeaveGuest, VmExit
from dbt.inspector.symbols import SymbolTable
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.virtual import BadAddress, VirtualMemory


class Inspector:
    """The inspector of one machine. ``memory`` is its physical memory, and ``virtual`` the same by virtual
    addresses.
    """

    def __init__(self, cpu: CpuState, memory: GuestMemory, virtual: VirtualMemory) -> None:
        self._cpu = cpu
        self._memory = memory
        self._virtual = virtual
        self._symbols = SymbolTable()

    # -- memory --------------------------------------------------------------------------------

    def read(self, gpa: Gpa, size: int) -> bytes:
        """Return ``size`` bytes of RAM at a physical address. Raise ValueError if they are not all RAM."""
        return self._memory.read_ram(gpa, size)

    def write(self, gpa: Gpa, data: bytes) -> None:
        """Write to RAM at a physical address, which may hold code. Raise ValueError if it is not RAM, or where the
        guest's stores abort, because the page is another machine's.
        """
        if self._memory.refuses(gpa, len(data)):
            raise ValueError(f"the guest may not write to [{gpa:#x}, {gpa + len(data):#x})")
        self._memory.write_ram(gpa, data)

    def read_virtual(self, gva: Gva, size: int) -> bytes:
        """Return ``size`` bytes as the guest would read them now. Raise BadAddress if it could not, or if a device has
        them.
        """
        return self._virtual.read(gva, size)

    def write_virtual(self, gva: Gva, data: bytes) -> None:
        """Write to RAM at a virtual address, which may hold code: all of the data, or none and raise BadAddress.

        As in a debugger, it needs only the guest's permission to read.
        """
        self._virtual.write(gva, data)

    def locate(self, gva: Gva) -> Gpa:
        """Return the physical address of a byte of RAM by the guest's present page tables. Raise BadAddress if there is
        none.
        """
        return self._virtual.locate(gva)

    def peek_word(self, gpa: Gpa) -> int | None:
        """Return the word of RAM at ``gpa``, or None if there is no RAM or ``gpa`` is not a multiple of 4.

        Devices are not accessed.
        """
        if gpa & 3 or gpa not in self._memory.ram:
            return None
        return self._memory.load_physical(gpa)

    def peek_code(self, gva: Gva) -> int | None:
        """Return the instruction word at a virtual address by the guest's present page tables, or None if there is
        none.
        """
        try:
            gpa = self._memory.locate_for_host(gva, 0)
        except LeaveGuest:
            return None
        return self.peek_word(gpa)

    # -- names ---------------------------------------------------------------------------------

    @property
    def symbols(self) -> SymbolTable:
        """The symbols of what was loaded last, by virtual address."""
        return self._symbols

    def use_symbols(self, symbols: SymbolTable) -> None:
        """Use other symbols, because another guest has been loaded."""
        self._symbols = symbols

    def symbolize(self, gva: Gva) -> str:
        """Return an address as ``name+0x12``, or in hexadecimal if no symbol is near."""
        return self._symbols.describe(gva)

    def describe_pc(self, pc: Gva) -> str:
        """Return an address for people, such as ``0x00008010 (main+0x10: ldr r0, [r1])``."""
        from dbt.inspector.disassembly import disassembler

        found = self._symbols.find(pc)
        word = self.peek_code(pc)
        parts = [self.symbolize(pc)] if found else []
        parts += [disassembler()(word, pc)] if word is not None else []
        return f"{pc:#010x} ({': '.join(parts)})" if parts else f"{pc:#010x}"

    # -- the stack -----------------------------------------------------------------------------

    @property
    def stack_is_in_ram(self) -> bool:
        """Return True if there is RAM at SP, or just below it, where the next push goes."""
        stack = self._cpu.r[13]
        return any(self.peek_word(gpa) is not None for gpa in self._locate_all(stack & ~3, (stack - 4) & ~3))

    def _locate_all(self, *places: int) -> list[Gpa]:
        """Return the physical addresses of places on the stack, without those that have none."""
        found = []
        for place in places:
            try:
                found.append(self._virtual.locate(Gva(place & 0xFFFFFFFF)))
            except BadAddress:
                continue
        return found

    def word_at(self, gva: Gva) -> int | None:
        """Return the word that the guest would read at ``gva``, a multiple of 4, or None if it is not RAM."""
        try:
            return int.from_bytes(self._virtual.read(gva, 4), "little")
        except BadAddress:
            return None

    # -- faults --------------------------------------------------------------------------------

    def describe_fault(self, exit_: VmExit, context: str) -> str:
        """Return one paragraph on an exit that nothing handles: what the guest did, where control came from, and a
        remedy.

        ``context`` says in sentences why it could not be handled, or is empty.
        """
        from dbt.inspector.fault_report import explain, origin, why_undefined

        undefined = why_undefined(self.peek_code(exit_.pc), self._cpu["architecture"])
        what, remedy = explain(exit_, self._memory.ram.layout, self._cpu.r[7], undefined)
        where = origin(self, exit_, self._cpu.r)
        return f"guest fault at {self.describe_pc(exit_.pc)}: {what}. {context}{where}{remedy}."

    def describe_halt(self, exit_: VmExit) -> str:
        """Return one paragraph on why it is useless for the guest to wait any longer."""
        from dbt.inspector.fault_report import explain

        what, remedy = explain(exit_, self._memory.ram.layout, 0, "")
        return f"halted at {self.describe_pc(exit_.pc)}: {what}. {remedy}."
