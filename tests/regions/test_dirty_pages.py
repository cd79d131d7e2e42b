"""Random programs in every tier: each page that differs is dirty, and a run that is rolled back is repeated exactly."""

from __future__ import annotations

from random import Random

import pytest

from dbt.abi.layout import PAGE_SIZE
from isa.arm.state import Mode
from tests.assembler import assemble
from tests.hypervisor.remapping import flush, machine, remap
from tests.long import LONG
from tests.oracle.programs import ENTRY, KINDS, RAM_SIZE, ProgramWriter, SmallMachine


class Point:
    """A point of a small machine's run: all of its RAM, and what returns it to the point."""

    def __init__(self, machine: SmallMachine) -> None:
        self.machine = machine
        self.ram = machine.memory.ram.bytes.tobytes()
        self.digest = machine.digest()
        self._registers = machine.cpu.keep()
        self._rest = machine.icount, machine.ended, machine.exits[:], machine.device.accesses[:]
        self.epoch = machine.memory.begin_epoch(keeps_contents=True)
        assert machine.digest() == self.digest

    def check_dirty_pages(self) -> None:
        now = self.machine.memory.ram.bytes
        starts = range(0, RAM_SIZE, PAGE_SIZE)
        differ = {at >> 12 for at in starts if now[at : at + PAGE_SIZE] != self.ram[at : at + PAGE_SIZE]}
        assert differ <= set(self.epoch.dirty_pages())

    def roll_back(self) -> None:
        made = self.machine
        made.memory.roll_back(self.epoch)
        self._registers()
        made.icount, made.ended, exits, accesses = self._rest
        made.exits, made.device.accesses = exits[:], accesses[:]
        assert made.digest() == self.digest and not self.epoch.dirty_pages()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6 if LONG else 3))
def test_random_programs(kind: str, seed: int) -> None:
    """Two points are open at a time. The run goes on from either, and is the same whenever it comes by again."""
    random = Random(f"{seed}/dirty")
    made = SmallMachine(kind, assemble(ProgramWriter(f"dirty {seed}").write(), ENTRY))
    older: Point | None = None
    for _ in range(25):
        point = Point(made)
        count = random.choice((1, 5, 60, 400, 3000))
        made.advance(count)
        point.check_dirty_pages()
        after = made.digest()
        point.roll_back()
        made.advance(count // 2)
        made.advance(count - count // 2)
        assert made.digest() == after
        point.check_dirty_pages()
        if older is not None:
            older.check_dirty_pages()
            if random.random() < 0.3:
                older.roll_back()
                point.check_dirty_pages()
                if random.random() < 0.5:
                    point.roll_back()
                    made.advance(count)
                    assert made.digest() == after
            older.epoch.close()
        older = point
        if made.ended:
            break
    made.close()


@pytest.mark.parametrize("kind", ["reference", "threaded", "stitched", "warm", "sync"])
@pytest.mark.parametrize("seed", range(4 if LONG else 2))
def test_pages_that_are_mapped_again(kind: str, seed: int) -> None:
    """Between a point and the return to it, the page tables are changed, the TLB is flushed, and the mode changes."""
    made, random = machine(kind, seed), Random(f"{seed}/dirty")
    made.advance(1000)
    for step in range(12):
        point = Point(made)
        changes, count = [random.randrange(4) for _ in range(3)], random.choice((20, 150, 2500))
        number = random.random()
        ends = []
        for _ in range(2):
            for change in changes:
                if change == 0:
                    remap(made, Random(number))
                    flush(made)
                elif change == 1:
                    made.cpu.switch_mode(Mode.USER if made.cpu.mode != Mode.USER else Mode.SUPERVISOR)
                made.advance(count)
                point.check_dirty_pages()
            ends.append(made.digest())
            point.roll_back()
        assert ends[0] == ends[1], f"step {step}"
        made.advance(count)
        point.epoch.close()
        if made.ended:
            break
    made.close()
