"""What stitching takes of the host's memory, measured as the host counts it."""

from __future__ import annotations

import pytest

from dbt.vm.options import TierName
from dbt.vm.state import state_hash
from tests.engine.mapped_memory import mapped_kb
from tests.engine.stitched_memory import MOST_BYTES, growth, program


def test_what_stitched_instructions_take() -> None:
    insns, found = growth("program")
    assert insns > 40_000
    assert all(10 < size <= MOST_BYTES for size in found.values()), found


@pytest.mark.parametrize("tier", ["stitched", "auto"])
def test_a_machine_that_rests_has_no_stitched_code(tier: TierName) -> None:
    """However often it is stitched anew, the host has the memory back each time."""
    with program(tier) as expected:
        end = expected.run()
        state = state_hash(expected)
    sizes = []
    with program(tier) as machine:
        while machine.run(fuel=end.icount * 9 // 20).exit_code is None:
            sizes.append(mapped_kb("dbt-stitched", "Rss"))
            machine.tier.rest(deep=True)
            assert mapped_kb("dbt-stitched", "Rss") == 0
        assert (machine.icount, state_hash(machine)) == (end.icount, state)
    assert len(sizes) == 2 and min(sizes) > 1000
