"""Small machines for comparing tiers: a CPU, RAM, a device, and a tier that is eager where it compiles."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import CpuState
from dbt.abi.exits import Budget, SupervisorCall, VmExit
from dbt.abi.layout import HOT_ARRIVALS, OPS_PER_PAGE, PAGE_SHIFT, WARM
from dbt.engine.observer import Observer
from dbt.engine.reference import ReferenceTier
from dbt.engine.region_tier import RegionTier
from dbt.engine.stitched import Thresholds
from dbt.engine.threaded import ThreadedTier
from dbt.engine.tier import Allowance, JitMode, unlimited
from dbt.engine.worker import CompileWorker
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.memory.guest_memory import GuestMemory
from tests.oracle.bare import BareMachine, MakeTier
from tests.oracle.programs.eager import EagerRegionTier
from tests.oracle.programs.eager_stitched import EagerStitchedTier

RAM_SIZE = 0x20000
ENTRY = 0x8000
DEVICE = 0x1000_0000
#: How many arrivals make an op hot in :class:`SoonHotTier`.
SOON = 6
#: How many stores beside code list a code page as stale in :class:`SmallMachine`.
STALE_SOON = 3
_compare_memory = ctypes.CDLL(None).memcmp
_compare_memory.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Counter:
    """A device whose reads count up and whose accesses are remembered."""

    def __init__(self) -> None:
        self.accesses: list[tuple[int, int, int | None]] = []

    def native_device(self, gpa: Gpa) -> None:
        return None

    def private(self, number: int) -> None:
        return None

    def covers(self, gpa: int, size: int) -> bool:
        return DEVICE <= gpa <= DEVICE + 0x1000 - size

    def read(self, gpa: int, size: int) -> int:
        self.accesses.append((gpa, size, None))
        return len(self.accesses) * 0x01010101 & ((1 << 8 * size) - 1)

    def write(self, gpa: int, size: int, value: int) -> None:
        self.accesses.append((gpa, size, value))


class _KeepsWarm(Observer):
    """Lets code whose region was dropped be hot soon again."""

    def __init__(self) -> None:
        self.warm: Callable[[int], None] = lambda entry: None

    def region_dropped(self, entry: Gpa, why: str, written: Gpa | None) -> None:
        self.warm(entry)


class _Measuring(Observer):
    """Lets stitched code keep the number of instructions that it executes, and be logged."""

    wants_stitched_insns = True
    wants_stitch_log = True


class SoonHotTier(RegionTier):
    """The region tier as it is, but that ops are hot after few arrivals, also those at the end of regions."""

    def __init__(
        self,
        cpu: CpuState,
        memory: GuestMemory,
        jit: JitMode,
        soon: int = SOON,
        keep: bool = False,
        optimizations: Optimizations = ALL,
        worker: CompileWorker | None = None,
        allowance: Allowance = unlimited,
    ) -> None:
        observer = _KeepsWarm()
        super().__init__(
            cpu,
            memory,
            jit=jit,
            keep=keep,
            optimizations=optimizations,
            observer=observer,
            allowance=allowance,
            worker=worker,
            thresholds=Thresholds(warm=0, hot=0),
        )
        observer.warm = self._warm
        self._warmed: set[int] = set()
        self._soon = HOT_ARRIVALS + WARM - soon

    def run(self, budget: int) -> tuple[VmExit, int]:
        if Gpa(self._cpu.r[15]) in self._memory.ram:
            self.code_pages.need(self._cpu.r[15] >> PAGE_SHIFT)
        for page in self._memory.ram.pages_with_code():
            if page not in self._warmed:
                self._warmed.add(page)
                for number in range(OPS_PER_PAGE):
                    self._warm((page << PAGE_SHIFT) + 4 * number)
        return super().run(budget)

    def _warm(self, pc: int) -> None:
        self.code_pages.set_arrivals(Gpa(pc), self._soon)

    def ask_for(self, pc: int) -> None:
        """Ask for the region there, hot or not."""
        request = self._request(Gpa(pc), Gva(pc))
        assert request is not None
        self._requested.add(Gpa(pc))
        self.compiler.submit(request)

    def settle(self) -> None:
        """Wait until something that was asked for can be installed, which is done when the tier runs."""
        client = self.compiler
        while client.pending and not client._answers:
            if (child := client._worker._child) is not None:
                child.has_answers(5000)
            with client._worker._lock:
                client._worker._receive()  # also that it has started, or ended
                client._send_unsent()


def eager_without(*names: str) -> MakeTier:
    return lambda cpu, memory: EagerRegionTier(cpu, memory, optimizations=Optimizations.without(*names))


KINDS: dict[str, MakeTier] = {
    "reference": ReferenceTier,
    "threaded": ThreadedTier,
    "stitched": EagerStitchedTier,
    "warm": lambda cpu, memory: ThreadedTier(cpu, memory, stitch=True),
    "measured": lambda cpu, memory: ThreadedTier(cpu, memory, stitch=True, observer=_Measuring()),
    "eager": EagerRegionTier,
    "sync": lambda cpu, memory: SoonHotTier(cpu, memory, jit="sync"),
    "async": lambda cpu, memory: SoonHotTier(cpu, memory, jit="async"),
}
WITHOUT: dict[str, MakeTier] = {
    **{f"without {name}": eager_without(name) for name in Optimizations.names()},
    "without anything": eager_without(*Optimizations.names()),
}


class SmallMachine(BareMachine):
    """Runs code from ENTRY until SVC 0. Any other exit is remembered and its instruction skipped, as one retired."""

    def __init__(self, kind: str, code: bytes, make_tier: MakeTier | None = None) -> None:
        """Make a machine of a kind. With ``make_tier``, ``kind`` is only what reports call it."""
        self.kind = kind
        self.device = Counter()
        super().__init__(make_tier or (KINDS | WITHOUT)[kind], RAM_SIZE, self.device)
        self.memory.write_ram(Gpa(ENTRY), code)
        self.cpu.set_native("stale_after", STALE_SOON)
        self.cpu.r[15] = ENTRY
        self.cpu.r[13] = RAM_SIZE - 0x1000
        self.exits: list[tuple[int, object]] = []
        self.icount = 0
        self.ended = False
        self._agreed: tuple[SmallMachine | None, int, int] = None, 0, 0

    def advance(self, count: int) -> None:
        """Run ``count`` instructions, or to the end."""
        while count and not self.ended:
            exit_, retired = self.tier.run(count)
            assert retired <= count
            assert self.cpu.r[15] == exit_.pc
            self.icount += retired
            count -= retired
            if isinstance(exit_, Budget):
                continue
            assert count, f"{exit_} with no budget left"
            self.exits.append((self.icount, exit_))
            self.ended = isinstance(exit_, SupervisorCall) and exit_.immediate == 0
            self.cpu.r[15] += 4
            self.icount += 1
            count -= 1

    def agrees(self, other: SmallMachine) -> bool:
        """Return True if both guests have the same state and have done the same. Equal digests say so too, but take
        many times as long.
        """
        mine, theirs = self.memory.ram, other.memory.ram
        return (
            (self.icount, self.ended) == (other.icount, other.ended)
            and self.cpu.snapshot() == other.cpu.snapshot()
            and self._has_done_as(other)
            and mine.layout == theirs.layout
            and all(
                not _compare_memory(mine.address + region.base, theirs.address + region.base, region.size)
                for region in mine.layout.regions
            )
        )

    def _has_done_as(self, other: SmallMachine) -> bool:
        """Compare exits and accesses, of which there may be thousands: those that were the same before are not looked
        at again.
        """
        with_whom, exits, accesses = self._agreed
        if with_whom is not other:
            exits = accesses = 0
        if (
            self.exits[exits:] != other.exits[exits:]
            or self.device.accesses[accesses:] != other.device.accesses[accesses:]
        ):
            return False
        self._agreed = other, len(self.exits), len(self.device.accesses)
        return True

    def digest(self) -> str:
        """Return a hash of everything that the guest can see, and of what it did."""
        return self.state_hash(self.icount, self.ended, self.exits, self.device.accesses)

    def describe(self) -> str:
        words = [f"{name}={value:08x}" for name, value in self.cpu.describe()]
        return f"{self.kind}: icount {self.icount} {' '.join(words)} exits {self.exits[-2:]}"
