"""The threaded tier: predecoded ops executed by native handlers that tail-call each other.

Python takes part only when native code leaves: to make a code page, to answer a device, or to hand
an exit on to the run loop.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from dbt.backend.abi import CODE_PAGE_STRIDE, TARGET_ENTRIES
from dbt.codecache.handlers import load_image
from dbt.mmu.memory import GuestMemory
from dbt.mmu.ram import PAGE_SHIFT
from dbt.runtime import exits
from dbt.runtime.cpu import NATIVE, CpuState
from dbt.runtime.exits import AbortReason, ExitCode, LeaveGuest, VmExit
from dbt.runtime.hostmemory import HostRange, executable_copy

if TYPE_CHECKING:
    from dbt.runtime.reference import Callouts, ReferenceTier

TABLE_ENTRIES = 1 << 20
#: A run is cut short after so many exits that Python answered, to stay within some tens of milliseconds.
MAX_ANSWERS = 1000
PAGE_MASK = (1 << PAGE_SHIFT) - 1


def notify(line: str) -> None:
    print(f"dbt: {line}", file=sys.stderr)


class ThreadedTier:
    """Native execution of one virtual CPU's instructions; see :class:`dbt.runtime.tier.Tier`.

    Takes over ``memory.on_write``, so that the hypervisor's own writes undo predecoded ops too.
    """

    name = "threaded"

    def __init__(
        self, cpu: CpuState, memory: GuestMemory, callouts: Callouts, notice: Callable[[str], None] = notify
    ) -> None:
        self._cpu = cpu
        self._memory = memory
        self._callouts = callouts
        self._image = image = load_image(notice)
        self._code = executable_copy(image.code)
        self._map_tables()
        entry = image.entry_points()
        base = self._code.address
        self._decode_handler = base + entry["decode"]
        self._enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(base + entry["enter"])
        self._make_code_page = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32)(base + entry["make_code_page"])
        self._invalidate = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)(
            base + entry["invalidate_range"]
        )
        self._device_left = -1
        self.code_pages_made = 0
        self._retired = 0  # by whatever means
        self._emulated = 0
        memory.on_write = self._host_write

    def _map_tables(self) -> None:
        """Allocate the shadow page tables and the code pages, and tell native code where all is."""
        ram = self._memory.ram
        self._reads, self._writes, self._codes = (HostRange(8 * TABLE_ENTRIES) for _ in range(3))
        self._write_entries = self._writes.view().cast("Q")
        self._code_entries = self._codes.view().cast("Q")
        self._code_pages = HostRange((ram.size >> PAGE_SHIFT) * CODE_PAGE_STRIDE, CODE_PAGE_STRIDE, shared=True)
        self._targets = HostRange(8 * TARGET_ENTRIES, shared=True)
        self._present = (ctypes.c_char * len(self._memory.code_page_present)).from_buffer(
            self._memory.code_page_present
        )
        entry = self._image.entry_points()
        tables = (self._image.index, self._image.pool, self._image.rows, self._image.guards)
        self._tables = [ctypes.create_string_buffer(table, len(table)) for table in tables]
        for name, address in (
            ("read_table", self._reads.address),
            ("write_table", self._writes.address),
            ("code_table", self._codes.address),
            ("ram_host", ram.address),
            ("ram_size", ram.size),
            ("code_pages", self._code_pages.address),
            ("code_page_present", ctypes.addressof(self._present)),
            ("image", self._code.address),
            ("goto", self._code.address + entry["goto"]),
            ("arrive", self._code.address + entry["arrive"]),
            ("writable", self._code.address + entry["writable"]),
            ("targets", self._targets.address),
            *zip(
                ("decode_index", "decode_pool", "decode_rows", "decode_guards"),
                map(ctypes.addressof, self._tables),
                strict=True,
            ),
        ):
            self._cpu.set_native(name, address)

    # -- running -------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[VmExit, int]:
        """See :meth:`dbt.runtime.tier.Tier.run`."""
        exit_, retired = self._run(budget)
        self._retired += retired
        return exit_, retired

    @property
    def retired(self) -> dict[str, int]:
        """See :class:`dbt.runtime.tier.Tier`. The reference tier's are the sensitive instructions."""
        return {"threaded": self._retired - self._emulated, "reference": self._emulated}

    def reset_counts(self) -> None:
        self._retired = self._emulated = 0

    def _run(self, budget: int) -> tuple[VmExit, int]:
        cpu = self._cpu
        cpu.set_native("budget", budget)
        cpu.set_native("mmio_count", 0)
        cpu.set_native("mmio_cursor", 0)
        self._device_left = -1
        budget_word, kind_word = NATIVE["budget"].offset // 8, NATIVE["exit_kind"].offset // 4
        answers = 0
        while True:
            self._enter(cpu.address)
            answers += 1
            match cpu.native32[kind_word]:
                case ExitCode.CODE_MISS if cpu.native64[budget_word] == 0:
                    return exits.Budget(cpu.r[15]), budget
                case ExitCode.CODE_MISS if self._map_code(cpu.r[15]):
                    continue
                case ExitCode.DEVICE_READ | ExitCode.DEVICE_WRITE | ExitCode.TRAP if (
                    answers > MAX_ANSWERS and cpu.native64[budget_word] != self._device_left
                ):
                    return exits.Budget(cpu.r[15]), budget - cpu.native64[budget_word]
                case ExitCode.DEVICE_READ | ExitCode.DEVICE_WRITE as kind if self._answer_device(kind):
                    continue
                case ExitCode.HOT:
                    self._on_hot(cpu.r[15])
                case ExitCode.CODE_WRITE:
                    self._on_code_write(cpu.native("exit_args", 0), cpu.native("exit_args", 1))
                case ExitCode.TRAP:
                    try:
                        self._emulator.step()
                    except LeaveGuest as leave:
                        return leave.exit, budget - cpu.native64[budget_word]
                    cpu.native64[budget_word] -= 1
                    self._emulated += 1
                case code:
                    return self._exit(ExitCode(code)), budget - cpu.native64[budget_word]

    @cached_property
    def _emulator(self) -> ReferenceTier:
        """Executes sensitive instructions. Imported late: many guests have none."""
        from dbt.runtime.reference import ReferenceTier

        return ReferenceTier(self._cpu, self._memory, self._callouts)

    def _exit(self, code: ExitCode) -> VmExit:
        pc = self._cpu.r[15]
        first, second, third = (self._cpu.native("exit_args", number) for number in range(3))
        match code:
            case ExitCode.BUDGET:
                return exits.Budget(pc)
            case ExitCode.CODE_MISS:
                return exits.PrefetchAbort(pc)
            case ExitCode.UNDEFINED:
                return exits.Undefined(pc)
            case ExitCode.SUPERVISOR_CALL:
                return exits.SupervisorCall(pc, first)
            case ExitCode.BREAKPOINT:
                return exits.Breakpoint(pc, first)
            case ExitCode.HYPERVISOR_CALL:
                return exits.HypervisorCall(pc, first)
            case ExitCode.SECURE_MONITOR_CALL:
                return exits.SecureMonitorCall(pc, first)
            case ExitCode.THUMB:
                return exits.ThumbEntry(pc, first)
            case ExitCode.ALIGNMENT:
                return exits.DataAbort(pc, first, second, bool(third), AbortReason.ALIGNMENT)
            case ExitCode.DEVICE_READ | ExitCode.DEVICE_WRITE:
                return exits.DataAbort(pc, first, second, code == ExitCode.DEVICE_WRITE, AbortReason.UNMAPPED)
            case ExitCode.TRAP | ExitCode.HOT | ExitCode.CODE_WRITE:
                raise AssertionError("these are answered in run")

    # -- exits that are answered here ----------------------------------------------------------

    def _map_code(self, pc: int) -> bool:
        """Give the page of ``pc`` a code page and a place in the code table; False if it is not RAM."""
        if pc >= self._memory.ram.size:
            return False
        page = pc >> PAGE_SHIFT
        if not self._memory.code_page_present[page]:
            self._make_code_page(self._cpu.address, page)
            self._write_entries[page] = 0
            self.code_pages_made += 1
        self._code_entries[page] = self._code_pages.address + page * CODE_PAGE_STRIDE
        return True

    def _answer_device(self, kind: int) -> bool:
        """Do the device access that native code left for, and latch its result; False if there is no device.

        Answers to earlier accesses of the same instruction are kept, those of other instructions dropped:
        they are told apart by the budget, which every instruction takes one of.
        """
        cpu = self._cpu
        gpa, size = cpu.native("exit_args", 0), cpu.native("exit_args", 1)
        if not self._memory.bus.covers(gpa, size):
            return False
        left = cpu.native("budget")
        answered = cpu.native("mmio_count") if left == self._device_left else 0
        self._device_left = left
        value = 0
        if kind == ExitCode.DEVICE_READ:
            value = self._memory.bus.read(gpa, size)
        else:
            self._memory.bus.write(gpa, size, cpu.native("exit_args", 2) & ((1 << 8 * size) - 1))
        cpu.set_native("mmio_value", value & 0xFFFFFFFF, answered)
        cpu.set_native("mmio_count", answered + 1)
        cpu.set_native("mmio_cursor", 0)
        return True

    def _on_hot(self, pc: int) -> None:
        """An op has become hot. This tier has nothing better to offer."""

    def _on_code_write(self, gpa: int, size: int) -> None:
        """A store to words that regions were made from; this tier makes none."""
        raise AssertionError("there are no regions")

    def _host_write(self, gpa: int, size: int) -> None:
        """The hypervisor writes to RAM: undo the ops of those words."""
        self._invalidate(self._cpu.address, gpa, size)
