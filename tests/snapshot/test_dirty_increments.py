"""An increment of the pages that the dirty log has is as good as one that compares all of RAM."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine, read_snapshot, write_snapshot
from dbt.vm.machine import JitMode, TierName
from dbt.vm.state import state_hash
from tests.vm.programs import MODES

MINIOS = Path(__file__).resolve().parents[2] / "guests" / "images" / "minios-armv5te-O2.elf"


@pytest.mark.parametrize(("tier", "jit"), [mode for mode in MODES if mode[0] != "reference"])
def test_a_chain_of_increments(tmp_path: Path, tier: TierName, jit: JitMode) -> None:
    """Between two of them the machine is rolled back, too."""
    machine = Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole())
    machine.load(str(MINIOS))
    machine.run(fuel=300_000)
    epoch = machine.memory.begin_epoch()
    parent: Path | None = None
    checkpoint = machine.checkpoint()
    for number in range(6):
        path = tmp_path / str(number)
        with machine.save() as state:
            write_snapshot(state, path, parent, None if parent is None else epoch.dirty_pages())
        epoch.renew()
        with read_snapshot(path) as found, Machine.restore(found, console=CaptureConsole()) as restored:
            assert state_hash(restored) == state_hash(machine)
        parent = path
        if number == 2:
            machine.rollback(checkpoint)
        machine.run(fuel=70_000)
    machine.close()
