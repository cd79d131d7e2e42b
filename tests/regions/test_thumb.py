"""A return to Thumb state from within a region: what the instruction wrote before is not done twice."""

from __future__ import annotations

import pytest

from tests.assembler import assemble
from tests.regions.machines import ENTRY, KINDS, SmallMachine


@pytest.mark.parametrize("branch", ["pop {r4, pc}", "ldr pc, [sp], #4", "blx r9", "ldm sp!, {r3, pc}"])
def test_an_instruction_that_enters_thumb_is_done_once(branch: str) -> None:
    source = f"movw r9, #0x8101 \n push {{r9}} \n push {{r9}} \n add r1, r1, #1 \n {branch} \n svc #0"
    machines = [SmallMachine(kind, assemble(source, ENTRY)) for kind in KINDS]
    for machine in machines:
        machine.advance(100)
    assert len({machine.digest() for machine in machines}) == 1, "\n".join(m.describe() for m in machines)
    for machine in machines:
        machine.close()
