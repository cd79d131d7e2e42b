"""Finding the first instruction after which the states of two machines differ that should do the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.memory.contents import nonzero_pages
from dbt.vm.machine import Machine
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash

Pair = tuple[Machine, Machine]
#: A function that makes both machines again and runs them up to an icount.
At = Callable[[int], Pair]
_ZERO_PAGE = bytes(PAGE_SIZE)


def advance(machine: Machine, icount: int, step: int | None = None) -> Machine:
    """Run the machine up to an icount or to its end, in pieces of ``step`` instructions if that is given. Return it."""
    while machine.icount < icount:
        left = icount - machine.icount
        if machine.run(fuel=left if step is None else min(left, step)).reason is not StopReason.FUEL:
            break
    return machine


def same_registers(pair: Pair) -> bool:
    """Return True if both have retired the same number of instructions and all registers are equal, banked ones too."""
    first, second = pair
    return first.icount == second.icount and first.cpu.snapshot() == second.cpu.snapshot()


def same_state(pair: Pair) -> bool:
    """Return True if the guests of both cannot tell them apart (:func:`dbt.vm.state.state_hash`)."""
    first, second = pair
    return state_hash(first) == state_hash(second)


def changed_words(pair: Pair) -> Iterator[tuple[Gpa, int, int]]:
    """Yield GPA and both values of each word in which their RAM differs. Both must have RAM in the same places."""
    a, b = (dict(nonzero_pages(machine.ram)) for machine in pair)
    for page in sorted(a.keys() | b.keys()):
        one, other = a.get(page, _ZERO_PAGE), b.get(page, _ZERO_PAGE)
        if one == other:
            continue
        for offset in range(0, PAGE_SIZE, 4):
            x, y = (int.from_bytes(content[offset : offset + 4], "little") for content in (one, other))
            if x != y:
                yield Gpa(page + offset), x, y


def describe_first(insn: int, before: Machine, is_exact: bool) -> str:
    """Return the sentence that names the first different instruction, numbered from 1.

    ``before`` is a machine that has not executed it yet. ``is_exact`` is False if the difference is there only while
    regions are compiled with all optimizations: the instruction may then be an earlier one of the same region.
    """
    or_before = "" if is_exact else ", or one before it in its region"
    return f"instruction {insn:,} at {before.describe_pc(before.pc)}{or_before}"


def first_different(at: At, low: int, high: int, same: Callable[[Pair], bool] = same_state) -> int:
    """Return the number of the instruction that makes the difference, counted from 1. It is found by halving.

    After ``low`` instructions the machines must be the ``same``, and after ``high`` not.
    """
    while high - low > 1:
        middle = (low + high) // 2
        if same(at(middle)):
            low = middle
        else:
            high = middle
    return high
