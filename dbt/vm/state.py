"""The state of a machine: everything that its guest can observe, and one hash of it.

Two machines in the same state that get the same input go on alike, whatever executes their code. So the states of
two tiers, of a run and its replay, or of a machine and what was restored from it, are compared by this hash.

Not part of it is what the machine was made with and what cannot change: the processor's model (its registers are),
the program's name and arguments, the content of the host's files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa
from dbt.board.clock import plain_insn_ns
from dbt.memory.contents import nonzero_pages

if TYPE_CHECKING:
    from dbt.memory.ram import Ram
    from dbt.vm.machine import Machine


#: The names of what :func:`observable_state` returns.
OBSERVABLE = frozenset(
    {"processor", "lines", "icount", "now", "insn_ns", "devices", "events", "input", "reset", "semihosting", "ram"}
)


def observable_state(machine: Machine) -> dict[str, object]:
    """Return all of the state but what RAM holds, as plain values by name.

    - ``processor``: the architectural state; ``lines``: PSR_I and PSR_F where the line of IRQ or FIQ is up.
    - ``icount`` and ``now``: the instructions retired and the virtual time in ticks, which differ by what was skipped
      while the guest waited. ``insn_ns`` is the time that a tick takes, in nanoseconds.
    - ``devices`` and ``events``: see :class:`dbt.board.board.BoardState`.
    - ``input``: how many bytes of the console's input the guest has got.
    - ``reset``: whether it has asked for a reset.
    - ``semihosting``: the last error number, and handle and position of each open file.
    - ``ram``: where there is RAM.
    """
    board = machine.board.save()
    errno, handles = machine.semihosting.save()
    return {
        "processor": machine.cpu.snapshot(),
        "lines": machine.cpu.native("interrupt_lines"),
        "icount": machine.icount,
        "now": machine.timeline.now,
        "insn_ns": plain_insn_ns(machine.timeline.insn_ns),
        "devices": board.devices,
        "events": [list(event) for event in board.events],
        "input": machine.board.console.arrived + machine.semihosting.received,
        "reset": machine.vcpu.reset_requested,
        "semihosting": [errno, [list(handle) for handle in handles]],
        "ram": str(machine.ram.layout),
    }


def state_hash(machine: Machine) -> str:
    """Return the SHA-256 of the state in hexadecimal. RAM counts by its content, however the host has mapped it."""
    return hash_of(observable_state(machine), machine.ram)


def hash_of(values: object, ram: Ram) -> str:
    """Return the SHA-256, in hexadecimal, of plain values and of what RAM holds: for what has no machine around it."""
    return hash_of_pages(values, nonzero_pages(ram))


def hash_of_pages(values: object, pages: Iterable[tuple[Gpa, bytes]]) -> str:
    """Return the same of GPA and content of the pages of RAM that are not zero, in the order of their addresses."""
    import hashlib  # which takes some milliseconds, and few machines are hashed

    found = hashlib.sha256(encode(values))
    for gpa, page in pages:
        found.update(gpa.to_bytes(8, "little"))
        found.update(page)
    return found.hexdigest()


def hash_ram(ram: Ram) -> str:
    """Return the SHA-256, in hexadecimal, of what RAM holds alone."""
    return hash_of((), ram)


def encode(value: object) -> bytes:
    """Return bytes that equal plain values have in common, in whatever order their mappings were filled."""
    return repr(_sorted(value)).encode()


#: Returns True if two plain values are equal, types included.
Same = Callable[[object, object], bool]
_CONTAINERS = frozenset({list, tuple, dict})


def are_same(mine: object, theirs: object) -> bool:
    """Return True if two plain values have one encoding (:func:`encode`): they are equal, types included."""
    if isinstance(mine, list | tuple):
        if not isinstance(theirs, list | tuple) or len(mine) != len(theirs):
            return False
        kinds = list(map(type, mine))
        if _CONTAINERS.isdisjoint(kinds):
            return kinds == list(map(type, theirs)) and list(mine) == list(theirs)
        return all(are_same(one, other) for one, other in zip(mine, theirs, strict=True))
    if isinstance(mine, dict):
        if not isinstance(theirs, dict) or len(mine) != len(theirs):
            return False
        pairs = zip(sorted(mine), sorted(theirs), strict=True)
        return all(type(a) is type(b) and a == b and are_same(mine[a], theirs[b]) for a, b in pairs)
    return type(mine) is type(theirs) and mine == theirs


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return sorted((key, _sorted(held)) for key, held in value.items())
    if isinstance(value, list | tuple):
        return [_sorted(one) for one in value]
    return value
