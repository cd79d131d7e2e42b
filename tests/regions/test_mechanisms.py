"""What regions do in ways of their own, in every tier."""

from __future__ import annotations

import pytest

from dbt.engine.region_tier import RegionTier
from tests.oracle.programs import CUTS, FIRST, KINDS, MECHANISM_PROGRAMS, flag_program, run_side_by_side


def check(source: str, kinds: tuple[str, ...]) -> None:
    machines = run_side_by_side(source, kinds, CUTS)
    assert machines[0].ended
    for machine in machines:
        if isinstance(machine.tier, RegionTier):
            assert machine.tier.regions.counts.compiled or machine.kind == "async"
        machine.close()


@pytest.mark.parametrize("name", MECHANISM_PROGRAMS)
def test_a_mechanism(name: str) -> None:
    check(MECHANISM_PROGRAMS[name], tuple(KINDS))


@pytest.mark.parametrize("first", FIRST)
def test_flags(first: str) -> None:
    check(flag_program(FIRST[first]), ("reference", "threaded", "stitched", "sync"))
