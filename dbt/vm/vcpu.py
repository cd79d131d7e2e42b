"""The virtual CPU: executes a slice of instructions and says why it stopped.

It never sleeps, prints or knows the host. It counts exactly: after each slice, and also if an exception came out of
it, ``icount`` is the number of instructions that have retired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gva
from dbt.abi.cpu import (
    LOOK_AT,
    NATIVE,
    SLICE_END,
    SLICE_LENGTH,
    SLICE_LIMIT,
    TICK_END,
    WAITED,
    WAITS,
    CpuState,
)
from dbt.abi.exits import VmExit
from dbt.board.timeline import Timeline
from dbt.devices.state import Plain, PutBack, State
from dbt.engine.tier import Allowance, Tier
from dbt.memory.guest_memory import GuestMemory
from dbt.vm.error_latch import ErrorLatch
from dbt.vm.exception_entry import ExceptionEntry
from dbt.vm.exception_storm import ABORTS_PER_LOOK, FIRST_LOOK, Situation
from isa.arm.vectors import VECTORS, ExceptionKind

if TYPE_CHECKING:
    from dbt.devices.fields import Fields
    from dbt.vm.meter import Meter

_SP, _PC = 13, 15
#: The number of the vector of data aborts, and the names of the other exits that become exceptions of a storm.
_DATA_ABORT = VECTORS[ExceptionKind.DATA_ABORT].offset >> 2
_LEFT_TO_MACHINE = ("undefined", "hypervisor call", "secure monitor call", "prefetch abort", "breakpoint")
_LAST_PAGE = 0xFFFFF000
#: What :meth:`Vcpu.save` returns.
FIELDS = frozenset({"skipped", "completed", "waits_at", "exits", "exceptions", "aborts_left", "entered"})


class Vcpu:
    """One processor with its virtual time.

    ``make_tier`` makes the tier, given its allowance. It is called when the tier is first needed, because that may
    build native code. ``latch`` keeps exceptions that callbacks raise inside a slice. An instruction takes ``insn_ns``
    nanoseconds of virtual time. ``wakes`` returns True if a waiting processor is to go on without an interrupt.

    ``icount`` is the number of instructions retired since the reset. ``skipped`` is the number of ticks that passed
    while it waited for an interrupt. ``waited`` are those of them that passed in native code in the last slice.
    ``completed`` counts those of ``icount`` that the machine completed, and not the tier. ``exit_counts`` counts exits
    and exceptions by name, without those that native code entered, and without interrupts: these are counted in
    ``cpu``, whoever enters them.
    """

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        make_tier: Callable[[Allowance], Tier],
        latch: ErrorLatch,
        insn_ns: float,
        wakes: Callable[[], bool] = lambda: False,
    ) -> None:
        self._wakes = wakes
        self.cpu = cpu
        self.latch = latch
        self.timeline = Timeline(self.now, insn_ns)
        #: What counts the charges of the present run, if it is metered.
        self.meter: Meter | None = None
        self._kept_meter: Meter | None = None  # of the last such run
        self.exit_counts: Counter[str] = Counter()
        self.icount = self.skipped = self.completed = self.waited = 0
        self.reset_requested = False
        self._memory = memory
        self._make_tier = make_tier
        self._tier: Tier | None = None
        self._in_slice = False
        self._final_counts: tuple[dict[str, int], Counter[str]] | None = None  # when it is closed
        self._waits_at: Gva | None = None  # the WFI that has begun and has not retired
        self._waits_since = 0  # the tick from which on it waits
        self._scheduled = 0  # the events that had been scheduled when the end of the slice was chosen
        self.exceptions = ExceptionEntry(cpu, memory, lambda: self.tier)
        self.reset()

    def reset(self) -> None:
        """Set registers, time and counts as at power-on, with SP at the end of the main region of RAM."""
        self.cpu.reset()
        self.cpu.set_native("interrupt_lines", 0)
        self.cpu.set_native("aborts_left", 0)  # the first abort is left to the machine, which counts from there
        self.cpu.r[_SP] = min(self._memory.ram.layout.main.end, _LAST_PAGE)
        self.timeline.clear()
        self.cpu.set_native("timeline", self.timeline.address)
        for number in range(NATIVE["windows"].count):
            self.cpu.set_native("windows", 0, number)  # whose devices are gone
        for number in range(NATIVE["private"].count):
            self.cpu.set_native("private", 0, number)
        self.cpu.set_native("domain", 0)
        self.cpu.set_native("hypercalls", 0)
        for number in range(NATIVE["exceptions"].count):
            self.cpu.set_native("exceptions", 0, number)
        self.exit_counts.clear()
        self.exceptions.forget()
        self.icount = self.skipped = self.completed = 0
        self.reset_requested = False
        self._waits_at = None
        if self._tier is not None:
            self._tier.reset_counts()

    def close(self) -> None:
        """Release what the tier and the registers use of the host. The counts stay."""
        self._final_counts = self.retired, self.event_counts
        if self._tier is not None:
            self._tier.close()
            self._tier = None
        self.cpu.close()

    # -- state -----------------------------------------------------------------------------------

    def save(self) -> State:
        """Return what is not in the architectural state, as plain values: see :data:`FIELDS`."""
        exits: dict[str, Plain] = dict(self._counts_with_hypercalls())
        entered: dict[str, Plain] = dict.fromkeys(self.exceptions.entered, 1)
        return {
            "skipped": self.skipped,
            "completed": self.completed,
            "waits_at": self._waits_at,
            "exits": exits,
            "exceptions": [self.cpu.native("exceptions", number) for number in range(NATIVE["exceptions"].count)],
            "aborts_left": self.cpu.native("aborts_left"),
            "entered": entered,
        }

    def restore(self, icount: int, reset_requested: bool, fields: Fields) -> None:
        """Take over what :meth:`save` returned, and the rest that is not in the architectural state, without the
        levels of the interrupt lines. Raise StateError for values that make no sense.
        """
        count = NATIVE["exceptions"].count
        exceptions, entered = fields.numbers("exceptions", count), fields.counts("entered", len(ExceptionKind))
        if len(exceptions) != count:
            raise fields.wrong("exceptions", f"a list of {count} numbers")
        if not entered.keys() <= {kind.value for kind in ExceptionKind}:
            raise fields.wrong("entered", "a mapping of the names of exceptions")
        self.icount, self.reset_requested = icount, reset_requested
        self.skipped, self.completed = fields.number("skipped"), fields.number("completed", icount + 1)
        self._waits_at = None if fields.is_none("waits_at") else Gva(fields.number("waits_at", 1 << 32))
        self._waits_since = self.now()
        self.exit_counts.clear()
        self.exit_counts.update(fields.counts("exits", 100))
        self.cpu.set_native("hypercalls", 0)
        self.exceptions.entered = entered
        self.cpu.set_native("aborts_left", fields.number("aborts_left", ABORTS_PER_LOOK))
        for number, taken in enumerate(exceptions):
            self.cpu.set_native("exceptions", taken, number)

    def keep(self) -> PutBack:
        """Return a function that gives the processor its present registers, lines, counts and time again.

        The counts of what the tier has executed (:attr:`retired`) go on.
        """
        registers, entered = self.cpu.keep(), self.exceptions.entered
        counts = self.icount, self.skipped, self.completed, self.reset_requested, self._waits_at
        exits = dict(self.exit_counts)

        def put_back() -> None:
            registers()
            self.exceptions.entered = entered
            self.icount, self.skipped, self.completed, self.reset_requested, self._waits_at = counts
            self._waits_since = self.now()
            self.exit_counts.clear()
            dict.update(self.exit_counts, exits)

        return put_back

    # -- time ----------------------------------------------------------------------------------

    @property
    def tier(self) -> Tier:
        """The tier, which is made when it is first needed."""
        if self._tier is None:
            self._tier = self._make_tier(self._allowance)
        return self._tier

    @property
    def progress(self) -> int:
        """The instructions retired so far, which is also exact while a slice runs."""
        return self.icount + self.tier.progress if self._in_slice else self.icount

    def now(self) -> int:
        """Return the virtual time in ticks: the instructions retired, and what was skipped while the guest waited."""
        return self.progress + self.skipped + (self.cpu.native64[WAITED] if self._in_slice else 0)

    def _allowance(self) -> int | None:
        """Return how many instructions the slice may still retire, that of the device access included.

        Return None if the access has not made them fewer.
        """
        if self.reset_requested or self.latch.is_set:
            self.cpu.native64[SLICE_END] = self.cpu.native64[SLICE_LIMIT] = self.now() + 1
            return 1
        if self.cpu.takeable_interrupts:
            return 1
        scheduled = self.timeline.scheduled
        if scheduled == self._scheduled and self.meter is None:
            return None  # the slice ends at the next event, and none has been added
        self._scheduled = scheduled
        left = self.meter.allowance(self.now()) if self.meter is not None else None
        next_tick = self.timeline.next_tick
        if next_tick is None or next_tick >= self.cpu.native64[TICK_END]:
            return left
        until_event = max(next_tick - self.now(), 1)
        return until_event if left is None else min(left, until_event)

    def begin_metering(self, limit: int) -> Meter:
        """Charge the guest for what it does from now on. It may use ``limit``: instructions, and charges."""
        from dbt.vm.meter import Meter  # which a machine that does not share its host does not need

        if self._kept_meter is None:
            self._kept_meter = Meter(self.cpu, self._memory)
        self._kept_meter.begin(self.icount, limit)
        self.meter = self._kept_meter
        return self.meter

    def end_metering(self) -> None:
        """Charge nothing any more."""
        assert self.meter is not None
        self.meter.end()
        self.meter = None

    # -- lines ---------------------------------------------------------------------------------

    def set_line(self, bit: int, level: bool) -> None:
        """Set the level of an interrupt input; ``bit`` is PSR_I for IRQ, PSR_F for FIQ."""
        lines = self.cpu.native("interrupt_lines")
        self.cpu.set_native("interrupt_lines", lines | bit if level else lines & ~bit)

    def request_reset(self) -> None:
        """Note that a device requests a reset. The slice ends with the present instruction."""
        self.reset_requested = True

    # -- executing -----------------------------------------------------------------------------

    def run(self, budget: int, limit: int = 0, look_at: int = 0) -> tuple[VmExit, int]:
        """Execute at most ``budget`` instructions. Return why execution stopped and how many have retired.

        With a larger ``limit``, native code goes on by ``budget`` each time, up to the limit, and until the host's
        monotonic clock is at ``look_at``, in ns. It stops at the next event, unless that can happen in native code.
        """
        tier, now = self.tier, self.now()
        next_tick, until_event = self.timeline.next_tick, budget
        self._scheduled = self.timeline.scheduled
        if next_tick is not None and now < next_tick < now + budget:
            until_event = next_tick - now
        self.cpu.native64[TICK_END] = now + until_event
        self.cpu.native64[SLICE_END] = now + budget
        self.cpu.native64[SLICE_LIMIT] = now + limit if limit > budget else 0  # charges may move the end back
        self.cpu.native64[SLICE_LENGTH], self.cpu.native64[LOOK_AT] = budget, look_at
        self.cpu.native64[WAITED] = self.cpu.native64[WAITS] = 0
        self._in_slice = True
        try:
            exit_, retired = tier.run(until_event)
        except BaseException:
            self._in_slice = False
            self._account(tier.progress)
            raise
        self._in_slice = False
        self._account(retired)
        return exit_, retired

    def _account(self, retired: int) -> None:
        self.icount += retired
        self.waited = self.cpu.native64[WAITED]
        self.skipped += self.waited
        # Whether native code or the machine completes a wait depends on where slices end, and the count must not.
        self.completed += self.cpu.native64[WAITS]
        if retired:
            self.exceptions.retired()

    def retire(self, next_pc: Gva) -> None:
        """Count an instruction that the machine has completed for the guest, and continue at ``next_pc``."""
        self.cpu.r[_PC] = next_pc & 0xFFFFFFFF
        self.icount += 1
        self.completed += 1
        self.exceptions.forget()

    def take_interrupt(self) -> ExceptionKind | None:
        """Enter the guest's handler for an interrupt, if one is to be taken before the next instruction."""
        kind = self.exceptions.take_interrupt()
        if kind is not None:
            number = VECTORS[kind].offset >> 2
            # Whether native code or the machine enters it depends on where slices end, and the counts must not.
            self.cpu.set_native("exceptions", self.cpu.native("exceptions", number) + 1, number)
        return kind

    # -- waiting for an interrupt (B1.8.13) ----------------------------------------------------

    def begin_wait(self) -> None:
        """Begin to wait in a WFI. It completes when :meth:`end_wait` finds an interrupt, masked or not (B1.8.13)."""
        self._waits_at = Gva(self.cpu.r[_PC])
        self._waits_since = self.now()

    @property
    def is_waiting(self) -> bool:
        """Return True while a WFI has begun and has not completed."""
        return self._waits_at is not None and self._waits_at == self.cpu.r[_PC]

    @property
    def can_receive(self) -> bool:
        """Return False if a wait has begun and no time has passed since.

        Input that comes to a waiting guest comes at a later tick than the wait begins. So its time tells whether it
        came before the WFI was executed, and a replay does the same.
        """
        return not self.is_waiting or self.now() > self._waits_since

    @property
    def is_woken(self) -> bool:
        """True if the guest is at a WFI, and a line is up, or what it has told a hypervisor to wait for has come."""
        return self.is_waiting and bool(self.cpu.native("interrupt_lines") or self._wakes())

    def end_wait(self) -> bool:
        """Complete the WFI if the guest is woken, so that an interrupt returns to the instruction after it."""
        if not self.is_woken:
            return False
        self._waits_at = None
        self.retire(Gva(self.cpu.r[_PC] + 4))
        return True

    def skip(self, ticks: int) -> None:
        """Let virtual time pass in which nothing is executed."""
        self.skipped += ticks

    def situation(self) -> Situation:
        """Return what is compared to find out whether exceptions are endless."""
        counts = self.event_counts
        outside = sum(counts[name] for name in (ExceptionKind.IRQ.value, ExceptionKind.FIQ.value, "semihosting"))
        outside += self._memory.device_accesses + self.cpu.native("device_answers")
        return Situation(self.cpu.snapshot(), self.cpu.native("interrupt_lines"), outside)

    def looks_at(self, kind: ExceptionKind) -> bool:
        """Return True if the exception that is about to be taken is to be looked at, as one of a storm.

        Every tier comes here with the same exceptions. See :mod:`dbt.vm.exception_storm`.
        """
        if kind is ExceptionKind.SUPERVISOR_CALL or (
            kind is ExceptionKind.DATA_ABORT and (self._data_aborts + 1) % ABORTS_PER_LOOK
        ):
            return False
        return self.exception_count >= FIRST_LOOK

    def count_exception(self, name: str, kind: ExceptionKind) -> None:
        """Count an exception that the machine takes, by the name of its exit."""
        self.exit_counts[name] += 1
        if kind is ExceptionKind.DATA_ABORT:
            left = ABORTS_PER_LOOK - 1 - self._data_aborts % ABORTS_PER_LOOK
            self.cpu.set_native("aborts_left", left)

    # -- counts --------------------------------------------------------------------------------

    @property
    def _data_aborts(self) -> int:
        return self.exit_counts["data abort"] + self.cpu.native("exceptions", _DATA_ABORT)

    def _counts_with_hypercalls(self) -> Counter[str]:
        """Return exits by name, with the hypercalls that were none."""
        counts = Counter(self.exit_counts)
        if done := self.cpu.native("hypercalls"):
            counts["hypercall"] += done
        return counts

    @property
    def exception_count(self) -> int:
        """The exceptions since the reset, without supervisor calls and interrupts."""
        return self._data_aborts + sum(self.exit_counts[name] for name in _LEFT_TO_MACHINE)

    @property
    def retired(self) -> dict[str, int]:
        """The instructions of ``icount`` by what executed them: "region", "stitched", "threaded", "reference", or
        "machine". See :attr:`dbt.engine.tier.Tier.retired`.

        The machine itself completes supervisor calls; the reference tier, beside another, what has to be emulated.
        """
        if self._final_counts is not None:
            return dict(self._final_counts[0])
        return {**(self._tier.retired if self._tier is not None else {}), "machine": self.completed}

    @property
    def event_counts(self) -> Counter[str]:
        """Exits, exceptions and interrupts by name, those taken in native code included."""
        if self._final_counts is not None:
            return Counter(self._final_counts[1])
        counts = self._counts_with_hypercalls()
        for kind, vector in VECTORS.items():
            if taken := self.cpu.native("exceptions", vector.offset >> 2):
                counts[kind.value] += taken
        return counts
