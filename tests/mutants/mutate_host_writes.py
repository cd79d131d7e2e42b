"""Would the tests of writes by the hypervisor notice what the region tier does wrong about them?"""

from __future__ import annotations

import pytest

from dbt.engine.region_cache import RegionCache
from tests.mutants.mutant import Mutant, require_noticed
from tests.regions.host_writes import WRITES, outdated_regions_are_refused, writes_are_seen

MUTANTS = [
    Mutant(RegionCache, "host_write", "self.write(gpa, size)", "pass"),
    Mutant(RegionCache, "host_write", 'self.drop_all("the hypervisor wrote to memory")', "pass"),
    Mutant(RegionCache, "write", "gpa & ~3, gpa + size", "gpa & ~3, (gpa & ~3) + 4"),
    Mutant(RegionCache, "changed_word", "ram[gpa : gpa + len(data)] != data", "False"),
    Mutant(RegionCache, "changed_word", "in region.runs:", "in region.runs[:1]:"),
    Mutant(RegionCache, "drop_all", "self._drop(entry, why)", "pass"),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    require_noticed(
        mutant, lambda: not all(writes_are_seen(name) and outdated_regions_are_refused(name) for name in WRITES)
    )
