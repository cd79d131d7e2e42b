"""Programs that try every way of setting the flags after every form that they may have had, with edge operands.

Each way has a loop of its own over pairs of numbers, R0 and R1, and so a region of its own. Two blocks further
the flags are read by every condition and as a carry, in the region or, behind an access to a device, after it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.oracle.programs.random_programs import CONDITIONS

EDGES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x80000001)
PAIRS = [(x, y) for x in EDGES for y in EDGES]

#: What comes first, by the form that it gives the flags (see dbt.backend.flags.FlagKind).
FIRST = {
    "STORED": "cmp r1, r0 \n movscs r3, r0, lsl #1",
    "RESULT": "adds r3, r1, r0, lsl #1",
    "MIXED": "cmp r1, r0 \n teq r0, #3",
    "DIFFERENCE": "cmp r1, r0",
}
#: What comes then; {c} is a condition.
THEN = (
    "cmp{c} r0, r1", "cmp{c} r0, #0", "cmp{c} r0, #0x80000000", "cmp{c} r0, #1",
    "cmn{c} r0, r1", "cmn{c} r0, #0", "cmn{c} r0, #0x80000000", "cmn{c} r0, #1",
    "subs{c} r2, r0, r1", "rsbs{c} r2, r0, #0", "adds{c} r2, r0, r1", "adds{c} r2, r0, #0", "adds{c} r2, r0, #255",
    "adcs{c} r2, r0, r1", "adcs{c} r2, r0, #1", "sbcs{c} r2, r0, r1", "sbcs{c} r2, r0, #0", "rscs{c} r2, r0, r1",
    "movs{c} r2, r0, lsr #1", "movs{c} r2, r0, lsl r1", "movs{c} r2, r0, rrx", "movs{c} r2, r0",
    "ands{c} r2, r0, r1", "bics{c} r2, r0, #0xF0000000", "tst{c} r0, #1", "teq{c} r0, r1",
    "muls r2, r0, r1", "umulls r2, r3, r0, r1", "smlals r2, r3, r0, r1", "mov{c} r2, r0",
    "cmp r0, r1 \n cmp{c} r1, #1", "tst r0, r1 \n subs{c} r2, r1, r0", "cmp r0, r1 \n ands{c} r2, r0, r1",
)  # fmt: skip


def sequences() -> Iterator[str]:
    """Yield the second instructions, under no condition and under one."""
    for number, text in enumerate(THEN):
        yield text.format(c="")
        if "{c}" in text:
            yield text.format(c=CONDITIONS[number % len(CONDITIONS)])


def flag_program(first: str) -> str:
    lines = ["b start", "pairs:", *(f".word {x}, {y}" for x, y in PAIRS)]
    lines += ["start: adr r10, pairs", "mov r9, #0x10000000"]
    for number, then in enumerate(sequences()):
        lines += [f"mov r8, r10 \n mov r11, #{len(PAIRS)} \n loop{number}: ldr r0, [r8], #4 \n ldr r1, [r8], #4"]
        lines += [f"mov r6, #0 \n {first} \n b then{number} \n then{number}: {then} \n b read{number} \n read{number}:"]
        if number % 4 == 3:
            lines.append("ldr r5, [r9]")
        lines += [f"add{cond} r6, r6, #{1 << bit}" for bit, cond in enumerate(CONDITIONS)]
        lines += ["adc r6, r6, #0x10000 \n mov r4, r4, rrx \n add r7, r6, r7, ror #7 \n add r7, r7, r2"]
        lines += [f"sub r11, r11, #1 \n teq r11, #0 \n bne loop{number}"]
    return "\n".join([*lines, "svc #0"])
