"""Comparing two recorded runs: where their registers were last equal, and which instruction made the difference.

A recording has a checksum of the registers at every 2^22nd instruction. Between the last that agree and the first that
does not, both runs are made again from what the recordings say, and halved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dbt.machine.machine import Machine
from dbt.machine.result import StopReason
from dbt.trace.model import Trace

#: Makes a machine as a recording says, loaded and not yet run.
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
    memory: tuple[tuple[int, int, int], ...]


def common_checkpoints(first: Trace, second: Trace) -> tuple[int, int | None, int]:
    """The icount of the last checkpoint up to which all agree, that of the first that does not, and how many agree."""
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

    def at(icount: int) -> tuple[Machine, Machine]:
        first, second = (_advance(start(trace), icount) for trace in traces)
        return first, second

    if _same(*at(differs)):
        return None
    low, high, same = agreed, differs, _same
    if not _same(*at(low)):
        if _same(*at(0)):
            low, high = 0, low  # memory differed before the registers did
        else:
            same = _same_registers  # two programs: their memory was never the same
    while high - low > 1:
        middle = (low + high) // 2
        if same(*at(middle)):
            low = middle
        else:
            high = middle
    after = at(high)
    return Difference(high, at(low)[0], after, tuple(_changed(*after)))


def _advance(machine: Machine, icount: int) -> Machine:
    while machine.icount < icount:
        if machine.run(fuel=icount - machine.icount).reason is not StopReason.FUEL:
            break
    return machine


def _same_registers(first: Machine, second: Machine) -> bool:
    return first.icount == second.icount and first.cpu.snapshot() == second.cpu.snapshot()


def _same(first: Machine, second: Machine) -> bool:
    return _same_registers(first, second) and bool(first.ram.bytes == second.ram.bytes)


def _changed(first: Machine, second: Machine) -> Iterator[tuple[int, int, int]]:
    a, b = first.ram.bytes, second.ram.bytes
    for page in range(0, min(len(a), len(b)), 4096):
        if a[page : page + 4096] == b[page : page + 4096]:
            continue
        for gpa in range(page, page + 4096, 4):
            x, y = (int.from_bytes(ram[gpa : gpa + 4], "little") for ram in (a, b))
            if x != y:
                yield gpa, x, y
