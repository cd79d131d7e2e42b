"""Checks of accesses that regions leave out, and those of stack frames before loops."""

from __future__ import annotations

import pytest

from dbt.abi.addresses import Gva
from dbt.abi.exits import DataAbort
from dbt.backend.access_checks import AccessChecks, Check, Known, find_access_checks
from dbt.backend.spans import Spans, find_spans
from dbt.engine.region_tier import RegionTier
from dbt.frontend.forming import Block, Place, is_sensitive
from isa.arm.state import SCTLR_A
from isa.ir.queries import registers_written, walk
from isa.ir.uop import Access
from tests.assembler import assemble
from tests.isa.words import FORMS, words_of
from tests.oracle.cases import CODE
from tests.oracle.programs import DEVICE, ENTRY, RAM_SIZE, SmallMachine, advance_side_by_side
from tests.regions.formed import region_of

#: Where the frame of the loop begins: in RAM, across two pages, at the end of RAM, where it just fits, where a part of
#: it does not; at the beginning of RAM, where a part is below; in a device, nowhere, at odd addresses; and, by their
#: labels, in code that is executed and beside it.
STACKS = (
    *(0x18000, 0x18FF0, 0x18FFC, RAM_SIZE - 4, RAM_SIZE - 24, RAM_SIZE - 20, RAM_SIZE + 28, 0x10, 0, 4),
    *(DEVICE, 0x40000, 0x18002, 0x18001, "victim", "beside"),
)
#: Instructions are what is stored, so that what was code before is code again.
FRAMES = f"""
    adr r10, stacks ; ldr r9, nop ; ldr r8, increment
outer: and r1, r11, #15 ; ldr sp, [r10, r1, lsl #2] ; mov r4, #5
loop: ldr r6, [sp, #20] ; str r9, [sp, #8] ; ldr r2, [sp, #8] ; add r0, r0, r2 ; tst r4, #1 ; strne r8, [sp, #12]
    strb r9, [sp, #16] ; ldrh r3, [sp, #18] ; eor r0, r0, r3 ; bl leaf ; add r0, r0, r6 ; ldr r3, [sp, #8]
    cmp r4, #2 ; addeq r0, r0, r3 ; subs r4, r4, #1 ; bne loop
    bl victim ; mov sp, #0x19000 ; mov r5, #4 ; bl again ; subs r11, r11, #1 ; bne outer ; svc #0
leaf: push {{r1, r2, r3}} ; sub sp, sp, #16 ; str r9, [sp, #4] ; mov r12, sp ; ldr r2, [r12, #4] ; str r2, [r12, #8]
    add r0, r0, r2 ; add sp, sp, #16 ; pop {{r1, r2, r3}} ; bx lr
again: push {{r4, r5, lr}} ; sub sp, sp, #8 ; str r5, [sp, #4] ; mov r4, #3
turn: ldr r2, [sp, #4] ; add r0, r0, r2, ror #3 ; str r0, [sp] ; subs r4, r4, #1 ; bne turn
    subs r5, r5, #1 ; blne again ; ldr r2, [sp] ; add r0, r0, r2 ; add sp, sp, #8 ; pop {{r4, r5, pc}}
stacks: .word {", ".join(map(str, STACKS))}
nop: mov r0, r0
increment: add r0, r0, #1
    .word 0, 0, 0, 0, 0, 0, 0, 0
victim: mov r0, r0 ; mov r0, r0 ; mov r0, r0 ; mov r0, r0 ; mov r0, r0 ; mov r0, r0 ; mov r0, r0 ; bx lr
    .word 0, 0, 0, 0, 0, 0, 0, 0
beside: .word 0, 0, 0, 0, 0, 0, 0, 0
"""


@pytest.mark.parametrize("strict", [False, True])
def test_every_tier_accesses_the_same_frames(strict: bool) -> None:
    machines = []
    for kind in ("reference", "threaded", "stitched", "warm", "sync", "without checks"):
        made = SmallMachine(kind, assemble(FRAMES, ENTRY))
        made.cpu.r[11] = 80
        made.cpu["sctlr"] |= SCTLR_A if strict else 0
        machines.append(made)
    advance_side_by_side(machines, [7] * 40 + [997] * 100, "strict, " if strict else "")
    assert machines[0].ended
    assert any(isinstance(exit_, DataAbort) for _, exit_ in machines[0].exits)
    regions = machines[-2].tier
    assert isinstance(regions, RegionTier) and regions.regions.counts.compiled and regions.retired["region"] > 1000
    for each in machines:
        each.close()


def alignment(access: Access) -> int:
    return access.size if access.aligned else 1


def spans_of(block: Block) -> Spans:
    return find_spans(block, alignment)


def checks_of(source: str) -> tuple[AccessChecks, set[int]]:
    """Return what is found in a region, and the addresses from its entry of the accesses that need no check."""
    region = region_of(source)
    found = find_access_checks(region, spans_of, alignment, set())
    assert all(isinstance(uop.attr, Access) for _, _, uop in found.needless)
    return found, {region.blocks[place].insns[index].pc - CODE for place, index, _ in found.needless}


def test_what_was_checked_is_known_until_the_register_is_written() -> None:
    _, needless = checks_of("str r0, [r1]; cmp r0, #1; bne next; next: ldr r2, [r1]; str r2, [r1, #1]; bx lr")
    assert needless == {12}  # one byte of the last is not known
    _, needless = checks_of("str r0, [r1]; add r1, r1, r2; b next; next: ldr r2, [r1]; bx lr")
    assert not needless
    _, needless = checks_of("ldr r0, [r1]; b next; next: str r0, [r1]; bx lr")
    assert not needless  # what may be loaded may not be stored


def test_what_is_known_moves_along_with_constants_and_copies() -> None:
    _, needless = checks_of("str r0, [r1], #4; b next; next: mov r3, r1; b more; more: ldr r2, [r3, #-4]; bx lr")
    assert needless == {16}
    _, needless = checks_of("push {r4, lr}; sub sp, sp, #8; b next; next: add sp, sp, #8; pop {r4, pc}")
    assert needless == {16}


def test_what_no_span_was_checked_for_is_not_known() -> None:
    source = "ldr r0, [r1]; ldr r2, [r1, #8]; b next; next: ldr r3, [r1, #4]; bx lr"
    region = region_of(source)
    assert find_access_checks(region, spans_of, alignment, set()).needless
    assert not find_access_checks(region, lambda block: {}, alignment, set()).needless


def test_a_register_that_is_loaded_behind_a_writeback_is_not_known() -> None:
    _, needless = checks_of(".word 0xe8b10006; b next; next: ldr r3, [r1, #-4]; bx lr")
    assert not needless


def test_an_instruction_reads_a_register_before_it_writes_it() -> None:
    for insn, form in FORMS:
        for word in words_of(insn, form):
            uops, written = insn.record_word(word), set[int]()
            for uop in () if is_sensitive(uops) else walk(uops):
                assert uop.op != "get_reg" or uop.args[0].number not in written, f"{insn.name} {word:08x}"
                if uop.op == "set_reg":
                    written |= registers_written([uop])


def test_what_is_far_away_is_forgotten() -> None:
    _, needless = checks_of(
        "str r0, [r1]; sub r1, r1, #0x80000000; add r1, r1, #0x80000000; b n; n: ldr r3, [r1]; bx lr"
    )
    assert not needless
    assert Known().checked(Check("load", 0, 4, 4)).moved(-(1 << 31)) == Known(0, 0, 4, 0)


def test_what_one_of_two_paths_knows_is_not_known() -> None:
    _, needless = checks_of("cmp r0, #1; beq next; str r0, [r1]; next: ldr r2, [r1]; bx lr")
    assert not needless
    _, needless = checks_of("cmp r0, #1; strne r0, [r1]; b next; next: ldr r2, [r1]; bx lr")
    assert not needless
    _, needless = checks_of("str r0, [r1]; cmp r0, #1; b next; next: ldrne r2, [r1]; bx lr")
    assert needless == {12}


def test_a_loop_has_its_frame_checked_before() -> None:
    found, needless = checks_of("loop: str r0, [sp, #8]; ldr r1, [sp, #16]; subs r2, r2, #1; bne loop; bx lr")
    assert found.ahead == {(None, Place(Gva(CODE))): Check("store", 8, 20, 1)}
    assert needless == {0, 4}
    found, _ = checks_of("loop: ldr r1, [sp, #16]; subs r2, r2, #1; bne loop; bx lr")
    assert found.ahead == {(None, Place(Gva(CODE))): Check("load", 16, 20, 1)}


def test_a_callee_that_is_copied_belongs_to_the_loop() -> None:
    found, needless = checks_of(
        "loop: bl leaf; subs r2, r2, #1; bne loop; bx lr; leaf: push {r4, r5}; pop {r4, r5}; bx lr"
    )
    assert found.ahead == {(None, Place(Gva(CODE))): Check("store", -8, 0, 4)}
    assert {16, 20} <= needless


@pytest.mark.parametrize(
    "change", ["sub sp, sp, #8", "mov sp, r3", "ldr sp, [r3]", "subne sp, sp, #8", "add sp, sp, r3"]
)
def test_a_loop_that_moves_its_stack_has_no_frame(change: str) -> None:
    found, _ = checks_of(f"loop: str r0, [sp, #8]; {change}; subs r2, r2, #1; bne loop; bx lr")
    assert not found.ahead


def test_accesses_far_from_each_other_are_no_frame() -> None:
    found, _ = checks_of("loop: str r0, [sp, #8]; ldr r1, [sp, #1024]; subs r2, r2, #1; bne loop; bx lr")
    assert not found.ahead


def test_a_block_that_is_lowered_with_others_has_no_check_before_it() -> None:
    region = region_of("loop: str r0, [sp, #8]; subs r2, r2, #1; bne loop; bx lr")
    assert not find_access_checks(region, spans_of, alignment, {Place(Gva(CODE))}).ahead


def test_alignment_is_known_as_far_as_both_paths_agree() -> None:
    word, half = Known().checked(Check("load", 2, 6, 4)), Known().checked(Check("load", 2, 6, 2))
    assert word.meet(half).covers(Check("load", 2, 4, 2))
    assert not word.meet(half).covers(Check("load", 2, 6, 4))
    assert word.meet(word.moved(4).checked(Check("load", 2, 6, 4))).covers(Check("load", 2, 6, 4))
    assert word.moved(2).covers(Check("load", 0, 4, 4)) and not word.moved(1).covers(Check("load", 2, 4, 2))
    assert not Known().checked(Check("load", 600, 604, 1)).covers(Check("load", 600, 604, 1))  # out of reach
