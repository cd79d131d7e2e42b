"""Code that is compiled while the MMU is off, and then comes at another virtual address, within one slice; and regions
that were made while the MMU was as it no longer is.
"""

from __future__ import annotations

import pytest

from dbt.abi.addresses import Gpa
from dbt.abi.layout import SideExit
from dbt.engine.region_counts import RegionActivity
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
# The MMU is on, then off while the function becomes hot, and then on while the function does not return.
_HOT_WITH_MMU_OFF = f"""
    ldr r8, there ; mrc p15, #0, r6, c1, c0, #0 ; orr r7, r6, #{SCTLR_M}
    mcr p15, #0, r7, c1, c0, #0 ; nop
    mcr p15, #0, r6, c1, c0, #0 ; mov r10, #3000 ; blx r8
    mcr p15, #0, r7, c1, c0, #0 ; mvn r10, #0 ; blx r8
there: .word {CODE}
"""
# With the MMU on for ever, but for a few instructions now and then, which are most often where a slice of 250 begins.
_MMU_GOES_OFF = f"""
    ldr r8, there ; mrc p15, #0, r6, c1, c0, #0 ; orr r7, r6, #{SCTLR_M}
outer: mcr p15, #0, r7, c1, c0, #0
    mov r10, #30 ; blx r8
    mcr p15, #0, r6, c1, c0, #0
    mov r1, #0 ; add r1, r1, #1 ; add r1, r1, #2 ; b outer
there: .word {CODE}
"""
_FUNCTION = "loop: add r0, r0, pc ; eor r0, r0, r0, ror #7 ; subs r10, r10, #1 ; bne loop ; bx lr"


def machine(kind: str, main: str = _MAIN) -> SmallMachine:
    made = SmallMachine(kind, assemble(main, ENTRY))
    made.memory.write_ram(Gpa(CODE), assemble(_FUNCTION, CODE))
    words = {L1: L2 | 1, L1 + 4: CODE_L2 | 1, CODE_L2: CODE | ANY}
    words |= {L2 + 4 * page: page << 12 | ANY for page in range(0x20)}
    for address, word in words.items():
        made.memory.write_ram(Gpa(address), word.to_bytes(4, "little"))
    made.cpu["ttbr0"], made.cpu["dacr"] = L1, 1
    return made


def regions_of(made: SmallMachine) -> RegionActivity:
    assert made.tier.regions is not None
    return made.tier.regions


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


def test_code_that_was_compiled_with_the_mmu_off_is_compiled_again_with_the_mmu_on() -> None:
    """A region that always leaves at its entry gives up its place, though the MMU is on whenever a slice begins."""
    made, expected = (machine(kind, _HOT_WITH_MMU_OFF) for kind in ("sync", "threaded"))
    made.advance(4)
    assert made.cpu["sctlr"] & SCTLR_M
    made.advance(20_000)  # in one slice
    assert regions_of(made).counts.compiled
    refusals = []
    for _ in range(20):
        made.advance(100_000)
        refusals.append(regions_of(made).side_exits[SideExit.MODE])
    inside = made.tier.retired["region"]
    made.advance(100_000)
    assert refusals[0] > 1000 and len(set(refusals[-10:])) == 1
    assert made.tier.retired["region"] - inside > 95_000
    expected.advance(made.icount)
    require_same_state([made, expected], "after all slices")
    for one in (made, expected):
        one.close()


def test_regions_stay_where_the_mmu_is_off_for_a_moment() -> None:
    made = machine("sync", _MMU_GOES_OFF)
    made.advance(5000)
    compiled, dropped = regions_of(made).counts.compiled, regions_of(made).counts.dropped
    assert compiled
    off = 0
    for number in range(2000):
        made.advance(97 + number % 5)
        off += not made.cpu["sctlr"] & SCTLR_M
    assert off > 20
    assert (regions_of(made).counts.compiled, regions_of(made).counts.dropped) == (compiled, dropped)
    made.close()
