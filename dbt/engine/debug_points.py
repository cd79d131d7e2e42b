"""Breakpoints and watchpoints of a debugger in a native tier: see :mod:`dbt.backend.debug_points` for how they work.

They are at virtual addresses. A breakpoint is *armed* at each physical word that the guest has executed there, or is
about to. It stays armed when the page is mapped elsewhere, so the tier asks the debugger before it stops.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import NATIVE, CpuState
from dbt.abi.exits import LeaveGuest, WatchpointHit
from dbt.abi.hostmemory import HostRange
from dbt.abi.layout import (
    DEBUG_ARMED,
    DEBUG_BREAKS,
    DEBUG_LOADS,
    DEBUG_PAGES_BYTES,
    DEBUG_STORES,
    PAGE_SHIFT,
    WATCHPOINT_WORDS,
)
from dbt.engine.code_pages import CodePages
from dbt.memory.guest_memory import AccessHook

#: A word that was executed by an address without a breakpoint is disarmed, but not more often than this: it may be
#: mapped twice.
_MOST_DISARMS = 8
_WATCHES = NATIVE["watches"].offset // 4


class Watchpoint(NamedTuple):
    """``size`` bytes at ``gva``, at least one, which do not wrap around the address space; and the accesses watched."""

    gva: Gva
    size: int
    loads: bool
    stores: bool

    def touches(self, gva: Gva, size: int, write: bool) -> bool:
        """Return True if an access is one that is watched."""
        return (self.stores if write else self.loads) and gva < self.gva + self.size and self.gva < gva + size


class DebugPoints(Protocol):
    """Where a debugger may want the guest to stop. A tier asks ``stops_at`` and ``stops_for`` before it does.

    Both may read the guest's registers and memory. If they raise an exception, the guest can go on.
    """

    @property
    def breakpoints(self) -> Collection[Gva]: ...
    @property
    def watchpoints(self) -> Collection[Watchpoint]: ...

    def stops_at(self, pc: Gva) -> bool:
        """Return True if the guest is to stop in front of the instruction at ``pc``."""

    def stops_for(self, gva: Gva, size: int, write: bool) -> bool:
        """Return True if the guest is to stop in front of an access."""


def access_hook(points: DebugPoints, has_accessed: Callable[[], bool]) -> AccessHook | None:
    """Return a function that raises LeaveGuest if the guest is to stop in front of an access that Python makes. None if
    nothing is watched.

    ``has_accessed`` returns True if the instruction has accessed a device. Then it must be completed.
    """
    watchpoints = tuple(points.watchpoints)

    def check(pc: Gva, gva: Gva, size: int, write: bool) -> None:
        watched = any(watchpoint.touches(gva, size, write) for watchpoint in watchpoints)
        if watched and not has_accessed() and points.stops_for(gva, size, write):
            raise LeaveGuest(WatchpointHit(pc, gva, size, write))

    return check if watchpoints else None


class DebugHooks(NamedTuple):
    """What else happens with a breakpoint: ``drop`` drops all code that was made from a word, ``restore`` what was made
    while it could not be used, and ``flush`` the shadow page tables. ``locate`` returns the GPA from which the guest
    would fetch an instruction now, or None.
    """

    drop: Callable[[Gpa], None]
    restore: Callable[[], None]
    flush: Callable[[], None]
    locate: Callable[[Gva], Gpa | None]


class NativeDebugPoints:
    """The present debug points, as native code has them."""

    def __init__(self, points: DebugPoints, cpu: CpuState, code_pages: CodePages, hooks: DebugHooks) -> None:
        """Nothing stops the guest until :meth:`use`."""
        self._cpu, self._code_pages, self._hooks = cpu, code_pages, hooks
        self.points = points
        self.watches_loads = False
        self._breakpoints: frozenset[Gva] = frozenset()
        self._watchpoints: frozenset[Watchpoint] = frozenset()
        self._armed: dict[Gva, set[Gpa]] = {}
        self._disarms: Counter[Gpa] = Counter()
        self._pages: HostRange | None = None
        self._words = memoryview(b"").cast("I")  # of the debug pages

    def use(self, points: DebugPoints) -> None:
        """Use these debug points from now on. The guest must not be executing."""
        self.points = points
        breakpoints, watchpoints = frozenset(points.breakpoints), frozenset(points.watchpoints)
        if (breakpoints, watchpoints) == (self._breakpoints, self._watchpoints):
            return
        self.watches_loads = any(watchpoint.loads for watchpoint in watchpoints)
        removed = self._breakpoints - breakpoints
        self._breakpoints, self._watchpoints = breakpoints, watchpoints
        self._disarms.clear()
        self._disarm(removed)
        self._write_pages()
        self._write_watches()
        self._hooks.flush()
        self._arm_mapped()

    def arm(self, gva: Gva, gpa: Gpa) -> None:
        """Arm the breakpoints of the virtual page of ``gva`` in the physical page of ``gpa``, where it is mapped."""
        page, physical = gva >> PAGE_SHIFT, gpa >> PAGE_SHIFT
        for breakpoint_ in sorted(self._breakpoints):
            if breakpoint_ >> PAGE_SHIFT == page:
                self._arm(breakpoint_, Gpa(physical << PAGE_SHIFT | breakpoint_ & (1 << PAGE_SHIFT) - 1))
        kinds = self._words[page] & (DEBUG_BREAKS | DEBUG_LOADS | DEBUG_STORES)
        self._words[page] = kinds | physical + 1

    def disarm_stale(self, pc: Gva) -> None:
        """Disarm the word at ``pc``, which is armed, if it is so only because of how its page was mapped before.

        The page where the breakpoint is gets it again when the code table is next filled for it.
        """
        gpa = None if pc in self._breakpoints else self._hooks.locate(pc)
        if gpa not in self._code_pages.breakpoints or self._disarms[gpa] >= _MOST_DISARMS:
            return
        self._disarms[gpa] += 1
        for gva, places in self._armed.items():
            if gpa in places:
                places.discard(gpa)
                self._words[gva >> PAGE_SHIFT] &= 0xFFFFFFFF - DEBUG_ARMED
        self._code_pages.set_breakpoint(gpa, False)
        self._hooks.restore()
        self._hooks.flush()

    def stops_emulation(self, pc: Gva) -> bool:
        """Return True if the guest is to stop in front of an instruction that has no op, so no mark either."""
        return pc in self._breakpoints and self.points.stops_at(pc)

    def _arm(self, gva: Gva, gpa: Gpa) -> None:
        self._armed.setdefault(gva, set()).add(gpa)
        if gpa not in self._code_pages.breakpoints:
            self._code_pages.need(gpa >> PAGE_SHIFT)
            self._hooks.drop(gpa)
            self._code_pages.set_breakpoint(gpa, True)

    def _disarm(self, removed: Collection[Gva]) -> None:
        places = set[Gpa]().union(*(self._armed.pop(gva, set()) for gva in removed))
        places.difference_update(*self._armed.values())  # another virtual address has a breakpoint there
        for gpa in places:
            self._code_pages.set_breakpoint(gpa, False)
        if places:
            self._hooks.restore()

    def _arm_mapped(self) -> None:
        """Arm breakpoints where they are mapped now, so that regions that are entered at another page are dropped."""
        for page in {gva >> PAGE_SHIFT for gva in self._breakpoints}:
            gva = Gva(page << PAGE_SHIFT)
            gpa = self._hooks.locate(gva)
            if gpa is not None:
                self.arm(gva, gpa)

    def _write_pages(self) -> None:
        """Write the debug pages anew. Without debug points there are none, so that native code does not look."""
        self.close()
        wanted: defaultdict[int, int] = defaultdict(int)
        for gva in self._breakpoints:
            wanted[gva >> PAGE_SHIFT] |= DEBUG_BREAKS
        for watchpoint in self._watchpoints:
            kinds = DEBUG_LOADS * watchpoint.loads | DEBUG_STORES * watchpoint.stores
            for page in range(watchpoint.gva >> PAGE_SHIFT, (watchpoint.gva + watchpoint.size - 1 >> PAGE_SHIFT) + 1):
                wanted[page] |= kinds
        if wanted:
            self._pages = HostRange(DEBUG_PAGES_BYTES)
            self._words = self._pages.view().cast("I")
            for page, word in wanted.items():
                self._words[page] = word
            self._cpu.set_native("debug_pages", self._pages.address)

    def _write_watches(self) -> None:
        words = self._cpu.native32
        for number, watchpoint in enumerate(self._watchpoints):
            kinds = DEBUG_LOADS * watchpoint.loads | DEBUG_STORES * watchpoint.stores
            at = _WATCHES + number * WATCHPOINT_WORDS
            words[at], words[at + 1], words[at + 2] = watchpoint.gva, watchpoint.gva + watchpoint.size - 1, kinds
        self._cpu.set_native("watch_count", len(self._watchpoints))

    def close(self) -> None:
        """Let native code look at no debug pages any more, and release their memory."""
        if self._pages is not None:
            self._cpu.set_native("debug_pages", 0)
            self._words.release()
            self._pages.close()
            self._pages = None
