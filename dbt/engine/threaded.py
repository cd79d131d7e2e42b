"""The threaded tier: predecoded ops executed by native handlers that tail-call each other.

Python takes part only when native code leaves: to make a code page, to answer a device, or to hand
an exit on to the run loop.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

from dbt.abi import exits
from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import NATIVE, NEVER, TICK_END, VIRTUAL_COUNTER_WORDS, VIRTUAL_COUNTERS, CpuState
from dbt.abi.exits import ExitCode, LeaveGuest, VmExit
from dbt.abi.hostmemory import HostRange, executable_copy
from dbt.abi.layout import (
    CODE,
    CODE_PAGE_STRIDE,
    LOG_BYTES,
    LOG_ENTRIES,
    MEGABYTES,
    OP_CALLOUTS,
    OP_HANDLER,
    OP_SIZE,
    OPS_PER_PAGE,
    PAGE_HAS_CODE,
    SPACE_BYTES,
    SPACES,
    TABLE_BYTES,
    TABLES,
    TARGET_ENTRIES,
)
from dbt.codecache.handlers import load_image
from dbt.engine.observer import NOBODY, Observer
from dbt.engine.profile import op_address
from dbt.engine.tier import Allowance, unlimited
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import PAGE_SHIFT, PAGE_SIZE, Ram
from dbt.memory.translation import Translation
from isa.arm.faults import Fault
from isa.arm.state import LAYOUT

if TYPE_CHECKING:
    from dbt.engine.reference import ReferenceTier

_BUDGET = NATIVE["budget"].offset // 8
_EXIT_ARGS = NATIVE["exit_args"].offset // 8
_MMIO_COUNT, _MMIO_CURSOR, _MMIO_VALUE = (NATIVE[f"mmio_{name}"].offset // 4 for name in ("count", "cursor", "value"))
_EXIT_KIND, _LAST_EXCEPTION = NATIVE["exit_kind"].offset // 4, NATIVE["last_exception"].offset // 8
_VIRTUAL_COUNTERS = NATIVE["virtual_counters"].offset // 8
_ARCHITECTURE = LAYOUT["architecture"].index
_OP = OP_SIZE // 4
#: A run is cut short after so many exits that Python answered, to stay within some tens of milliseconds.
MAX_ANSWERS = 1000


def _fault(status: int) -> tuple[Fault, int]:
    """Fault and domain of a status."""
    return Fault(status & 15), status >> 4 & 15


def notify(line: str) -> None:
    print(f"dbt: {line}", file=sys.stderr)


class ThreadedTier:
    """Native execution of one virtual CPU's instructions; see :class:`dbt.engine.tier.Tier`.

    Takes over ``memory.on_write``, so that the hypervisor's own writes undo predecoded ops too.
    """

    name = "threaded"

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        notice: Callable[[str], None] = notify,
        observer: Observer = NOBODY,
        allowance: Allowance = unlimited,
    ) -> None:
        self._observer = observer
        self._cpu = cpu
        self._memory = memory
        self._allowance = allowance
        self._image = image = load_image(notice)
        self._code = executable_copy(image.code)
        self._map_tables()
        self._entry = image.entry_points()
        self._routines: dict[str, Callable[..., int]] = {}  # those that were called
        base = self._code.address
        self._decode_handler = base + self._entry["decode"]
        self._enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(base + self._entry["enter"])
        self._invalidate = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)(
            base + self._entry["invalidate_range"]
        )
        self._flush = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(base + self._entry["tlb_flush"])
        self._choose_space = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(base + self._entry["regime_changed"])
        walk = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
        self._walk = partial(walk(base + self._entry["translate"]), cpu.address)
        memory.translation = Translation(cpu, self._walk, keep=False)  # native code keeps what it needs
        self._device_left = -1
        self._knows_virtual_counters = False
        self._decoded_for = cpu.words[_ARCHITECTURE]  # the architecture that ops have been decoded for
        self._slice = 0
        self._retired = 0  # by whatever means
        self._emulated = 0
        memory.on_write = self._host_write

    def _map_tables(self) -> None:
        """Allocate the shadow page tables and the code pages, and tell native code where all is."""
        ram = self._memory.ram
        self._spaces, self._log, self._broad = HostRange(SPACE_BYTES), HostRange(LOG_BYTES), HostRange(MEGABYTES)
        self._code_pages = self._map_code_pages(ram)
        self._ops = self._code_pages.view()
        self._op_words, self._op_halves = self._ops.cast("Q"), self._ops.cast("I")
        self._targets = HostRange(8 * TARGET_ENTRIES, shared=True)
        entry = self._image.entry_points()
        tables = (self._image.index, self._image.pool, self._image.rows, self._image.guards)
        self._tables = [ctypes.create_string_buffer(table, len(table)) for table in tables]
        for name, address in (
            ("spaces", self._spaces.address),
            ("fill_log", self._log.address),
            ("broad", self._broad.address),
            ("ram_host", ram.address),
            ("code_pages", self._code_pages.address),
            ("page_flags", ram.page_flags_address),
            ("image", self._code.address),
            ("image_size", self._code.size),
            ("arrive", self._code.address + entry["arrive"]),
            ("bypass", self._code.address + entry["bypass"]),
            ("writable", self._code.address + entry["writable"]),
            ("code_at", self._code.address + entry["code_at"]),
            ("targets", self._targets.address),
            *zip(
                ("decode_index", "decode_pool", "decode_rows", "decode_guards"),
                map(ctypes.addressof, self._tables),
                strict=True,
            ),
        ):
            self._cpu.set_native(name, address)

    @staticmethod
    def _map_code_pages(ram: Ram) -> HostRange:
        """The code pages, that of GPA 0 first. Where there is no RAM there are only the addresses."""
        if ram.layout.flat and not ram.layout.flat.base:
            return HostRange((ram.end >> PAGE_SHIFT) * CODE_PAGE_STRIDE, CODE_PAGE_STRIDE, shared=True)
        pages = HostRange((ram.end >> PAGE_SHIFT) * CODE_PAGE_STRIDE, CODE_PAGE_STRIDE, shared=True, reserve=True)
        for region in ram.layout.regions:
            first, count = region.base >> PAGE_SHIFT, region.size >> PAGE_SHIFT
            pages.commit(first * CODE_PAGE_STRIDE, count * CODE_PAGE_STRIDE)
        return pages

    # -- running -------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[VmExit, int]:
        """See :meth:`dbt.engine.tier.Tier.run`."""
        if self._decoded_for != self._cpu.words[_ARCHITECTURE]:
            self._forget_decoded()
        if self._cpu.takeable_interrupts:
            return exits.Budget(self._cpu.pc), 0
        try:
            exit_, retired = self._run(budget)
        except BaseException:
            self._retired += self.progress
            raise
        self._retired += retired
        return exit_, retired

    def _begin_slice(self) -> None:
        """Nothing has retired yet, whatever is done before native code is entered."""
        self._slice = self._cpu.native64[_BUDGET]

    def _forget_decoded(self) -> None:
        """The CPU model is another one: which words are instructions depends on its architecture."""
        self._decoded_for = self._cpu.words[_ARCHITECTURE]
        for page in self._memory.ram.pages_with_code():
            self._invalidate(self._cpu.address, page << PAGE_SHIFT, PAGE_SIZE)

    @property
    def progress(self) -> int:
        return self._slice - self._cpu.native64[_BUDGET]

    @property
    def retired(self) -> dict[str, int]:
        """See :class:`dbt.engine.tier.Tier`. The reference tier's are what native code does not do."""
        return {"threaded": self._retired - self._emulated, "reference": self._emulated}

    @property
    def callouts(self) -> dict[str, int]:
        from isa.arm.architecture import CALLOUT_NUMBERS

        counts = {name: self._cpu.native("callout_counts", number) for name, number in CALLOUT_NUMBERS.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def callout_places(self) -> dict[int, int]:
        return {gpa: self._op_halves[place] for gpa, place in self._counted_ops()}

    def _counted_ops(self) -> Iterator[tuple[int, int]]:
        """GPA, and index of the count in ``_op_halves``, of the sensitive instructions that were executed."""
        from dbt.engine.evaluator import is_sensitive

        code = self._memory.ram.bytes.cast("I")
        for page in self._memory.ram.pages_with_code():
            first = page * CODE_PAGE_STRIDE // 4 + OP_CALLOUTS // 4
            counts = self._op_halves[first : first + OPS_PER_PAGE * _OP : _OP]
            for number in (number for number, count in enumerate(counts) if count):
                place = first + number * _OP
                handler = self._op_words[(place * 4 - OP_CALLOUTS + OP_HANDLER) // 8]
                word = page * OPS_PER_PAGE + number
                # Other instructions' ops have something else there.
                if handler != self._decode_handler and is_sensitive(code[word]):
                    yield word * 4, place

    def native_symbols(self) -> Iterator[tuple[int, int, str]]:
        """HVA, size and name of each function of the image."""
        lines = [line.split(" ", 1) for line in self._image.symbols.decode().splitlines()]
        starts = sorted({int(offset): name for offset, name in lines}.items())
        ends = [offset for offset, _ in starts[1:]] + [self._code.size]
        for (offset, name), end in zip(starts, ends, strict=True):
            yield self._code.address + offset, end - offset, name

    def is_decoded(self, gpa: int) -> bool:
        """Whether a word of RAM, of a page that has a code page, was executed since it was written."""
        op = (gpa >> PAGE_SHIFT) * CODE_PAGE_STRIDE + gpa % PAGE_SIZE // 4 * OP_SIZE
        return self._op_words[(op + OP_HANDLER) // 8] not in (0, self._decode_handler)

    def branch_targets(self) -> Iterator[tuple[int, int]]:
        """The GPA of an indirect branch and the GVA that it went to, for each pair that the table of targets has.

        The table keeps the newest of the pairs that share an entry. A region notes where it was left for only.
        """
        flags = self._memory.ram.page_flags
        for entry in self._targets.view().cast("Q")[:TARGET_ENTRIES].tolist():
            if not entry:
                continue
            # The entry has the low half of the op's address: in a large RAM several ops share it.
            first = (entry - self._code_pages.address) & 0xFFFFFFFF
            for offset in range(first, self._code_pages.size, 1 << 32):
                gpa = op_address(offset)
                if flags[gpa >> PAGE_SHIFT] & PAGE_HAS_CODE:
                    yield gpa, entry >> 32
                    break

    def shadow_pages(self) -> Iterator[tuple[int, Iterator[tuple[int, int, int, str]]]]:
        """Of each address space its number, and what its shadow page tables have: GVA, GPA, size, rights (``r w x``,
        in capitals for user mode).
        """
        for space in range(SPACES):
            yield space, self._filled(space)

    def _filled(self, space: int) -> Iterator[tuple[int, int, int, str]]:
        log = self._log.view().cast("I")[space * LOG_ENTRIES :][: self._cpu.native("fill_counts", space)]
        entries = self._spaces.view().cast("Q")
        found: dict[int, dict[str, int]] = {}
        for line in sorted(set(log.tolist())):
            page, table = line & 0xFFFFF, line >> 20
            entry = entries[((space * TABLES + table) * TABLE_BYTES >> 3) + page]
            if not entry:
                continue
            if table % 3 == CODE:
                gpa = (entry - self._code_pages.address) // CODE_PAGE_STRIDE << PAGE_SHIFT
            else:
                gpa = entry + (page << PAGE_SHIFT) - self._memory.ram.address & (1 << 64) - 1
            found.setdefault(page, {})["rwxRWX"[table]] = gpa
        for page, rights in sorted(found.items()):
            yield (
                page << PAGE_SHIFT,
                next(iter(rights.values())),
                PAGE_SIZE,
                "".join(sorted(rights, key="rwxRWX".index)),
            )

    def reset_counts(self) -> None:
        for _, place in self._counted_ops():
            self._op_halves[place] = 0
        self._retired = self._emulated = 0
        for name in ("callout_counts", "exceptions", "fills", "live_reads"):
            for number in range(NATIVE[name].count):
                self._cpu.set_native(name, 0, number)

    def call_routine(self, name: str, *arguments: int) -> int | None:
        """See :mod:`isa.ir.routines`. The result is there whether the routine has one or not."""
        function = self._routines.get(name)
        if function is None:
            kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint32] * len(arguments))
            function = self._routines[name] = kind(self._code.address + self._entry[name])
        result: int = function(self._cpu.address, *arguments)
        return result

    def close(self) -> None:
        """See :class:`dbt.engine.tier.Tier`."""
        for mapping in (self._code, self._spaces, self._log, self._broad, self._code_pages, self._targets):
            mapping.close()

    def need_code_page(self, page: int) -> None:
        """Give a page of RAM a code page, if it has none."""
        self.call_routine("need_code_page", page)

    def state_changed(self) -> None:
        """Somebody else has written the registers that say what addresses mean."""
        self._choose_space(self._cpu.address)

    def _run(self, budget: int) -> tuple[VmExit, int]:
        cpu, address = self._cpu, self._cpu.address
        words, halves = cpu.native64, cpu.native32
        self._slice = budget
        words[_BUDGET] = budget
        halves[_MMIO_COUNT] = halves[_MMIO_CURSOR] = 0
        words[_LAST_EXCEPTION] = NEVER
        self._device_left = -1
        self._forget_virtual_counters()
        self._choose_space(address)
        answers = 0
        while True:
            self._enter(address)
            answers += 1
            match halves[_EXIT_KIND]:
                case ExitCode.BUDGET:  # by far the most, so it comes first
                    return exits.Budget(cpu.pc), self.progress
                case ExitCode.DEVICE_READ | ExitCode.DEVICE_WRITE | ExitCode.TRAP if (
                    answers > MAX_ANSWERS and words[_BUDGET] != self._device_left
                ):
                    return exits.Budget(cpu.pc), self.progress
                case ExitCode.DEVICE_READ | ExitCode.DEVICE_WRITE as kind if self._answer_device(kind):
                    if (left := self._allowance()) is not None:
                        self._shorten(left)
                case ExitCode.HOT:
                    self._on_hot(cpu.r[15], cpu.native("exit_args", 0))
                case ExitCode.CODE_WRITE:
                    self._on_code_write(cpu.native("exit_args", 0), cpu.native("exit_args", 1))
                case ExitCode.TRAP:
                    try:
                        self._emulator.step()
                    except LeaveGuest as leave:
                        return leave.exit, self.progress
                    words[_BUDGET] -= 1
                    self._emulated += 1
                    self._forget_virtual_counters()
                    if cpu.takeable_interrupts or (self._memory.device_accessed and self._allowance() is not None):
                        return exits.Budget(cpu.pc), self.progress
                case code:
                    return self._exit(ExitCode(code)), self.progress

    def _shorten(self, left: int) -> None:
        """Let the slice end after so many instructions, the current one included, if it was to be longer."""
        words = self._cpu.native64
        less = words[_BUDGET] - left
        if less > 0:
            self._slice -= less
            words[TICK_END] -= less
            words[_BUDGET] = self._device_left = left

    @cached_property
    def _emulator(self) -> ReferenceTier:
        """Executes sensitive instructions. Imported late: many guests have none."""
        from dbt.engine.reference import ReferenceTier

        return ReferenceTier(self._cpu, self._memory, self._forget)

    def _forget(self) -> None:
        """The emulator has executed an instruction of the TLB's."""
        self._flush(self._cpu.address)
        self._choose_space(self._cpu.address)

    def _exit(self, code: ExitCode) -> VmExit:
        pc = self._cpu.pc
        first, second, third, fourth = (self._cpu.native("exit_args", number) for number in range(4))
        match code:
            case ExitCode.PREFETCH_ABORT:
                return exits.PrefetchAbort(pc, *_fault(first))
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
                return exits.ThumbEntry(pc, Gva(first))
            case ExitCode.UNSUPPORTED:
                from isa.arm.callouts import UNSUPPORTED

                return exits.Unsupported(pc, UNSUPPORTED[first])
            case ExitCode.WAIT:
                return exits.WaitForInterrupt(pc)
            case ExitCode.DATA_ABORT:
                return exits.DataAbort(pc, Gva(first), second, bool(third), *_fault(fourth))
            case ExitCode.DEVICE_READ | ExitCode.DEVICE_WRITE:
                return exits.DataAbort(pc, Gva(fourth), second, code == ExitCode.DEVICE_WRITE, Fault.EXTERNAL)
            case ExitCode.BUDGET | ExitCode.TRAP | ExitCode.HOT | ExitCode.CODE_WRITE:
                raise AssertionError("these are answered in run")

    # -- exits that are answered here ----------------------------------------------------------

    def _answer_device(self, kind: int) -> bool:
        """Do the device access that native code left for, and latch its result; False if there is no device.

        Answers to earlier accesses of the same instruction are kept, those of other instructions dropped:
        they are told apart by the budget, which every instruction takes one of.
        """
        # Guests do little else at times, so the slots are not looked up by name here.
        words, halves, memory = self._cpu.native64, self._cpu.native32, self._memory
        place, size, value = words[_EXIT_ARGS : _EXIT_ARGS + 3]
        gpa = Gpa(place)
        if not memory.bus.covers(gpa, size):
            return False
        left = words[_BUDGET]
        answered = halves[_MMIO_COUNT] if left == self._device_left else 0
        self._device_left = left
        is_write = kind == ExitCode.DEVICE_WRITE
        if is_write:
            self._forget_virtual_counters()
            memory.write_device(gpa, size, value)
        else:
            value = memory.read_device(gpa, size)
            self._learn_virtual_counter(Gpa(gpa & ~3))
        self._observer.device_accessed(self._cpu.r[15], gpa, size, value, is_write)
        halves[_MMIO_VALUE + answered] = value & 0xFFFFFFFF
        halves[_MMIO_COUNT] = answered + 1
        halves[_MMIO_CURSOR] = 0
        return True

    def _learn_virtual_counter(self, gpa: Gpa) -> None:
        """Let native code answer what is read there next, if it is known how it goes on."""
        virtual_counter = self._memory.bus.virtual_counter(gpa)
        if virtual_counter is None:
            return
        start, rate, divisor, mask, until = virtual_counter
        at = _VIRTUAL_COUNTERS + (gpa >> 2) % VIRTUAL_COUNTERS * VIRTUAL_COUNTER_WORDS
        words = (gpa | 1, until, start, rate & NEVER, divisor, mask)
        for number, word in enumerate(words):
            self._cpu.native64[at + number] = word
        self._knows_virtual_counters = True

    def _forget_virtual_counters(self) -> None:
        if self._knows_virtual_counters:
            self._knows_virtual_counters = False
            for number in range(VIRTUAL_COUNTERS):
                self._cpu.native64[_VIRTUAL_COUNTERS + number * VIRTUAL_COUNTER_WORDS] = 0

    def _on_hot(self, gva: int, op: int) -> None:
        """An op has become hot. This tier has nothing better to offer."""

    def _on_code_write(self, gpa: int, size: int) -> None:
        """A store to words that regions were made from; this tier makes none."""
        raise AssertionError("there are no regions")

    def _host_write(self, gpa: int, size: int) -> None:
        """The hypervisor writes to RAM: undo the ops of those words."""
        self._invalidate(self._cpu.address, gpa, size)
