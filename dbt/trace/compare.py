"""Comparing two recorded runs: the last place where their registers were equal, and the instruction that makes the
difference.

A trace has a checksum of the registers at every 2^22nd instruction and at its end. Both runs are repeated between the
last checksum that agrees and the first that does not, and the distance is halved until the instruction is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dbt.abi.addresses import Gpa
from dbt.debug.divergence import Pair, advance, changed_words, first_different, same_registers, same_state
from dbt.trace.model import Trace
from dbt.vm.machine import Machine

#: A function that makes the machine of a trace, loaded and not yet run.
Start = Callable[[Trace], Machine]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first instruction after which the runs differ, numbered from 1, with the machines before and after it.

    They differ in registers or RAM; if their RAM differed from the start, in registers.

    ``before`` is one of them: they agree. ``memory``: GPA and the word in each run, of those that differ.
    """

    insn: int
    before: Machine
    after: tuple[Machine, Machine]
    memory: tuple[tuple[Gpa, int, int], ...]


def common_checkpoints(first: Trace, second: Trace) -> tuple[int, int | None, int]:
    """Return the icount of the last checkpoint up to which all agree, that of the first that differs (None if none
    does), and the number that agree.
    """
    others = dict(second.checkpoints)
    agreed = count = 0
    for icount, registers in first.checkpoints:
        if icount not in others:
            continue
        if others[icount] != registers:
            return agreed, icount, count
        agreed, count = icount, count + 1
    return agreed, None, count


def first_difference(traces: tuple[Trace, Trace], start: Start, agreed: int, differs: int) -> Difference | None:
    """By running both again; None if they do not differ when that is done, up to ``differs`` instructions."""

    def at(icount: int) -> Pair:
        first, second = (advance(start(trace), icount) for trace in traces)
        return first, second

    if same_state(at(differs)):
        return None
    low, high, same = agreed, differs, same_state
    if not same_state(at(low)):
        if same_state(at(0)):
            low, high = 0, low  # memory differed before the registers did
        else:
            same = same_registers  # two programs: their memory was never the same
    insn = first_different(at, low, high, same)
    after = at(insn)
    return Difference(insn, at(insn - 1)[0], after, tuple(changed_words(after)))
