"""A small machine beneath an MMU, whose code pages can be mapped in other orders while it runs."""

from __future__ import annotations

from random import Random

from dbt.abi.addresses import Gpa
from isa.arm.state import SCTLR_M, Mode
from tests.assembler import assemble
from tests.oracle.programs import ENTRY, SmallMachine

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
