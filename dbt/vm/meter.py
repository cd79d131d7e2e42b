"""What a guest costs the host, in instructions: those that it retires, and a fixed charge for each event besides.

An instruction of compiled code takes less than a nanosecond, and a device access that Python answers some thousand
times as long. So a guest of nothing but device accesses would take the host for itself if only instructions were
counted. The charges come from a table, and not from the host's clock: the same guest is charged the same again. They
are no part of the guest's state. docs/decisions/scheduler.md has how they were measured.
"""

from __future__ import annotations

from typing import NamedTuple

from dbt.abi.cpu import NATIVE, SLICE_END, CpuState
from dbt.memory.guest_memory import GuestMemory
from isa.arm.architecture import CALLOUT_NUMBERS

#: The bounds of a stretch that is executed between two looks at the charges, in instructions.
_LEAST, _MOST = 1 << 6, 1 << 22
_FIRST, _GROWTH = 1 << 12, 8
#: What a stretch is to cost at most, in instructions, if it costs as the last one did.
_TARGET = 1 << 22
_DEVICE_ANSWERS = NATIVE["device_answers"].offset // 8
_HYPERCALLS = NATIVE["hypercalls"].offset // 8
_EXCEPTIONS = NATIVE["exceptions"].offset // 8
_EXCEPTIONS_END = _EXCEPTIONS + NATIVE["exceptions"].count
_CALLOUTS = NATIVE["callout_counts"].offset // 8


class Charges(NamedTuple):
    """What each kind of event is charged, in instructions. See docs/decisions/scheduler.md."""

    #: A device access that Python answers.
    device_access: int = 4800
    #: A device access or a hypercall that native code answers.
    native_access: int = 25
    #: An exit that the machine answers in Python: an undefined instruction, an abort, a call of firmware.
    exit: int = 26_000
    #: A semihosting call.
    semihosting: int = 2500
    #: A WFI that the guest begins to wait in.
    wait: int = 20_000
    #: An exception or interrupt that native code enters.
    exception: int = 20
    #: A reset of the machine, which is made anew then, and may get a new process.
    reset: int = 20_000_000
    #: A TLB operation, which empties shadow page tables.
    tlb_flush: int = 320


CHARGES = Charges()


class Meter:
    """Counts what a guest is charged since :meth:`begin`, and says when its allowance is used up.

    Nothing is charged in runs without a meter, and they are not slower for it. A virtual CPU has one during a run that
    is metered (:class:`dbt.vm.vcpu.Vcpu`), and keeps it for the next one.
    """

    def __init__(self, cpu: CpuState, memory: GuestMemory, charges: Charges = CHARGES) -> None:
        self._cpu = cpu
        self._memory = memory
        self.charges = charges
        self._flushes = [_CALLOUTS + CALLOUT_NUMBERS[name] for name in ("tlb_flush", "tlb_flush_page")]
        self._limit = 0
        self._began = 0  # the icount
        self._by_python = 0  # charges of exits that the machine has answered
        self._base = 0  # of the counts that do not begin with the run
        self._charged = 0  # at the beginning of the present stretch
        self._accesses = 0  # device accesses that Python had made then
        self._left = 0  # likewise
        self._stretch = _FIRST
        self._last = 1, 1  # the instructions of the last stretch that was not cut short, and what it cost with charges

    def begin(self, icount: int, limit: int) -> None:
        """Begin to count. The guest may use ``limit``: instructions that it retires, and charges."""
        self._limit, self._began = limit, icount
        self._by_python = self._charged = 0
        self._base = self._counted()
        self._accesses = self._memory.device_accesses

    def _counted(self) -> int:
        """Return the charges for everything that is counted elsewhere."""
        words, charges = self._cpu.native64, self.charges
        return (
            self._memory.device_accesses * charges.device_access
            + (words[_DEVICE_ANSWERS] + words[_HYPERCALLS]) * charges.native_access
            + sum(words[_EXCEPTIONS:_EXCEPTIONS_END]) * charges.exception
            + sum([words[at] for at in self._flushes]) * charges.tlb_flush
        )

    def charged(self) -> int:
        """Return what has been charged since :meth:`begin`, besides the instructions."""
        return self._by_python + self._counted() - self._base

    # -- for the run loop ----------------------------------------------------------------------

    def left(self, icount: int) -> int:
        """Return how much the guest may still use. It is negative if an event was charged more than was left."""
        return self._limit - (icount - self._began) - self.charged()

    def begin_stretch(self, icount: int) -> bool:
        """Look at the charges, between two stretches. Return False if the guest may not execute another one."""
        self._charged = self.charged()
        self._accesses = self._memory.device_accesses
        self._left = self._limit - (icount - self._began) - self._charged
        return self._left > 0

    @property
    def budget(self) -> int:
        """The instructions to execute before the next look at the charges, if they cost as the last ones did."""
        retired, cost = self._last
        return min(self._stretch, max(self._left * retired // cost, 1))

    def learn(self, retired: int, seconds: float) -> None:
        """Adapt the length of stretches to what the last one was charged. The host's time has no part in it."""
        if retired < _LEAST:
            return  # so few may be of any kind
        cost = retired + self.charged() - self._charged
        self._stretch = max(_LEAST, min(retired * _TARGET // cost, self._stretch * _GROWTH, _MOST))
        self._last = retired, cost

    def charge_exit(self) -> None:
        """Charge an exit that the machine answers."""
        self._by_python += self.charges.exit

    def charge_wait(self) -> None:
        """Charge a WFI in which the guest begins to wait."""
        self._by_python += self.charges.wait

    def charge_semihosting(self) -> None:
        """Charge a semihosting call."""
        self._by_python += self.charges.semihosting

    # -- within a stretch ----------------------------------------------------------------------

    def allowance(self, progress: int, now: int) -> int:
        """Return how many instructions may still retire after a device access, that of the access included.

        ``progress`` is the exact number of instructions retired, and ``now`` the tick.
        """
        accesses = self._memory.device_accesses - self._accesses
        known = self._charged + accesses * self.charges.device_access
        left = max(self._limit - (progress - self._began) - known, 1)
        words = self._cpu.native64
        words[SLICE_END] = min(words[SLICE_END], now + left)
        return left
