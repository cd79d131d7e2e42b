"""A return to Thumb state from within a region: what the instruction wrote before is not done twice."""

from __future__ import annotations

import pytest

from tests.oracle.programs import KINDS, run_side_by_side


@pytest.mark.parametrize("branch", ["pop {r4, pc}", "ldr pc, [sp], #4", "blx r9", "ldm sp!, {r3, pc}"])
def test_an_instruction_that_enters_thumb_is_done_once(branch: str) -> None:
    source = f"movw r9, #0x8101 \n push {{r9}} \n push {{r9}} \n add r1, r1, #1 \n {branch} \n svc #0"
    for machine in run_side_by_side(source, KINDS, [100]):
        machine.close()
