"""Code pages that are given up because their words have become data, and what is executed there afterwards."""

from __future__ import annotations

import pytest

from dbt.abi.addresses import Gpa
from dbt.engine.region_tier import RegionTier
from dbt.engine.threaded import ThreadedTier
from tests.assembler import assemble
from tests.oracle.programs import ENTRY, SmallMachine, require_same_state

PAGE, ROUNDS = 0x10000, 200
# Each round writes a routine into a page, calls it, and then stores 64 words of data beside it. The routine adds
# the number of the round, so code of an earlier round would show.
PROGRAM = f"""
    ldr r8, page ; mov r11, #{ROUNDS}
main: ldr r1, add ; orr r1, r1, r11 ; and r2, r11, #7 ; add r9, r8, r2, lsl #4 ; ldr r2, return
    tst r11, r12 ; bne data ; str r1, [r9] ; str r2, [r9, #4] ; blx r9
data: mov r3, #64 ; add r4, r8, #0x800
store: str r3, [r4], #4 ; subs r3, r3, #1 ; bne store
    subs r11, r11, #1 ; bne main ; svc #0
page: .word {PAGE}
add: add r0, r0, #0
return: bx lr
"""


def run(mask: int, kinds: tuple[str, ...]) -> list[SmallMachine]:
    """Run the program side by side. The routine is written and called in rounds whose number has no bit of the mask."""
    machines = [SmallMachine(kind, assemble(PROGRAM, ENTRY)) for kind in kinds]
    for machine in machines:
        machine.cpu.r[12] = mask
    while not machines[0].ended:
        for machine in machines:
            machine.advance(997)
        require_same_state(machines)
    return machines


def given_up(machine: SmallMachine) -> int:
    assert isinstance(machine.tier, RegionTier)
    return machine.tier.regions.counts.pages_given_up


@pytest.mark.parametrize("mask", [0, 3, 0x3F])
def test_code_that_comes_back_to_the_page_is_executed_as_it_is_then(mask: int) -> None:
    machines = run(mask, ("reference", "threaded", "sync", "eager", "stitched", "warm"))
    assert machines[0].cpu.r[0] == sum(number for number in range(1, ROUNDS + 1) if not number & mask)
    assert given_up(machines[2]) > 0
    for machine in machines:
        machine.close()


def test_a_page_that_mixes_code_and_data_is_given_up_ever_more_seldom() -> None:
    (data,) = run(0x3F, ("sync",))  # the last code is executed in round 64 of those that are left
    (mixed,) = run(0, ("sync",))
    assert isinstance(data.tier, RegionTier) and not data.tier.code_pages.has_code(Gpa(PAGE))
    assert 2 <= given_up(mixed) <= 12
    stores = ROUNDS * 64
    assert stores / data.cpu.native("stale_after") > 1000, "it could have been given up a thousand times"
    for machine in (data, mixed):
        machine.close()


@pytest.mark.parametrize("kind", ["threaded", "stitched", "warm"])
def test_a_page_is_given_up_for_the_stores_of_handlers_too(kind: str) -> None:
    (machine,) = run(0x3F, (kind,))
    tier = machine.tier
    assert isinstance(tier, ThreadedTier) and not tier.code_pages.has_code(Gpa(PAGE))
    assert tier.code_pages.has_code(Gpa(ENTRY)), "nothing is stored to the program's own page"
    machine.close()


@pytest.mark.parametrize("kind", ["threaded", "stitched", "warm"])
def test_without_regions_a_mixed_page_is_given_up_ever_more_seldom_too(kind: str) -> None:
    machine = SmallMachine(kind, assemble(PROGRAM, ENTRY))
    losses, had = 0, False
    while not machine.ended:
        machine.advance(97)  # a round takes some 200 instructions
        assert isinstance(machine.tier, ThreadedTier)
        has = machine.tier.code_pages.has_code(Gpa(PAGE))
        losses += had and not has
        had = has
    assert 2 <= losses <= 12
    machine.close()


def test_a_page_that_a_region_was_made_from_stays() -> None:
    source = f"""
        ldr r8, page ; mov r11, #200
    main: add r4, r8, #0x800 ; mov r3, #64
    store: str r3, [r4], #4 ; subs r3, r3, #1 ; bne store
        subs r11, r11, #1 ; bne main ; svc #0
    page: .word {ENTRY}
    """
    machine = SmallMachine("sync", assemble(source, ENTRY))
    machine.advance(100_000)
    assert machine.ended and given_up(machine) == 0
    assert isinstance(machine.tier, RegionTier)
    assert machine.tier.code_pages.has_code(Gpa(ENTRY)) and machine.tier.regions.counts.compiled
    machine.close()
