"""Where regions look whether their budget lasts, on graphs of every form."""

from __future__ import annotations

from hypothesis import given

from dbt.backend.budget import find_checks
from dbt.frontend.forming import Place, Region
from tests.regions.graphs import regions


@given(regions())
def test_what_follows_on_a_check_is_the_longest_way_to_the_next(region: Region) -> None:
    checks, reserve = find_checks(region)
    assert set(region.entries.values()) <= checks

    def longest(place: Place, on_the_way: tuple[Place, ...]) -> int:
        """Instructions from the end of a block to the next check; a cycle without one would not end."""
        assert place not in on_the_way
        ways = [to for to in region.blocks[place].successors() if to in region.blocks and to not in checks]
        return max((len(region.blocks[to].insns) + longest(to, (*on_the_way, place)) for to in ways), default=0)

    assert reserve == max(longest(place, ()) for place in checks)
