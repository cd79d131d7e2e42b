"""A tier that has given back what native code keeps goes on as if it had not."""

from __future__ import annotations

from random import Random

import pytest

from dbt.host.console import CaptureConsole
from dbt.linux.console import ProgramConsole
from dbt.linux.protocol import Request
from dbt.linux.template import LEAST_MEMORY, Hardware, read_template, shares
from dbt.vm.machine import Machine, TierName
from dbt.vm.state import state_hash

_HARDWARE = Hardware(LEAST_MEMORY)
_SLICES = 300


def run(tier: TierName, rests: Random | None) -> tuple[str, int]:
    """Let a Linux guest work for a while, and return its state and how many instructions that took."""
    console = ProgramConsole(CaptureConsole())
    with (
        read_template(_HARDWARE, print) as state,
        Machine.restore(state, tier=tier, jit="off", shares=shares({}), console=console) as machine,
    ):
        request = Request()
        for number in range(40):
            request.make_directory(f"/many/{number}")
            request.write_file(f"/many/{number}/file", bytes(5000))
        request.program("/nothing", ["nothing"], {})
        console.start(request)
        for _ in range(_SLICES):
            result = machine.run(fuel=30_000)
            if result.exit_code is not None:
                break
            if rests is not None:
                machine.tier.rest(deep=rests.random() < 0.5)
        assert console.failure is not None
        return state_hash(machine), machine.icount


@pytest.mark.parametrize("tier", ["threaded", "stitched", "auto"])
def test_rest_changes_nothing(tier: TierName) -> None:
    assert run(tier, Random(3)) == run(tier, None)
