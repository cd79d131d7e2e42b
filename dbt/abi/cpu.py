"""CpuState: one virtual CPU's state, in memory that native code and Python share.

The first :data:`isa.arm.state.LAYOUT` ``.size`` bytes are the architectural state. The rest (:data:`NATIVE`) belongs to
the translator. It is never saved, and can be rebuilt.
"""

from __future__ import annotations

import ctypes
import mmap
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum

from dbt.abi.addresses import Gva, Hva
from dbt.abi.device_windows import WINDOW_WORDS, WINDOWS
from dbt.abi.layout import (
    MAX_WATCHPOINTS,
    PAGE_SIZE,
    SPACE_KEY_WORDS,
    SPACES,
    STALE_AFTER,
    STALE_PAGES,
    STITCH_COUNTERS_PAGES,
    WATCHPOINT_WORDS,
)
from isa.arm.cpus import ANY, CpuModel
from isa.arm.state import BANKS, LAYOUT, PSR_KEPT, PSR_MODE, Mode, state_size

#: The handlers of the image to which stitched code goes.
STITCHED_CALLEES = ("goto", "goto_counted", "warm", "bypass_op", "stitched_edge", "stitched_cross", "stitched_hot")


#: The kinds of private peripherals that a processor can have.
PRIVATE_PERIPHERALS = 2


class Charged(IntEnum):
    """The kinds of events that native code charges to a guest whose run is metered (:mod:`dbt.vm.meter`)."""

    #: A device access or a hypercall that native code answers.
    ACCESS = 0
    #: An exception or interrupt that it enters.
    EXCEPTION = 1
    #: A TLB operation.
    TLB_FLUSH = 2


class Slot:
    """A field of the translator's part: its offset in CpuState in bytes, the bytes of an element, and their number."""

    def __init__(self, offset: int, size: int, count: int) -> None:
        self.offset, self.size, self.count = offset, size, count


def _native_layout() -> dict[str, Slot]:
    fields = (
        ("temp", 4, 16),  # scratch words of block transfers
        ("exit_kind", 4, 1),  # backend.exits.ExitKind
        ("page_gva", 4, 1),  # GVA of the page that the current op belongs to
        ("interrupt_lines", 4, 1),  # PSR_I and PSR_F where the line of IRQ and FIQ is up
        ("native_exceptions", 4, 1),  # 1: exceptions that can be are taken in native code
        ("native_waits", 4, 1),  # 1: a WFI may let time pass in native code
        ("last_exception", 8, 1),  # the budget when an abort was last taken
        ("aborts_left", 8, 1),  # data aborts that native code may take before one is left to the machine
        ("semihosting_svc", 8, 1),  # the SVC that is always left for; others may be taken
        ("exceptions", 8, 8),  # taken in native code, by number of the vector, and interrupts, whoever enters them
        ("exit_args", 8, 4),
        ("budget", 8, 1),  # instructions that this slice may still retire
        ("op", 8, 1),  # the next op, as a host pointer
        ("read_table", 8, 1),  # the current shadow page tables: see dbt.backend.shadow
        ("write_table", 8, 1),
        ("code_table", 8, 1),
        ("user_read_table", 8, 1),  # those of user mode, for LDRT and STRT
        ("user_write_table", 8, 1),
        ("spaces", 8, 1),  # HVA of the shadow page tables of all address spaces
        ("space", 4, 1),  # number of the current address space
        ("space_victim", 4, 1),  # the one that is given up next
        ("space_keys", 4, SPACES * SPACE_KEY_WORDS),  # what each was filled under
        ("fills", 8, 1),  # entries filled since the counts were last set to zero
        ("fill_counts", 4, SPACES),  # entries of the log of each
        ("fill_log", 8, 1),  # HVA of the logs of filled entries
        ("fills_before", 4, SPACES),  # entries of the log of each that were there when the present epoch began
        ("dirty_log", 8, 1),  # HVA of the dirty log: see dbt.memory.dirty_log
        ("extents", 8, 1),  # HVA of one byte for each MB of GVA, of what was filled there: see dbt.backend.shadow
        ("ram_host", 8, 1),  # HVA of GPA 0
        ("code_pages", 8, 1),  # HVA of the code page of GPA 0
        ("page_flags", 8, 1),  # HVA of a byte for each page: see abi.layout.PAGE_RAM
        ("stale_after", 4, 1),  # after so many stores to its page, a code page is listed as stale
        ("stale_count", 4, 1),  # the number of pages that are listed
        ("stale_pages", 4, STALE_PAGES),  # their numbers: see dbt.engine.stale_pages
        ("image", 8, 1),  # HVA of the handlers' image
        ("image_size", 8, 1),  # bytes
        ("arrive", 8, 1),  # the handler arrive, for code outside the image
        ("bypass", 8, 1),  # the handler bypass, likewise
        ("writable", 8, 1),  # code_pages.writable, likewise
        *((name, 8, 1) for name in STITCHED_CALLEES),  # handlers of the image, likewise
        ("stitcher", 8, 1),  # HVA of the stitcher's workspace, or 0: see dbt.backend.stitcher
        ("code_at", 8, 1),  # shadow.code_at, likewise
        ("callout_counts", 8, 32),  # by isa.arm.architecture.CALLOUT_NUMBERS
        ("targets", 8, 1),  # HVA of where indirect branches went: dbt.abi.layout.TARGET_ENTRIES
        ("guesses", 8, 15),  # by register: the entry of a shadow page table by which it likely points somewhere
        ("last_entries", 8, 15),  # by register: the entry by which it pointed elsewhere, in the last such case
        ("entry_runs", 8, 15),  # by register: in how many such cases on end it was this one
        ("region_insns", 8, 1),  # instructions retired in regions
        ("stitched_insns", 8, 1),  # instructions retired in stitched code, where that is measured
        ("region_exits", 8, 8),  # exits of regions, by dbt.abi.layout.SideExit
        ("decode_index", 8, 1),  # the decoder's tables: see dbt.backend.predecode
        ("decode_pool", 8, 1),
        ("decode_rows", 8, 1),
        ("decode_guards", 8, 1),
        ("device_answers", 8, 1),  # device accesses that were answered in native code
        ("events_rung", 8, 1),  # events of the timeline that happened in native code
        ("tick_end", 8, 1),  # the tick at which the budget is used up
        ("slice_end", 8, 1),  # the tick at which native code leaves; between the two it looks at the timeline
        ("slice_limit", 8, 1),  # the tick up to which native code may let the slice go on: see dbt.backend.dispatch
        ("slice_length", 8, 1),  # by so many ticks at a time
        ("look_at", 8, 1),  # until then, in ns of the host's monotonic clock
        ("host_clock", 8, 1),  # HVA of the C library's clock_gettime
        ("waited", 8, 1),  # ticks of this slice that have passed while the guest waited: see dbt.backend.device_access
        ("waits", 8, 1),  # waits of this slice that native code has completed
        ("charges", 8, len(Charged)),  # what each kind of event is charged in the present run, if it is metered, or 0
        ("charged", 8, 1),  # what has been charged since the run began: see dbt.vm.meter
        ("input_due", 8, 1),  # the tick from which a device that shows input has to ask Python for it
        ("timeline", 8, 1),  # HVA of the timeline's words: see dbt.abi.timeline
        ("domain", 8, 1),  # the block of the hypervisor's domain that the machine is, or 0: see dbt.backend.hypercalls
        ("hypercalls", 8, 1),  # hypercalls that native code has done
        ("private", 8, PRIVATE_PERIPHERALS),  # the blocks of those that native code serves: see isa.arm.private
        ("windows", 8, WINDOWS * WINDOW_WORDS),  # the devices that native code serves: see dbt.abi.device_windows
        ("mmio_count", 4, 1),  # device accesses of the current instruction already answered
        ("mmio_cursor", 4, 1),  # ... and already replayed
        ("mmio_value", 4, 32),  # ... with these values
        ("debug_pages", 8, 1),  # HVA of a word for each virtual page, or 0 without a debugger: dbt.backend.debug_points
        ("watch_count", 4, 1),  # the number of watchpoints
        ("watches", 4, MAX_WATCHPOINTS * WATCHPOINT_WORDS),  # the watchpoints, WATCHPOINT_WORDS each
    )
    layout: dict[str, Slot] = {}
    offset = (LAYOUT.size + 63) // 64 * 64
    for name, size, count in fields:
        offset = (offset + size - 1) // size * size
        layout[name] = Slot(offset, size, count)
        offset += size * count
    return layout


NATIVE = _native_layout()
#: A number that is larger than any budget.
NEVER = (1 << 64) - 1
#: A guess that is no entry: entries are differences of addresses of pages. Null would be taken for one.
NO_GUESS = 1
#: In ``last_exception``: the machine has entered a data abort itself, and no instruction has retired since.
ENTERED_BY_MACHINE = NEVER - 1
#: The indices in ``native64`` of the ticks at which the budget is used up, and at which the slice ends.
TICK_END = NATIVE["tick_end"].offset // 8
SLICE_END = NATIVE["slice_end"].offset // 8
#: The indices of how far native code may prolong the slice, by how much at a time, and until when by the host's clock.
SLICE_LIMIT, SLICE_LENGTH, LOOK_AT = (NATIVE[name].offset // 8 for name in ("slice_limit", "slice_length", "look_at"))
INPUT_DUE = NATIVE["input_due"].offset // 8
#: The index in ``native64`` of the ticks of the slice in which the guest waited.
WAITED = NATIVE["waited"].offset // 8
#: The index of the waits that native code has completed in it.
WAITS = NATIVE["waits"].offset // 8
#: The indices in ``native64`` of what events are charged, and of what has been charged.
CHARGE_SLOTS = NATIVE["charges"].offset // 8
CHARGED_SLOT = NATIVE["charged"].offset // 8
#: The indices in ``native32`` and ``native64`` of what each run sets.
NATIVE_EXCEPTIONS = NATIVE["native_exceptions"].offset // 4
NATIVE_WAITS = NATIVE["native_waits"].offset // 4
SEMIHOSTING_SLOT = NATIVE["semihosting_svc"].offset // 8
_LINES = NATIVE["interrupt_lines"].offset // 4
#: The slots of counts by which one run of the machine affects the next.
_KEPT = [(NATIVE[name].offset // 8, NATIVE[name].count) for name in ("aborts_left", "exceptions", "hypercalls")]

_R = LAYOUT["r"].index
_FLAGS = {name: LAYOUT[name].index for name in ("n", "z", "c", "v", "q", "ge", "psr")}
_PSR = _FLAGS["psr"]
_ARCHITECTURE = LAYOUT["architecture"].index
_BANK_R8 = LAYOUT["bank_r8"].index
_BANK_R13 = LAYOUT["bank_r13"].index
_BANK_R14 = LAYOUT["bank_r14"].index
_SPSR = LAYOUT["spsr"].index


class CpuState:
    """The registers of one virtual CPU. All values are unsigned 32-bit Python ints.

    ``words`` is the architectural state by word index; ``r`` a view of its first sixteen words.
    """

    def __init__(self, model: CpuModel = ANY) -> None:
        self.model = model
        # Private, so that a forked process has registers of its own.
        size = (1 + STITCH_COUNTERS_PAGES) * PAGE_SIZE
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = Hva(ctypes.addressof(ctypes.c_char.from_buffer(self._memory)))
        whole = self._whole = memoryview(self._memory)
        self.words = whole[: LAYOUT.size].cast("I")
        self.native32 = whole.cast("I")
        self.native64 = whole.cast("Q")
        self.r = self.words[_R : _R + 16]
        self.set_native("last_exception", NEVER)
        self.set_native("stale_after", STALE_AFTER)
        for register in range(NATIVE["guesses"].count):
            self.set_native("guesses", NO_GUESS, register)
        self.reset()

    def use_model(self, model: CpuModel) -> None:
        """Set the model that the next reset establishes."""
        self.model = model

    def close(self) -> None:
        """Release the memory now. An access to a register afterwards raises ValueError.

        If a user has made a view of a view, such as a slice, the memory is released with that.
        """
        for view in (self.r, self.words, self.native32, self.native64, self._whole):
            with suppress(BufferError):
                view.release()
        with suppress(BufferError):
            self._memory.close()

    def reset(self) -> None:
        """Set the state after a reset: registers 0 or as the model says, supervisor mode, A, I and F masked
        (B1.9.1).
        """
        for index in range(len(self.words)):
            self.words[index] = 0
        self.words[_FLAGS["psr"]] = Mode.SUPERVISOR | 0x1C0
        self["architecture"] = self.model.architecture
        for name, value in self.model.words.items():
            word, _, element = name.partition("+")
            self.words[LAYOUT.words[word].index + int(element or 0)] = value

    @property
    def pc(self) -> Gva:
        """The address of the next instruction. It is valid while no code runs."""
        return Gva(self.r[15])

    # -- named words and slots -------------------------------------------------------------------

    def __getitem__(self, name: str) -> int:
        """Return a word of the architectural state by its name in the layout."""
        return self.words[LAYOUT.words[name].index]

    def __setitem__(self, name: str, value: int) -> None:
        self.words[LAYOUT.words[name].index] = value & 0xFFFFFFFF

    def native(self, name: str, element: int = 0) -> int:
        """Return an element of a slot of the translator's part."""
        slot = NATIVE[name]
        view = self.native32 if slot.size == 4 else self.native64
        return view[slot.offset // slot.size + element]

    def set_native(self, name: str, value: int, element: int = 0) -> None:
        slot = NATIVE[name]
        view = self.native32 if slot.size == 4 else self.native64
        view[slot.offset // slot.size + element] = value

    # -- program status --------------------------------------------------------------------------

    @property
    def cpsr(self) -> int:
        """The CPSR as MRS shows it (B1.3.3)."""
        w, f = self.words, _FLAGS
        return (
            w[f["n"]] << 31 | w[f["z"]] << 30 | w[f["c"]] << 29 | w[f["v"]] << 28
            | w[f["q"]] << 27 | w[f["ge"]] << 16 | w[f["psr"]]
        )  # fmt: skip

    @cpsr.setter
    def cpsr(self, value: int) -> None:
        """Set every bit, switching the register banks if the mode changes."""
        if value & PSR_MODE not in BANKS:
            raise ValueError(f"CPSR {value:#010x} has no valid mode")
        self.switch_mode(value & PSR_MODE)
        w, f = self.words, _FLAGS
        w[f["n"]], w[f["z"]], w[f["c"]], w[f["v"]] = value >> 31 & 1, value >> 30 & 1, value >> 29 & 1, value >> 28 & 1
        w[f["q"]], w[f["ge"]], w[f["psr"]] = value >> 27 & 1, value >> 16 & 15, value & PSR_KEPT

    @property
    def takeable_interrupts(self) -> int:
        """The interrupts that can be taken: PSR_F and PSR_I for each line that is up and not masked by the CPSR."""
        return self.native32[_LINES] & ~self.words[_PSR]

    @property
    def mode(self) -> int:
        return self.words[_FLAGS["psr"]] & PSR_MODE

    @property
    def spsr(self) -> int:
        """The SPSR of the current mode. User and system mode have none, and give the CPSR."""
        bank = BANKS[self.mode]
        return self.words[_SPSR + bank] if bank else self.cpsr

    @spsr.setter
    def spsr(self, value: int) -> None:
        bank = BANKS[self.mode]
        if bank:
            self.words[_SPSR + bank] = value & 0xFFFFFFFF

    def switch_mode(self, mode: int) -> None:
        """Change CPSR.M and the registers R8 to R14 that come with it."""
        w, old = self.words, self.mode
        if BANKS[old] != BANKS[mode]:
            w[_BANK_R13 + BANKS[old]], w[_BANK_R14 + BANKS[old]] = self.r[13], self.r[14]
            if Mode.FIQ in (old, mode):
                for i in range(5):
                    self.r[8 + i], w[_BANK_R8 + i] = w[_BANK_R8 + i], self.r[8 + i]
            self.r[13], self.r[14] = w[_BANK_R13 + BANKS[mode]], w[_BANK_R14 + BANKS[mode]]
        w[_FLAGS["psr"]] = w[_FLAGS["psr"]] & ~PSR_MODE | mode

    def banked(self, number: int, mode: int) -> int:
        """Return register 0 to 14 as ``mode`` sees it."""
        view, index = self._banked_place(number, mode)
        return view[index]

    def set_banked(self, number: int, mode: int, value: int) -> None:
        view, index = self._banked_place(number, mode)
        view[index] = value & 0xFFFFFFFF

    def _banked_place(self, number: int, mode: int) -> tuple[memoryview[int], int]:
        if 8 <= number <= 12 and (mode == Mode.FIQ) != (self.mode == Mode.FIQ):
            return self.words, _BANK_R8 + number - 8
        if number in (13, 14) and BANKS[mode] != BANKS[self.mode]:
            return self.words, (_BANK_R13 if number == 13 else _BANK_R14) + BANKS[mode]
        return self.r, number

    def snapshot(self) -> bytes:
        """Return the architectural state, for hashes and comparisons. Banks of the current mode are updated first."""
        bank = BANKS[self.mode]
        self.words[_BANK_R13 + bank], self.words[_BANK_R14 + bank] = self.r[13], self.r[14]
        return self.words[: state_size(self.words[_ARCHITECTURE]) // 4].tobytes()

    def keep(self) -> Callable[[], None]:
        """Return a function that gives registers, lines, and the counts that runs depend on their present values
        again.
        """
        self.snapshot()
        places = [(self.words, 0, len(self.words)), (self.native32, _LINES, _LINES + 1)]
        places += [(self.native64, first, first + count) for first, count in _KEPT]
        kept = [(view, first, end, array(view.format, view[first:end])) for view, first, end in places]

        def put_back() -> None:
            for view, first, end, values in kept:
                view[first:end] = values

        return put_back

    def describe(self) -> Iterator[tuple[str, int]]:
        """Yield name and value of every register that a debugger shows."""
        yield from ((f"r{i}", self.r[i]) for i in range(16))
        yield "cpsr", self.cpsr
