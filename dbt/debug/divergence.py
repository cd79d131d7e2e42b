"""Where two machines that are to do the same part: the first instruction after which their states differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dbt.vm.machine import Machine
from dbt.vm.result import StopReason

Pair = tuple[Machine, Machine]
#: Makes both again and runs them up to an icount.
At = Callable[[int], Pair]
_BLOCK = 4096


def advance(machine: Machine, icount: int, step: int | None = None) -> Machine:
    """Run it up to an icount, or to its end, in pieces of ``step`` instructions if that is given."""
    while machine.icount < icount:
        left = icount - machine.icount
        if machine.run(fuel=left if step is None else min(left, step)).reason is not StopReason.FUEL:
            break
    return machine


def same_registers(pair: Pair) -> bool:
    """Whether they have retired as many instructions, and all registers are equal, banked ones too."""
    first, second = pair
    return first.icount == second.icount and first.cpu.snapshot() == second.cpu.snapshot()


def same_state(pair: Pair) -> bool:
    """:func:`same_registers`, and whether all RAM is equal."""
    return same_registers(pair) and bool(pair[0].ram.bytes == pair[1].ram.bytes)


def changed_words(pair: Pair) -> Iterator[tuple[int, int, int]]:
    """GPA and the word in each, of those in which their RAM differs."""
    a, b = (machine.ram.bytes for machine in pair)
    for block in range(0, min(len(a), len(b)), _BLOCK):
        if a[block : block + _BLOCK] == b[block : block + _BLOCK]:
            continue
        for gpa in range(block, block + _BLOCK, 4):
            x, y = (int.from_bytes(ram[gpa : gpa + 4], "little") for ram in (a, b))
            if x != y:
                yield gpa, x, y


def first_different(at: At, low: int, high: int, same: Callable[[Pair], bool] = same_state) -> int:
    """By halving: the instruction, numbered from 1, that makes the difference between ``low``, after which they are the
    ``same``, and ``high``, after which they are not.
    """
    while high - low > 1:
        middle = (low + high) // 2
        if same(at(middle)):
            low = middle
        else:
            high = middle
    return high
