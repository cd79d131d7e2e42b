"""Block transfers in stitched code, which has a stencil for each number of registers."""

from __future__ import annotations

from random import Random

import pytest

from dbt.backend.stencils import generate_stencils
from dbt.backend.unrolled import MAX_UNROLLED
from isa.arm.a32 import REGISTRY
from tests.long import LONG
from tests.oracle.programs import DEVICE, ENTRY, RAM_SIZE, run_side_by_side

KINDS = ("reference", "threaded", "stitched", "measured", "warm")
CUTS = tuple(Random(7).choice((1, 2, 3, 7, 19, 100, 401)) for _ in range(4000))
#: Where transfers begin: within a page, around its end, that of RAM and that of addresses, in code, and at nothing.
PLACES = (
    *(0x10000, 0x10100, 0x10004, 0x10FFC, 0x10FF0, 0x11000, 0x11004, 0x11018),
    *(0x10101, 0x10FFE, RAM_SIZE - 4, RAM_SIZE - 16, RAM_SIZE, DEVICE, 4, ENTRY + 0xF80, 0xFFFFFFF8, 0x40000000),
)
_REGISTERS = ("r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r9", "r10", "r12", "lr")


def _transfer(random: Random) -> str:
    registers = sorted(random.sample(_REGISTERS, random.randint(1, len(_REGISTERS))), key=_REGISTERS.index)
    operation, mode = random.choice(("ldm", "stm")), random.choice(("ia", "ib", "da", "db"))
    condition = random.choice(("", "", "", "ne", "hi"))
    update = "" if "r10" in registers else random.choice(("", "!"))
    return f"{operation}{mode}{condition} r10{update}, {{{', '.join(registers)}}}"


@pytest.mark.parametrize("seed", range(16 if LONG else 1))
def test_transfers_of_any_number_of_registers_anywhere(seed: int) -> None:
    random = Random(seed)
    places = random.sample(PLACES, len(PLACES))
    body = "\n".join(
        f"ldr r10, [r8], #4 ; cmp r11, r10 ; {_transfer(random)} ; add r0, r0, r10 ; add r{n % 8}, r{n % 5}, r11"
        for n in range(len(places))
    )
    machines = run_side_by_side(
        f"""
        mov r11, #60
    loop: ldr r8, at ; {body}
        subs r11, r11, #1 ; bne loop ; svc #0
    at: .word places
    places: .word {", ".join(map(str, places))}
        .space 0x1000
        """,
        KINDS,
        CUTS,
    )
    assert machines[0].ended and len(machines[0].exits) > 60
    for machine in machines:
        machine.close()


@pytest.mark.parametrize("count", range(1, MAX_UNROLLED + 3))
def test_a_transfer_that_loads_the_pc(count: int) -> None:
    others = [*_REGISTERS[:9], "r12", "lr"]
    registers = ", ".join([*others[: count - 1], "pc"])
    machines = run_side_by_side(
        f"""
        mov r11, #300 ; ldr r8, top
    loop: mov r10, r8 ; ldr r9, back ; tst r11, #1 ; ldrne r9, other ; str r9, [r10, #-4] ; add r12, r11, #3
        str r11, [r10, #{-4 * count - 4 * (count == 1)}] ; ldmdb r10, {{{registers}}}
        mov r0, #99
    one: add r0, r0, #1
    two: add r1, r1, r0 ; subs r11, r11, #1 ; bne loop ; svc #0
    top: .word 0x10800
    back: .word one
    other: .word two
        """,
        KINDS,
        CUTS,
    )
    assert machines[0].ended and machines[0].icount > 3000
    for machine in machines:
        machine.close()


def test_which_forms_are_unrolled() -> None:
    """All block transfers but those of user registers and exception returns, which are callouts."""
    names = [insn.name for insn in REGISTRY for _ in insn.forms()]
    made = generate_stencils(REGISTRY).forms[1:]
    unrolled = {name for name, stencil in zip(names, made, strict=True) if stencil.unrolled_count}
    assert unrolled == {"LDM", "LDM (with PC)", "STM", "STM (with PC)"}
