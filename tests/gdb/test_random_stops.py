"""Random programs with random breakpoints and watchpoints: every tier stops at the same places, and nothing changes."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import pytest

from dbt.abi.addresses import Gva
from dbt.abi.exits import BreakpointHit, Budget, SupervisorCall, WatchpointHit
from dbt.engine.debug_points import Watchpoint
from tests.assembler import assemble
from tests.long import LONG
from tests.oracle.programs import DATA, DEVICE, ENTRY, ProgramWriter, SmallMachine, require_same_state

#: Regions are made by the last one, which takes half a minute for each program: ``make long``.
KINDS = ("reference", "threaded", "stitched", "warm", *(["eager"] if LONG else []))
CHANGES = 12


class DebuggedMachine(SmallMachine):
    """A machine with debug points. Where they stop it depends on the registers alone, so it is no tier's choice.

    It implements :class:`dbt.engine.debug_points.DebugPoints`.
    """

    breakpoints: Collection[Gva] = ()
    watchpoints: Collection[Watchpoint] = ()

    def __init__(self, kind: str, code: bytes) -> None:
        super().__init__(kind, code)
        self.stops: list[tuple[int, int, str]] = []
        self._passed = b""  # the registers at the last stop

    def use(self, breakpoints: Collection[Gva], watchpoints: Collection[Watchpoint]) -> None:
        self.breakpoints, self.watchpoints = breakpoints, watchpoints
        self.tier.use_debug_points(self)

    def _stops(self) -> bool:
        here = self.cpu.snapshot()
        return here != self._passed and Random(here).random() < 0.4

    def stops_at(self, pc: Gva) -> bool:
        assert pc in self.breakpoints or self.kind != "reference"
        return pc in self.breakpoints and self._stops()

    def stops_for(self, gva: Gva, size: int, write: bool) -> bool:
        assert any(watchpoint.touches(gva, size, write) for watchpoint in self.watchpoints)
        return self._stops()

    def advance(self, count: int) -> None:
        end = self.icount + count
        while self.icount < end and not self.ended:
            exit_, retired = self.tier.run(end - self.icount)
            self.icount += retired
            if isinstance(exit_, BreakpointHit | WatchpointHit):
                what = type(exit_).__name__ + (f" write={exit_.write}" if isinstance(exit_, WatchpointHit) else "")
                self.stops.append((self.icount, exit_.pc, what))
                self._passed = self.cpu.snapshot()
            elif not isinstance(exit_, Budget):
                self.exits.append((self.icount, exit_))
                self.ended = isinstance(exit_, SupervisorCall) and exit_.immediate == 0
                self.cpu.r[15] += 4
                self.icount += 1


def some_watchpoint(chance: Random, code: bytes) -> Watchpoint:
    low, high = chance.choice(
        ((DATA, DATA + 512), (DATA, DATA + 512), (ENTRY, ENTRY + len(code)), (DEVICE, DEVICE + 16))
    )
    loads, stores = chance.choice(((True, False), (False, True), (True, True)))
    return Watchpoint(Gva(chance.randrange(low, high)), chance.choice((1, 2, 4, 8, 30)), loads, stores)


@pytest.mark.parametrize("seed", range(12))
def test_every_tier_stops_at_the_same_places(seed: int) -> None:
    code, chance = assemble(ProgramWriter(seed).write(), ENTRY), Random(seed)
    machines = [DebuggedMachine(kind, code) for kind in KINDS]
    undisturbed = SmallMachine("threaded", code)
    for _ in range(CHANGES):
        breakpoints = {Gva(ENTRY + 4 * chance.randrange(len(code) // 4)) for _ in range(chance.randrange(12))}
        watchpoints = {some_watchpoint(chance, code) for _ in range(chance.randrange(4))}
        count = chance.choice((1, 20, 200, 1000))
        for machine in machines:
            machine.use(breakpoints, watchpoints)
            machine.advance(count)
        undisturbed.advance(count)
        require_same_state([undisturbed, *machines], f"after {undisturbed.icount} instructions")
        for machine in machines[1:]:
            assert machine.stops == machines[0].stops, machine.kind
    assert machines[0].stops
    for closed in (undisturbed, *machines):
        closed.close()
