"""What regions do in ways of their own, in every tier."""

from __future__ import annotations

import pytest

from dbt.engine.region_tier import RegionTier
from tests.assembler import assemble
from tests.regions.flag_programs import FIRST, flag_program
from tests.regions.machines import ENTRY, KINDS, SmallMachine
from tests.regions.mechanism_programs import MECHANISM_PROGRAMS

#: Runs are cut so: short, as a slice may end anywhere, and long, as the compiled code would run.
CUTS = (1, 5, 2, 40, 3, 7, 200, 11, 13, 100_000, 1_000_000)


def check(source: str, kinds: tuple[str, ...]) -> None:
    machines = [SmallMachine(kind, assemble(source, ENTRY)) for kind in kinds]
    for count in CUTS:
        for machine in machines:
            machine.advance(count)
        assert len({machine.digest() for machine in machines}) == 1, "\n".join(m.describe() for m in machines)
    assert machines[0].ended
    for machine in machines:
        if isinstance(machine.tier, RegionTier):
            assert machine.tier.counts.compiled or machine.kind == "async"
        machine.close()


@pytest.mark.parametrize("name", MECHANISM_PROGRAMS)
def test_a_mechanism(name: str) -> None:
    check(MECHANISM_PROGRAMS[name], tuple(KINDS))


@pytest.mark.parametrize("first", FIRST)
def test_flags(first: str) -> None:
    check(flag_program(FIRST[first]), ("reference", "threaded", "sync"))
