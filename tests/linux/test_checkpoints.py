"""A booting Linux is rolled back: its state is what it was, and it boots on as it did."""

from __future__ import annotations

from random import Random

import pytest

from dbt.host.console import CaptureConsole
from dbt.memory.contents import nonzero_pages
from dbt.vm.state import state_hash
from tests.linux.booting import NEEDS_LINUX, boot

pytestmark = NEEDS_LINUX


@pytest.mark.parametrize("mode", ["threaded", "stitched", "auto-async"])
def test_points_of_a_boot(mode: str) -> None:
    machine, random = boot(mode, CaptureConsole(), "versatile-pb.dtb"), Random(mode)
    for icount in sorted(random.sample(range(1_000_000, 400_000_000), 10)):
        machine.run(fuel=icount - machine.icount)
        state, before = state_hash(machine), dict(nonzero_pages(machine.ram))
        with machine.checkpoint() as checkpoint:
            count = random.choice((1_000, 30_000, 500_000, 3_000_000))
            machine.run(fuel=count)
            end, now = state_hash(machine), dict(nonzero_pages(machine.ram))
            differ = {gpa >> 12 for gpa in now.keys() | before.keys() if now.get(gpa) != before.get(gpa)}
            assert differ <= set(checkpoint.dirty_pages())
            for parts in (2, 7):
                machine.rollback(checkpoint)
                assert state_hash(machine) == state
                for part in range(parts):
                    machine.run(fuel=count * (part + 1) // parts - count * part // parts)
                assert state_hash(machine) == end
    machine.close()
