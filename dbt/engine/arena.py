"""The arena of native code: one memfd mapped twice, to write and to execute, never both at one address.

A process has one arena, in which all its machines place their regions (:func:`lease_arena`). Machines that have the
same region share one copy of its code. The arena is unmapped when the last machine gives its lease back.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Hva
from dbt.abi.hostmemory import HostRange

if TYPE_CHECKING:
    from dbt.backend.block_flows import BlockFlows

#: Bytes of address space for the code of all machines of a process. Pages that hold no code cost no memory.
ARENA_SIZE = 256 << 20
#: The same for their counters, which lie before the code, so that code can reach them by a 32-bit distance.
COUNTERS_SIZE = 32 << 20
_ALIGNMENT = 64


class FreeSpace:
    """The free parts of ``[0, size)``, from which the lowest that is large enough is taken."""

    def __init__(self, size: int) -> None:
        self._parts: list[tuple[int, int]] = [(0, size)]  # start and size, by start; no two of them touch

    def take(self, size: int) -> int | None:
        """Return where ``size`` bytes are free, which are no longer; None if there is no such part."""
        for number, (start, length) in enumerate(self._parts):
            if length >= size:
                self._parts[number : number + 1] = [(start + size, length - size)] if length > size else []
                return start
        return None

    def give_back(self, start: int, size: int) -> None:
        """Free what :meth:`take` returned."""
        number = bisect.bisect(self._parts, (start, size))
        end = start + size
        if number < len(self._parts) and self._parts[number][0] == end:
            end += self._parts.pop(number)[1]
        if number and sum(self._parts[number - 1]) == start:
            number -= 1
            start = self._parts.pop(number)[0]
        self._parts.insert(number, (start, end - start))


class Placed(NamedTuple):
    """Code that was placed: its bytes as they were given, its address and that of its counters, if it has any."""

    code: bytes
    address: Hva
    counters: Hva | None = None


class _Use:
    """Where code is in the arena, and how many have it; its counters, and their size in bytes."""

    __slots__ = ("counters", "counters_size", "start", "users")

    def __init__(self, start: int, users: int, counters: int | None = None, counters_size: int = 0) -> None:
        self.start, self.users = start, users
        self.counters, self.counters_size = counters, counters_size


class CodeArena:
    """``size`` bytes for code. Threads may use it at once. Raises OSError if the host forbids it."""

    def __init__(self, size: int = ARENA_SIZE) -> None:
        handle = os.memfd_create("dbt-arena")
        try:
            os.ftruncate(handle, size)
            self._writable = mmap.mmap(handle, size)
            self._memory = HostRange(COUNTERS_SIZE + size)
            self._memory.map_executable(COUNTERS_SIZE, size, handle)
        finally:
            os.close(handle)
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._free = FreeSpace(size)
        self._free_counters = FreeSpace(COUNTERS_SIZE)
        self._used: dict[bytes | Placed, _Use] = {}  # by code, or by place for code that has counters

    def place(self, code: bytes, flows: BlockFlows | None = None) -> Placed | None:
        """Place a copy of ``code``. Return None if there is no room. RuntimeError in a forked process.

        Code that counts is a copy for its caller alone, whose counters are 0.
        """
        if os.getpid() != self._owner:
            raise RuntimeError("a machine cannot be used in a process that was forked from the one that made it")
        with self._lock:
            if flows is not None:
                return self._place_counting(code, flows)
            use = self._used.get(code)
            if use is None:
                start = self._free.take(_rounded(len(code)))
                if start is None:
                    return None
                self._writable[start : start + len(code)] = code
                use = self._used[code] = _Use(start, 0)
            use.users += 1
            return Placed(code, self._address(use.start))

    def _place_counting(self, code: bytes, flows: BlockFlows) -> Placed | None:
        size = _rounded(8 * max(flows.counters, 1))
        counters, start = self._free_counters.take(size), self._free.take(_rounded(len(code)))
        if counters is None or start is None:
            if counters is not None:
                self._free_counters.give_back(counters, size)
            if start is not None:
                self._free.give_back(start, _rounded(len(code)))
            return None
        placed = Placed(code, self._address(start), Hva(self._memory.address + counters))
        assert placed.counters is not None
        ctypes.memset(placed.counters, 0, size)
        self._writable[start : start + len(code)] = flows.patched(code, placed.counters - placed.address)
        self._used[placed] = _Use(start, 1, counters, size)
        return placed

    def _address(self, start: int) -> Hva:
        return Hva(self._memory.address + COUNTERS_SIZE + start)

    def release(self, placed: Placed) -> None:
        """Take back one :meth:`place`. Its caller must not execute the code any more."""
        key = placed.code if placed.counters is None else placed
        with self._lock:
            use = self._used[key]
            use.users -= 1
            if use.users:
                return
            del self._used[key]
            self._free.give_back(use.start, _rounded(len(placed.code)))
            if use.counters is not None:
                self._free_counters.give_back(use.counters, use.counters_size)

    def close(self) -> None:
        """Unmap the arena now. Nothing may execute what is in it any more."""
        self._writable.close()
        self._memory.close()


def _rounded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class ArenaLease:
    """One machine's part of the process's arena."""

    def __init__(self, arena: CodeArena) -> None:
        self._arena: CodeArena | None = arena
        self._placed: dict[Placed, int] = {}

    def place(self, code: bytes, flows: BlockFlows | None = None) -> Placed | None:
        """See :meth:`CodeArena.place`."""
        assert self._arena is not None, "the lease has been given back"
        placed = self._arena.place(code, flows)
        if placed is not None:
            self._placed[placed] = self._placed.get(placed, 0) + 1
        return placed

    def release(self, placed: Placed) -> None:
        """See :meth:`CodeArena.release`."""
        assert self._arena is not None, "the lease has been given back"
        self._arena.release(placed)
        self._placed[placed] -= 1
        if not self._placed[placed]:
            del self._placed[placed]

    def close(self) -> None:
        """Give back all that was placed, and the arena itself if this was its last lease."""
        if self._arena is None:
            return
        for placed, count in self._placed.items():
            for _ in range(count):
                self._arena.release(placed)
        self._placed.clear()
        arena, self._arena = self._arena, None
        _PROCESS_ARENA.end_lease(arena)


class _ProcessArena:
    """The arena of this process, while it has leases."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arena: CodeArena | None = None
        self._leases = 0

    def lease(self) -> ArenaLease:
        with self._lock:
            if self._arena is None:
                self._arena = CodeArena()
            self._leases += 1
            return ArenaLease(self._arena)

    def end_lease(self, arena: CodeArena) -> None:
        with self._lock:
            if arena is not self._arena:
                return  # of the process that this one was forked from
            self._leases -= 1
            if not self._leases:
                self._arena = None
                arena.close()

    def forget_parent(self) -> None:
        """In a forked process: its machines have an arena of their own, and leave their parent's alone."""
        self._lock, self._arena, self._leases = threading.Lock(), None, 0


_PROCESS_ARENA = _ProcessArena()
os.register_at_fork(after_in_child=_PROCESS_ARENA.forget_parent)


def lease_arena() -> ArenaLease:
    """Return a lease of this process's arena, which is made if there is none. Raises OSError."""
    return _PROCESS_ARENA.lease()
