"""Random programs in every tier, with runs cut anywhere: one history, whatever executes it."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from dbt.engine.region_tier import RegionTier
from tests.assembler import assemble
from tests.regions.machines import ENTRY, KINDS, WITHOUT, SmallMachine, SoonHotTier
from tests.regions.random_programs import ProgramWriter

PROGRAMS = 10
STEPS = 150  # comparisons in a program
PROGRAMS_WITHOUT = 1  # with each optimization left out
STEPS_WITHOUT = 80


def compare(seed: int, kinds: Iterable[str] = KINDS, end: int = STEPS) -> dict[str, int]:
    """Run one program in some tiers; how many regions each compiled. Fails at the first step that ends differently."""
    code = assemble(ProgramWriter(seed).write(), ENTRY)
    machines = [SmallMachine(kind, code) for kind in kinds]
    cuts = {machine.kind: Random(f"{seed}/{machine.kind}") for machine in machines}
    steps = Random(f"{seed}/steps")
    for step in range(end):
        count = steps.choice((1, 2, 3, 4, 5, 17, 60, 200))
        for machine in machines:
            left, random = count, cuts[machine.kind]
            while left:
                part = min(left, random.choice((1, 2, 3, 5, 50, 1000)))
                machine.advance(part)
                left -= part
            if isinstance(machine.tier, SoonHotTier) and step % 5 == 0:
                machine.tier.settle()
        if len({machine.digest() for machine in machines}) > 1:
            states = "\n".join(machine.describe() for machine in machines)
            pytest.fail(f"seed {seed}: after step {step} of {count} instructions\n{states}")
        if machines[0].ended:
            break
    compiled = {m.kind: m.tier.counts.compiled for m in machines if isinstance(m.tier, RegionTier)}
    for machine in machines:
        machine.close()
    return compiled


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_random_programs(seed: int) -> None:
    compiled = compare(seed)
    assert compiled["eager"] and compiled["sync"], "nothing was compiled"


@pytest.mark.parametrize("kind", WITHOUT)
def test_random_programs_without_an_optimization(kind: str) -> None:
    for seed in range(PROGRAMS_WITHOUT):
        number = 1000 * list(WITHOUT).index(kind) + seed
        assert compare(number, ("threaded", kind), STEPS_WITHOUT)[kind], "nothing was compiled"
