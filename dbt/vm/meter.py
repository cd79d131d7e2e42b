"""What a guest costs the host, in instructions: those that it retires, and a fixed charge for each event besides.

An instruction of compiled code takes less than a nanosecond, and a device access that Python answers some thousand
times as long. So a guest of nothing but device accesses would take the host for itself if only instructions were
counted. The charges come from a table, and not from the host's clock: the same guest is charged the same again. They
are no part of the guest's state. docs/decisions/scheduler.md has how they were measured.

Native code charges its own events (:mod:`dbt.backend.charging`) and Python the others. Whatever is charged within a
slice makes the slice shorter, so it ends where the allowance does, however long it was to be.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from dbt.abi.cpu import CHARGE_SLOTS, CHARGED_SLOT, SLICE_END, Charged, CpuState
from dbt.memory.guest_memory import GuestMemory
from dbt.vm.slice_sizer import SliceSizer

#: The longest slice, in instructions and charges.
_MOST = 1 << 24
_SLOTS_END = CHARGE_SLOTS + len(Charged)
_NOTHING = array("Q", [0] * len(Charged))


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
        natives = {
            Charged.ACCESS: charges.native_access,
            Charged.EXCEPTION: charges.exception,
            Charged.TLB_FLUSH: charges.tlb_flush,
        }
        self._native = array("Q", [natives[kind] for kind in Charged])
        self._limit = 0
        self._began = 0  # the icount
        self._accesses = 0  # the device accesses by Python that have been charged, or were made before
        self._charged = self._left = 0  # at the beginning of the present slice
        self._sizer = SliceSizer(_MOST)

    def begin(self, icount: int, limit: int) -> None:
        """Begin to count. The guest may use ``limit``: instructions that it retires, and charges."""
        words = self._cpu.native64
        words[CHARGE_SLOTS:_SLOTS_END] = self._native
        words[CHARGED_SLOT] = 0
        self._limit, self._began = limit, icount
        self._accesses = self._memory.device_accesses
        self._sizer.begin_run()

    def end(self) -> None:
        """Charge nothing any more."""
        self._cpu.native64[CHARGE_SLOTS:_SLOTS_END] = _NOTHING

    def charged(self) -> int:
        """Return what has been charged since :meth:`begin`, besides the instructions."""
        return self._cpu.native64[CHARGED_SLOT] + self._new_accesses()

    def _new_accesses(self) -> int:
        """Return what is to be charged for the device accesses that Python has made and that are not charged yet."""
        return (self._memory.device_accesses - self._accesses) * self.charges.device_access

    # -- for the run loop ----------------------------------------------------------------------

    def begin_slice(self, icount: int) -> bool:
        """Look at what is left, between two slices. Return False if the guest may not execute another one."""
        self._charged = self.charged()
        self._left = self._limit - (icount - self._began) - self._charged
        return self._left > 0

    @property
    def budget(self) -> int:
        """The instructions to execute in the next slice. What is charged meanwhile makes it shorter.

        It is longer than others if little would be left: what is done between two slices takes longer than a short one.
        """
        usual, left = self._sizer.budget, self._left
        return left if left <= usual + (usual >> 1) else usual

    def learn(self, budget: int, retired: int, seconds: float) -> None:
        """Adapt the length of slices to the time that the last one took. What is charged does not depend on it."""
        self._sizer.learn(budget, retired + self.charged() - self._charged, seconds)

    def charge_exit(self) -> None:
        """Charge an exit that the machine answers."""
        self._cpu.native64[CHARGED_SLOT] += self.charges.exit

    def charge_wait(self) -> None:
        """Charge a WFI in which the guest begins to wait."""
        self._cpu.native64[CHARGED_SLOT] += self.charges.wait

    def charge_semihosting(self) -> None:
        """Charge a semihosting call that has ended the slice."""
        self._cpu.native64[CHARGED_SLOT] += self.charges.semihosting

    # -- within a slice ------------------------------------------------------------------------

    def charge_semihosting_within(self, now: int) -> None:
        """Charge a semihosting call that is answered within the slice, at a tick."""
        self._charge_within(self.charges.semihosting, now)

    def allowance(self, now: int) -> int:
        """Charge a device access that Python has made at a tick. Return how many instructions may still retire, that of
        the access included.
        """
        units = self._new_accesses()
        self._accesses = self._memory.device_accesses
        return max(self._charge_within(units, now), 1)

    def _charge_within(self, units: int, now: int) -> int:
        """Charge an event, as native code does, and return how much is left of the slice."""
        words = self._cpu.native64
        words[CHARGED_SLOT] += units
        words[SLICE_END] = end = max(words[SLICE_END] - units, now)
        return end - now
