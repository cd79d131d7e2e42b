"""A kernel that makes hypercalls and prints what comes back, for this hypervisor and for the real Xen.

It prints by console_io, a word a line: the result of each call, and what is in its buffer afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dbt.abi.addresses import Gva
from dbt.cli.asm import encode

BASE = 0x40010000
#: In place of an argument: the address of the call's buffer.
BUFFER = -1
SELF = 0x7FF0


class Call(NamedTuple):
    """A hypercall: its number, R0 to R2, and the words that are in its buffer before it. ``shown`` of them are printed
    afterwards.
    """

    number: int
    args: tuple[int, ...]
    words: tuple[int, ...] = (0,)
    shown: int = 0


_HEX = """
hex: push {r4, r5, r6, lr} ; adr r4, out ; mov r6, #8
digit: ror r0, r0, #28 ; and r5, r0, #15 ; cmp r5, #10 ; addlt r5, r5, #48 ; addge r5, r5, #87
    strb r5, [r4], #1 ; subs r6, r6, #1 ; bne digit
    mov r0, #10 ; strb r0, [r4]
    mov r12, #18 ; mov r0, #0 ; mov r1, #9 ; adr r2, out ; .word 0xe140ea71 ; pop {r4, r5, r6, pc}
    .balign 4
out: .word 0, 0, 0, 0
"""


def program(calls: list[Call]) -> str:
    """Return the source of the kernel, which switches the machine off in the end."""
    lines = ["nop ; " * 7 + "nop", "b main", ".word 0x016f2818, 0, 0x4000", _HEX, "main:"]
    lines.append("adr r0, hex ; add sp, r0, #0x100000 ; bic sp, sp, #7")
    for number, call in enumerate(calls):
        words = ", ".join(map(hex, call.words))
        lines.append(f"adr r9, buffer{number} ; b call{number} ; .balign 8 ; buffer{number}: .word {words}")
        lines.append(f"call{number}: ldr r12, ={call.number:#x}")
        for register, value in enumerate(call.args):
            load = f"mov r{register}, r9" if value == BUFFER else f"ldr r{register}, ={value:#x}"
            lines.append(load)
        lines.append(".word 0xe140ea71 ; bl hex")
        for word in range(call.shown):
            lines.append(f"ldr r0, [r9, #{4 * word}] ; bl hex")
        lines.append(f"b pool{number} ; .ltorg ; pool{number}:")
    lines.append("ldr r0, =0x84000008 ; .word 0xe1400070 ; b . ; .ltorg")
    return "\n".join(lines)


def image(calls: list[Call]) -> bytes:
    """Return the kernel as a zImage."""
    code = bytearray(encode(program(calls), Gva(BASE), "the probe").ljust(0x4000, b"\0"))
    struct.pack_into("<III", code, 0x24, 0x016F2818, 0, len(code))
    return bytes(code)


def expected(lines: str) -> list[int]:
    """Return the words of a console's output."""
    return [int(line, 16) for line in lines.split()]


class Recorded(NamedTuple):
    """A call, what the real Xen answers to it, and why this hypervisor answers otherwise, or "" if it does not."""

    call: Call
    words: list[str]
    reason: str


def recorded_calls() -> list[Recorded]:
    """Return the calls of more_calls.txt, which says what its lines are."""
    found = []
    for line in (Path(__file__).parent / "more_calls.txt").read_text().splitlines():
        text, _, reason = line.partition("#")
        if text:
            (number, *args), before, after = (part.split() for part in text.split("|"))
            values = [BUFFER if one == "@" else int(one, 16) for one in args]
            call = Call(int(number, 16), tuple(values), tuple(_buffer_words(before)), len(after) - 1)
            found.append(Recorded(call, after, reason.strip()))
    return found


def _buffer_words(parts: list[str]) -> Iterator[int]:
    for part in parts:
        value, _, count = part.partition("*")
        yield from [int(value, 16)] * int(count or 1)


def low(value: int) -> tuple[int, int]:
    """Return a number of 64 bits as two words."""
    return value & 0xFFFFFFFF, value >> 32


#: Calls of which nothing depends on where the domain came from.
CALLS = [
    # those of the recorded probe
    Call(17, (0,)),
    Call(60, (0,)),
    Call(32, (99, BUFFER)),
    Call(12, (99, BUFFER)),
    Call(29, (99, BUFFER)),
    Call(24, (99, 0)),
    Call(20, (99, BUFFER)),
    Call(34, (99, BUFFER)),
    Call(32, (6, 0xF0000000)),
    Call(18, (1, 5)),
    Call(1, (0, 0)),
    Call(13, (BUFFER, 0)),
    Call(40, (0, 3)),
    # xen_version
    Call(17, (3, BUFFER), (0,) * 256, 4),
    Call(17, (5, BUFFER), (7, 7), 2),
    Call(17, (6, BUFFER), (0, 7), 2),
    Call(17, (6, BUFFER), (1, 7), 2),
    Call(17, (7, 0)),
    Call(17, (8, BUFFER), (7, 7, 7, 7), 4),
    Call(17, (99, BUFFER)),
    Call(17, (6, 0xF0000000)),
    # memory_op
    Call(12, (3, BUFFER), (0,)),
    Call(12, (3, BUFFER), (77,)),
    Call(12, (7, BUFFER), (SELF, 9, 0, 0, *low(0x40100))),
    Call(12, (7, BUFFER), (SELF, 0, 1, 0, *low(0x40100))),
    Call(12, (7, BUFFER), (0, 0, 0, 0, *low(0x40100))),
    Call(12, (7, 0xF0000000)),
    Call(12, (1, BUFFER), (0, 0, 1, 0, 20, 0, SELF, 0)),
    Call(12, (1, BUFFER), (0xF0000000, 0, 1, 0, 0, 0, SELF, 0)),
    Call(12, (6, BUFFER), (0xF0000000, 0, 1, 0, 0, 0, SELF, 0)),
    Call(12, (1, BUFFER), (0, 0, 0, 0, 0, 0, 0, 0)),
    # event_channel_op, with bits
    Call(32, (12, BUFFER), (*low(0x40100),)),
    Call(32, (13, BUFFER), (1, 0)),
    Call(32, (6, BUFFER), (0, 0)),
    Call(32, (1, BUFFER), (99, 0, 0)),
    Call(32, (1, BUFFER), (0, 1, 0)),
    Call(32, (1, BUFFER), (2, 1, 0)),
    Call(32, (7, BUFFER), (1, 0)),
    Call(32, (3, BUFFER), (0,)),
    Call(32, (3, BUFFER), (900,)),
    Call(32, (4, BUFFER), (900,)),
    Call(32, (9, BUFFER), (900,)),
    Call(32, (0, BUFFER), (SELF, 900, 0)),
    Call(32, (0, BUFFER), (77, 1, 0)),
    Call(32, (5, BUFFER), (SELF, 0, 7, 7, 7, 7)),
    Call(32, (5, BUFFER), (SELF, 900, 7, 7, 7, 7), 3),
    Call(32, (8, BUFFER), (900, 0)),
    Call(32, (8, BUFFER), (900, 1)),
    Call(32, (10, BUFFER), (77,)),
    Call(32, (11, BUFFER), (*low(0x40100), 4090, 0, 0, 0)),
    Call(32, (11, BUFFER), (*low(0x40100), 0, 1, 0, 0), 5),
    Call(32, (11, BUFFER), (*low(0x90100), 0, 0, 0, 0)),
    # grant_table_op
    Call(20, (6, BUFFER, 1), (77, 7, 7, 7), 4),
    Call(20, (6, BUFFER, 2), (SELF, 7, 7, 7)),
    Call(20, (8, BUFFER, 1), (9,), 1),
    Call(20, (10, BUFFER, 1), (SELF, 7), 2),
    Call(20, (10, BUFFER, 1), (77, 7)),
    Call(20, (12, BUFFER, 1), (0, 0, 0, 0)),
    Call(20, (12, BUFFER, 1), (0, 0, 4090 | 100 << 16, 1)),
    # sched_op, vcpu_op, hvm_op and the rest
    Call(29, (0, 0)),
    Call(29, (3, BUFFER), (0, 0, 200, 0, 0, 0)),
    Call(29, (3, 0xF0000000)),
    Call(29, (2, 0xF0000000)),
    Call(24, (10, 1, BUFFER), (0, 0, 0, 0)),
    Call(24, (10, 0, BUFFER), (*low(0x40100), 4090, 0)),
    Call(24, (10, 0, 0xF0000000)),
    Call(24, (5, 0, BUFFER), (0xF0000000, 0)),
    Call(34, (1, BUFFER), (SELF, 0, 0, 0), 4),
    Call(34, (1, BUFFER), (SELF, 5, 0, 0)),
    Call(34, (1, BUFFER), (SELF, 999, 0, 0)),
    Call(34, (1, BUFFER), (77, 1, 0, 0)),
    Call(34, (0, BUFFER), (SELF, 17, 5, 0)),
    Call(34, (0, BUFFER), (SELF, 5, 5, 0)),
    Call(21, (0, 5)),
    Call(21, (1, 5)),
    Call(21, (0, 0)),
    Call(21, (2, 5)),
    Call(33, (0, BUFFER)),
    Call(18, (2, 5, BUFFER)),
    Call(18, (0, 5, 0xF0000000)),
    Call(13, (BUFFER, 2), (17, 0, 7, 7, *(0,) * 12, 60, 0, 7, 7, *(0,) * 12), 4),
    Call(13, (0xF0000000, 1)),
]
