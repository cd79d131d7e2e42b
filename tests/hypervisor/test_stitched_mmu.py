"""Stitched code beneath an MMU: second mappings of a page, pages that are mapped elsewhere, and interrupts anywhere."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.engine.threaded import ThreadedTier
from dbt.host.console import CaptureConsole
from dbt.vm.state import state_hash
from isa.arm.state import SCTLR_M, Mode
from tests.assembler import assemble
from tests.oracle.programs import ENTRY, SmallMachine, require_same_state

KINDS = ("reference", "threaded", "stitched", "warm")
PAGE = 0x1000
L1, L2, CODE_L2 = 0x4000, 0x3000, 0x3400
#: The code pages in RAM, and the virtual megabyte in which they are mapped in many orders.
CODE, VIRTUAL, PAGES = 0x10000, 0x0010_0000, 4
FLUSH = 0x7000
ANY, PRIVILEGED, READ_ONLY = 0xFF2, 0x552, 0xAA2  # small pages, and who may do what

# A call goes to one of the virtual pages. Each page begins with a loop, and ends with code that goes on in whatever
# page comes behind it in virtual memory, by one of three ways. What it adds depends on where it is by R15.
_MAIN = f"""
    mov r11, #3000 ; ldr r8, first
outer: and r1, r11, #7 ; add r1, r8, r1, lsl #12 ; mov r10, #5 ; blx r1
    subs r11, r11, #1 ; bne outer ; svc #0
first: .word {VIRTUAL}
"""


def _page(number: int) -> str:
    ways = ("b 0x1000", "nop", "tst r10, #1 ; bne 0x1000", "adr r6, 0xffc ; add r6, r6, #4 ; bx r6")
    start = f"""
        subs r10, r10, #1 ; bxmi lr ; mov r4, #6
    loop: add r0, r0, pc ; add r2, r2, #{number + 1} ; tst r4, #1 ; beq even ; ldr r3, word ; eor r0, r0, r3, ror r4
    even: str r0, [r9, #{4 * number}] ; subs r4, r4, #1 ; bne loop ; b end
    word: .word {number * 0x01234567 + 5}
    """
    end = f"end: add r2, r2, pc, ror #3 ; {ways[number]}"
    size = 4 * (2 + ways[number].count(";"))
    head = len(assemble(start.replace("b end", "b 0x200"), 0))
    return f"{start} .space {PAGE - size - head} \n {end}"


def machine(kind: str, seed: int) -> SmallMachine:
    made = SmallMachine(kind, assemble(_MAIN, ENTRY))
    for number in range(PAGES):
        code = assemble(_page(number), 0)
        assert len(code) == PAGE
        made.memory.write_ram(Gpa(CODE + number * PAGE), code)
    words = {L1: L2 | 1, L1 + 4: CODE_L2 | 1}
    words |= {L2 + 4 * page: page * PAGE | ANY for page in range(0x20)}
    for address, word in words.items():
        made.memory.write_ram(Gpa(address), word.to_bytes(4, "little"))
    made.memory.write_ram(Gpa(CODE_L2 + 4 * 8), (FLUSH | ANY).to_bytes(4, "little"))
    made.memory.write_ram(Gpa(FLUSH), assemble("bx lr", FLUSH))
    made.memory.write_ram(Gpa(FLUSH + 4), assemble("mcr p15, #0, r0, c8, c7, #0", FLUSH + 4))
    remap(made, Random(seed))
    made.cpu.r[9] = 0x18000
    made.cpu["ttbr0"], made.cpu["dacr"] = L1, 1
    made.cpu["sctlr"] |= SCTLR_M
    return made


def remap(made: SmallMachine, random: Random) -> None:
    """Map eight virtual pages to the pages with the code; some only for privileged mode."""
    for page in range(8):
        rights = random.choice((*[ANY] * 6, PRIVILEGED, READ_ONLY))
        word = CODE + random.randrange(PAGES) * PAGE | rights
        made.memory.write_ram(Gpa(CODE_L2 + 4 * page), word.to_bytes(4, "little"))


def flush(made: SmallMachine) -> None:
    """Let the virtual CPU execute a TLB flush, as a handler of an interrupt might at this moment."""
    pc, mode = made.cpu.r[15], made.cpu.mode
    made.cpu.switch_mode(Mode.SUPERVISOR)
    made.cpu.r[15] = FLUSH + 4
    assert made.tier.run(1)[1] == 1
    made.cpu.r[15] = pc
    made.cpu.switch_mode(mode)


@pytest.mark.parametrize("seed", range(6))
def test_pages_that_are_mapped_several_times_and_elsewhere(seed: int) -> None:
    machines = [machine(kind, seed) for kind in KINDS]
    random = Random(f"{seed}/steps")
    for step in range(80):
        change = random.randrange(8)
        count = random.choice((1, 3, 20, 150, 700, 2500))
        number = random.random()
        for each in machines:
            if change == 0:
                remap(each, Random(number))
                flush(each)
            elif change == 1:
                each.cpu.switch_mode(Mode.USER if each.cpu.mode != Mode.USER else Mode.SUPERVISOR)
            each.advance(count)
        require_same_state(machines, f"seed {seed}, step {step}")
        if machines[0].ended:
            break
    warm = machines[-1].tier
    assert isinstance(warm, ThreadedTier) and warm.stitched is not None
    assert warm.stitched.count("insns") > 30 and warm.stitched.count("pages") >= 3
    for each in machines:
        each.close()


#: The handler counts in R0 of its mode's bank and in RAM, and lets the timer ring again after another time.
_HANDLER = """
    push {r0, r1, r2, lr} ; ldr r1, =0x101e2000 ; str r1, [r1, #0xc]
    mov r2, #0x2000 ; ldr r0, [r2] ; add r0, r0, #1 ; str r0, [r2] ; ldr r1, =0x101e2000
    and r0, r0, #0x3f ; add r0, r0, #NUMBER ; str r0, [r1] ; ldr r0, [sp, #12] ; str r0, [r2, #4]
    pop {r0, r1, r2, lr} ; subs pc, lr, #4
"""
_WORK = """
    msr cpsr_c, #0xd2 ; mov sp, #0x7000 ; msr cpsr_c, #0xd3 ; mov sp, #0x6000
    ldr r9, =0x101e2000 ; mov r0, #90 ; str r0, [r9] ; mov r0, #0xe2 ; str r0, [r9, #8]
    ldr r9, =0x10140000 ; mov r0, #0x10 ; str r0, [r9, #0x10] ; msr cpsr_c, #0x53
    mov r11, #4000 ; mov r8, #0x20000
loop: adds r0, r0, r11, ror #3 ; eors r3, r0, r11, lsl #3 ; strmi r3, [r8], #4 ; ldrpl r4, [r8, #-4]
    adcs r5, r4, r0 ; addcs r6, r6, #1 ; bl sub ; bic r8, r8, #0x800 ; subs r11, r11, #1 ; bne loop ; end: b end
sub: push {r4, r5, lr} ; umull r4, r5, r0, r11 ; tst r4, #1 ; popeq {r4, r5, pc} ; addvs r7, r4, r5 ; pop {r4, r5, pc}
"""


@pytest.mark.parametrize("number", range(1, 40, 6))
def test_interrupts_at_every_instruction_of_warm_code(number: int) -> None:
    """The timer rings after another number of instructions each time. R14 of the handler is in RAM."""
    states = {}
    for tier in ("reference", "threaded", "stitched"):
        with _interrupted(tier, number) as machine:
            found = []
            for fuel in (1000, 20_000, 7, 19_993, 30_000):
                machine.run(fuel=fuel)
                found.append((machine.icount, state_hash(machine), machine.read(0x2000, 8)))
            assert int.from_bytes(machine.read(0x2000, 4), "little") > 60
            states[tier] = found
            if tier == "stitched":
                assert isinstance(machine.tier, ThreadedTier) and machine.tier.stitched is not None
                assert machine.tier.stitched.count("insns") > 10
    assert states["threaded"] == states["reference"] and states["stitched"] == states["reference"]


def _interrupted(tier: Any, number: int) -> Machine:
    machine = Machine(1 << 20, tier=tier, console=CaptureConsole(), insn_ns=100)
    machine.write(0x18, assemble("b 0x1000", 0x18))
    machine.write(0x1000, assemble(_HANDLER.replace("NUMBER", str(number)), 0x1000))
    machine.write(0x8000, assemble(_WORK, 0x8000))
    machine.pc = 0x8000
    return machine
