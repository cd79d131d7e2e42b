"""Pointers that a loop follows, through pages that lie elsewhere in RAM than in the address space."""

from __future__ import annotations

from random import Random

import pytest

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import NATIVE, NO_GUESS
from dbt.abi.exits import DataAbort
from dbt.backend.pointers import followed_pointers
from dbt.engine.region_tier import RegionTier
from dbt.frontend.forming import Place
from isa.arm.state import SCTLR_M
from tests.assembler import assemble
from tests.long import LONG
from tests.oracle.cases import CODE
from tests.oracle.programs import ENTRY, SmallMachine, advance_side_by_side
from tests.regions.formed import region_of

PAGE = 0x1000
L1, L2, DATA_L2 = 0x4000, 0x3000, 0x3400  # the second table of the megabyte with the code, and of that with the data
DATA, VIRTUAL, PAGES = 0x10000, 0x00100000, 8
NODE = 32
SMALL_PAGE = 0xFF2  # with all rights in each quarter

# The counter r11 ends the program. Each time, two pages change places in the address space; what is cached of the
# translations is flushed. r12 is one of two places in other pages, as a comparison has it. r4 bounds the steps, because
# the list that is found then may have no end.
WALK = f"""
    ldr r9, tables ; add r8, r9, #0x400 ; mov r10, #0x1f000
outer: mov r4, #60 ; ldr r0, first
inner: ldr r1, [r0, #4] ; add r2, r2, r1 ; str r2, [r0, #8] ; ldrh r3, [r0, #6] ; eor r2, r2, r3
    ldm r0, {{r0, r5, r6}} ; add r2, r2, r6 ; mov r7, r0 ; ldrb r1, [r7, #5] ; add r2, r2, r1
    cmp r2, r6 ; mov r12, r8 ; movlo r12, r10 ; str r2, [r12] ; ldr r1, [r8] ; eor r2, r2, r1
    subs r4, r4, #1 ; bne inner
    and r1, r11, #7 ; and r3, r2, #7 ; ldr r5, [r9, r1, lsl #2] ; ldr r6, [r9, r3, lsl #2]
    str r6, [r9, r1, lsl #2] ; str r5, [r9, r3, lsl #2] ; mov r5, #0 ; mcr p15, 0, r5, c8, c7, 0
    subs r11, r11, #1 ; bne outer ; svc #0
tables: .word {DATA_L2}
first: .word {VIRTUAL}
"""


def program(seed: int) -> dict[int, int]:
    """Return the words of tables and nodes by address. Most links stay in their page, and few lead nowhere."""
    random = Random(seed)
    words = {L1: L2 | 1, L1 + 4: DATA_L2 | 1}
    words |= {L2 + 4 * page: page * PAGE | SMALL_PAGE for page in range(0x20)}
    places = random.sample(range(PAGES), PAGES)
    words |= {DATA_L2 + 4 * n: DATA + place * PAGE | SMALL_PAGE for n, place in enumerate(places)}
    for node in range(0, PAGES * PAGE, NODE):
        page = node & -PAGE if random.random() < 0.9 else random.randrange(PAGES) * PAGE
        link = VIRTUAL + page + random.randrange(PAGE // NODE) * NODE
        words[DATA + node] = link if random.random() > 0.02 else VIRTUAL + PAGES * PAGE
        words[DATA + node + 4] = random.getrandbits(32)
    return words


def machine(kind: str, seed: int) -> SmallMachine:
    made = SmallMachine(kind, assemble(WALK, ENTRY))
    for address, word in program(seed).items():
        made.memory.write_ram(Gpa(address), word.to_bytes(4, "little"))
    made.cpu.r[11] = 40
    made.cpu["ttbr0"], made.cpu["dacr"] = L1, 1
    made.cpu["sctlr"] |= SCTLR_M
    return made


@pytest.mark.parametrize("seed", range(4 if LONG else 2))
def test_every_tier_follows_them_to_the_same_places(seed: int) -> None:
    machines = [machine(kind, seed) for kind in ("reference", "threaded", "stitched", "warm", "sync")]
    advance_side_by_side(machines, [7] * 20 + [997] * 1980, f"seed {seed}, ")
    assert machines[0].ended
    assert any(isinstance(exit_, DataAbort) for _, exit_ in machines[0].exits)
    regions = machines[-1].tier
    assert isinstance(regions, RegionTier) and regions.regions.counts.compiled and regions.retired["region"] > 1000
    registers = range(NATIVE["guesses"].count)
    assert any(machines[-1].cpu.native("guesses", register) != NO_GUESS for register in registers)
    for each in machines:
        each.close()


def test_what_is_followed_was_loaded_in_the_innermost_loop_around_it() -> None:
    source = (
        "main: ldr r1, [r9]; inner: ldr r2, [r1, #4]; mov r3, r2; ldr r4, [r3]; add r1, r1, #8; subs r5, r5, #1;"
        "bne inner; subs r6, r6, #1; bne main; bx lr"
    )
    followed = followed_pointers(region_of(source))
    assert followed[Place(Gva(CODE))] == {1, 2, 3, 4}
    assert followed[Place(Gva(CODE + 4))] == {2, 3, 4}


def test_what_a_loop_chooses_is_followed_too() -> None:
    source = (
        "main: mov r3, r7; ldr r1, [r9, #4]; cmp r1, r2; movlo r3, r8; movne r4, #0; str r1, [r3]; subs r5, r5, #1;"
        "bne main; bx lr"
    )
    followed = followed_pointers(region_of(source))
    assert followed[Place(Gva(CODE))] == {1, 3}
