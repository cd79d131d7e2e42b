"""Tables that loops look things up in, in pages that lie elsewhere in RAM than in the address space."""

from __future__ import annotations

from random import Random

import pytest

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.exits import DataAbort
from dbt.backend.lookups import Bounds, find_lookups
from dbt.engine.evaluator import compile_word
from dbt.engine.region_tier import RegionTier
from dbt.frontend.forming import Place, is_sensitive
from isa.arm.state import LAYOUT, SCTLR_M
from isa.ir.queries import walk
from tests.assembler import assemble
from tests.isa.words import FORMS, words_of
from tests.oracle.cases import CODE
from tests.oracle.programs import ENTRY, SmallMachine, advance_side_by_side
from tests.regions.formed import region_of

PAGE = 0x1000
L1, L2, DATA_L2, LAST_L2 = 0x4000, 0x3000, 0x3400, 0x3800  # the last three: tables of three megabytes
DATA, VIRTUAL, PAGES = 0x10000, 0x00100000, 8
SMALL_PAGE = 0xFF2  # with all rights in each quarter
LAST_PAGE = 0xFFFFF000
#: Where tables begin: within a page, across two of them, where a page begins or ends, beside pages that are not mapped,
#: and at the end of the address space, which goes on at 0.
BASES = (
    *(VIRTUAL + offset for offset in (0, 0x400, 0xC00, 0xC04, 0xD02, 0x1FFD, 0x2E00, 0x3FFC, 0x5001, 0x7C00)),
    *(VIRTUAL + PAGES * PAGE - 0x380, VIRTUAL + PAGES * PAGE - 4, VIRTUAL - 0x20, VIRTUAL - 0x3F0),
    *(LAST_PAGE + 0xC00, LAST_PAGE + 0xE00),
)
#: r0 is the table. The counter r11 ends the program. In each round two pages change places, as in test_pointers.
LOOKUPS = f"""
    ldr r9, tables ; ldr r12, limit ; mov r3, #1
outer: mov r8, #4
next: adr r1, bases ; add r2, r11, r8, lsl #1 ; and r2, r2, #15 ; ldr r0, [r1, r2, lsl #2] ; mov r4, #12 ; mov r10, r0
    add r0, r0, #0x800 ; cmp r0, r12 ; bcc kept ; sub r0, r0, r12 ; add r0, r0, r12 ; kept: sub r0, r0, #0x800
inner: and r1, r3, #255 ; ldr r1, [r0, r1, lsl #2] ; eor r3, r1, r3, lsr #8
    lsr r6, r3, #24 ; ldrh r6, [r6, r10] ; and r6, r6, #63 ; ldrsb r7, [r0, r6] ; add r3, r3, r7
    tst r3, #1 ; movne r6, r3, lsr #24 ; ldrne r5, [r10, r6, lsl #2] ; addne r3, r3, r5 ; moveq r6, r4
    ldr r7, [r0, r6] ; eor r3, r3, r7 ; subs r4, r4, #1 ; bne inner
    subs r8, r8, #1 ; bne next
    and r1, r11, #7 ; and r2, r3, #7 ; ldr r5, [r9, r1, lsl #2] ; ldr r6, [r9, r2, lsl #2]
    str r6, [r9, r1, lsl #2] ; str r5, [r9, r2, lsl #2] ; mov r5, #0 ; mcr p15, 0, r5, c8, c7, 0
    subs r11, r11, #1 ; bne outer ; svc #0
tables: .word {DATA_L2}
limit: .word {VIRTUAL + 0x4000}
bases: .word {", ".join(map(str, BASES))}
"""


def machine(kind: str, seed: int) -> SmallMachine:
    random = Random(seed)
    made = SmallMachine(kind, assemble(LOOKUPS, ENTRY))
    words = {L1: L2 | 1, L1 + 4: DATA_L2 | 1, L1 + 4 * 0xFFF: LAST_L2 | 1}
    words |= {L2 + 4 * page: page * PAGE | SMALL_PAGE for page in range(0x20)}
    words |= {DATA_L2 + 4 * n: DATA + n * PAGE | SMALL_PAGE for n in range(PAGES)}
    words[LAST_L2 + 4 * 0xFF] = DATA + PAGE | SMALL_PAGE
    for address, word in words.items():
        made.memory.write_ram(Gpa(address), word.to_bytes(4, "little"))
    made.memory.write_ram(Gpa(DATA), random.randbytes(PAGES * PAGE))
    made.cpu.r[11] = 64
    made.cpu["ttbr0"], made.cpu["dacr"] = L1, 1
    made.cpu["sctlr"] |= SCTLR_M
    return made


@pytest.mark.parametrize("seed", range(2))
def test_every_tier_finds_the_same_in_them(seed: int) -> None:
    machines = [machine(kind, seed) for kind in ("reference", "threaded", "stitched", "warm", "sync")]
    advance_side_by_side(machines, [7] * 20 + [997] * 1980, f"seed {seed}, ")
    assert machines[0].ended
    assert any(isinstance(exit_, DataAbort) for _, exit_ in machines[0].exits)
    regions = machines[-1].tier
    assert isinstance(regions, RegionTier) and regions.regions.counts.compiled and regions.retired["region"] > 1000
    for each in machines:
        each.close()


def test_a_lookup_has_a_register_that_its_loop_keeps_and_a_small_index() -> None:
    region = region_of(
        "ldrb r1, [r2]; ldr r1, [r0, r1, lsl #2]; loop: ldrb r1, [r2], #1; ldr r3, [r0, r1, lsl #2]; ldr r4, [r0, r3];"
        "ldrh r5, [r1, r2]; lsr r6, r3, #19; ldr r7, [r0, r6]; lsr r6, r6, #1; ldrsb r7, [r6, r8]; ldr r7, [r0, r1];"
        "subs r9, r9, #1; bne loop; bx lr"
    )
    found = find_lookups(region)
    looked_up = {(place.pc + 4 * index, load.register) for (place, index, _), load in found.loads.items()}
    assert looked_up == {(CODE + 12, 0), (CODE + 36, 8), (CODE + 40, 0)}
    assert found.reach == {0: 255 * 4 + 4, 8: 4096}
    assert {place for place, _, _ in found.loads} == {Place(Gva(CODE + 8))}


@pytest.mark.parametrize(
    "source",
    [
        "moveq r1, #3; ldr r2, [r0, r1]",
        "ldm r3, {r1, r4}; ldr r2, [r0, r1]",
        "ldrsb r1, [r3]; ldr r2, [r0, r1]",
        "and r1, r3, #255; sub r1, r1, #1; ldr r2, [r0, r1]",
        "and r1, r3, #255; ldr r2, [r0, -r1]",
        "ldrh r1, [r3]; ldr r2, [r0, r1]",
        "and r1, r3, #255; ldr r2, [r0, r1, lsl #24]",
        "and r1, r3, #255; ldr r2, [r0, r1]!",
    ],
)
def test_an_index_that_may_be_large_is_none(source: str) -> None:
    assert not find_lookups(region_of(f"loop: {source}; subs r9, r9, #1; bne loop; bx lr")).loads


def test_no_register_exceeds_what_is_known_of_it() -> None:
    """Each form of each instruction is executed with registers that are as small as is known of them."""
    random, narrowed = Random(1), set[str]()
    for insn, form in FORMS:
        for word in words_of(insn, form):
            block = insn.record_word(word)
            if is_sensitive(block) or any(uop.op in ("callout", "callout_value") for uop in walk(block)):
                continue
            known = {number: (1 << random.randrange(33)) - 1 for number in range(15)}
            most = dict(known)
            list(Bounds(most).follow(block))
            for _ in range(8):
                registers = [random.choice((known[n], random.randint(0, known[n]))) for n in range(15)] + [CODE + 8]
                words = [0] * LAYOUT["fcseidr"].index + [0] * 400
                for flag in "nzcv":
                    words[LAYOUT[flag].index] = random.randrange(2)

                def load(address: int, size: int, *_: object) -> int:
                    return random.choice(((1 << 8 * size) - 1, random.getrandbits(8 * size)))

                compile_word(word, insn.since)(registers, words, load, lambda *_: None, None, CODE)
                for number in range(15):
                    assert registers[number] <= most[number], f"{insn.name} {word:08x} r{number}"
            if any(most[number] < known[number] for number in known):
                narrowed.add(insn.name)
    assert {"AND (register)", "LDRB (register, offset)"} <= narrowed, sorted(narrowed)
