"""The arena of native code: one memfd mapped twice, to write and to execute, never both at one address.

A process has one arena, in which all its machines place their regions (:func:`lease_arena`). Machines that have the
same region share one copy of its code. The arena is unmapped when the last machine gives its lease back.
"""

from __future__ import annotations

import bisect
import mmap
import os
import threading

from dbt.abi.addresses import Hva
from dbt.abi.hostmemory import ExecutableMapping

#: Bytes of address space for the code of all machines of a process. Pages that hold no code cost no memory.
ARENA_SIZE = 256 << 20
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


class CodeArena:
    """``size`` bytes for code. Threads may use it at once. Raises OSError if the host forbids it."""

    def __init__(self, size: int = ARENA_SIZE) -> None:
        handle = os.memfd_create("dbt-arena")
        try:
            os.ftruncate(handle, size)
            self._writable = mmap.mmap(handle, size)
            self._executable = ExecutableMapping(handle, size)
        finally:
            os.close(handle)
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._free = FreeSpace(size)
        self._placed: dict[bytes, list[int]] = {}  # by code: where it is, and how often it was placed

    def place(self, code: bytes) -> Hva | None:
        """Return the address of a copy of ``code``; None if there is no room. RuntimeError in a forked process."""
        if os.getpid() != self._owner:
            raise RuntimeError("a machine cannot be used in a process that was forked from the one that made it")
        with self._lock:
            known = self._placed.get(code)
            if known is None:
                start = self._free.take(_rounded(len(code)))
                if start is None:
                    return None
                self._writable[start : start + len(code)] = code
                known = self._placed[code] = [start, 0]
            known[1] += 1
            return Hva(self._executable.address + known[0])

    def release(self, code: bytes) -> None:
        """Take back one :meth:`place`. Its caller must not execute the code any more."""
        with self._lock:
            known = self._placed[code]
            known[1] -= 1
            if not known[1]:
                del self._placed[code]
                self._free.give_back(known[0], _rounded(len(code)))

    def close(self) -> None:
        """Unmap the arena now. Nothing may execute what is in it any more."""
        self._writable.close()
        self._executable.close()


def _rounded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class ArenaLease:
    """One machine's part of the process's arena."""

    def __init__(self, arena: CodeArena) -> None:
        self._arena: CodeArena | None = arena
        self._placed: dict[bytes, int] = {}

    def place(self, code: bytes) -> Hva | None:
        """See :meth:`CodeArena.place`."""
        assert self._arena is not None, "the lease has been given back"
        address = self._arena.place(code)
        if address is not None:
            self._placed[code] = self._placed.get(code, 0) + 1
        return address

    def release(self, code: bytes) -> None:
        """See :meth:`CodeArena.release`."""
        assert self._arena is not None, "the lease has been given back"
        self._arena.release(code)
        self._placed[code] -= 1
        if not self._placed[code]:
            del self._placed[code]

    def close(self) -> None:
        """Give back all that was placed, and the arena itself if this was its last lease."""
        if self._arena is None:
            return
        for code, count in self._placed.items():
            for _ in range(count):
                self._arena.release(code)
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
