"""Would the tests of writes by the hypervisor notice what the region tier does wrong about them?"""

from __future__ import annotations

import pytest

from dbt.engine.region_cache import RegionCache
from dbt.engine.region_tier import RegionTier
from tests.mutants.mutant import Mutant, require_noticed
from tests.regions.host_writes import WRITES, outdated_regions_are_refused, writes_are_seen

MUTANTS = [
    Mutant(RegionTier, "host_writes", "self.cache.write(gpa, size)", "pass"),
    Mutant(RegionCache, "write", "if page in written", "if page == written[0]"),
    Mutant(RegionCache, "write", "else written:", "else written[:1]:"),
    Mutant(RegionCache, "write", "range(start, end, 4)", "range(start, start + 4, 4)"),
    Mutant(RegionCache, "changed_word", "ram[gpa : gpa + len(data)] != data", "False"),
    Mutant(RegionCache, "changed_word", "in region.runs:", "in region.runs[:1]:"),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    require_noticed(
        mutant, lambda: not all(writes_are_seen(name) and outdated_regions_are_refused(name) for name in WRITES)
    )
