"""Code that is compiled while the MMU is off, and then comes at another virtual address, within one slice."""

from __future__ import annotations

import pytest

from dbt.abi.addresses import Gpa
from isa.arm.state import SCTLR_M
from tests.assembler import assemble
from tests.hypervisor.remapping import ANY, CODE, CODE_L2, L1, L2, VIRTUAL
from tests.oracle.programs import ENTRY, SmallMachine, require_same_state

# The function is called where it is in RAM, and then, with the MMU on, where it is mapped. What it adds depends on R15.
_MAIN = f"""
    mov r11, #200 ; ldr r8, there ; ldr r9, mapped
    mrc p15, #0, r6, c1, c0, #0 ; orr r7, r6, #{SCTLR_M}
outer: mov r10, #30 ; blx r8
    mcr p15, #0, r7, c1, c0, #0
    mov r10, #30 ; blx r9
    mcr p15, #0, r6, c1, c0, #0
    subs r11, r11, #1 ; bne outer ; svc #0
there: .word {CODE}
mapped: .word {VIRTUAL}
"""
_FUNCTION = "loop: add r0, r0, pc ; eor r0, r0, r0, ror #7 ; subs r10, r10, #1 ; bne loop ; bx lr"


def machine(kind: str) -> SmallMachine:
    made = SmallMachine(kind, assemble(_MAIN, ENTRY))
    made.memory.write_ram(Gpa(CODE), assemble(_FUNCTION, CODE))
    words = {L1: L2 | 1, L1 + 4: CODE_L2 | 1, CODE_L2: CODE | ANY}
    words |= {L2 + 4 * page: page << 12 | ANY for page in range(0x20)}
    for address, word in words.items():
        made.memory.write_ram(Gpa(address), word.to_bytes(4, "little"))
    made.cpu["ttbr0"], made.cpu["dacr"] = L1, 1
    return made


@pytest.mark.parametrize("kind", ["stitched", "warm", "eager", "sync"])
@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 1000])
def test_a_region_knows_where_it_is_when_the_mmu_is_not_as_assumed(kind: str, cut: int) -> None:
    machines = [machine(name) for name in ("threaded", kind)]
    for made in machines:
        made.advance(20_000)  # in one slice
    require_same_state(machines, "after a slice")
    for number in range(300):
        for made in machines:
            made.advance(cut)
        require_same_state(machines, f"after {number} cuts of {cut}")
        if machines[0].ended:
            break
    for made in machines:
        made.close()
