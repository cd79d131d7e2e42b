"""GNU as as the oracle of the assembler: the bytes of a program that is linked to an address, or None if it refuses."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

BASE = 0x10000
needs_gnu = pytest.mark.skipif(shutil.which("arm-none-eabi-as") is None, reason="arm-none-eabi-as is not installed")


def assemble_by_gnu(text: str, place: Path) -> bytes | None:
    """Warnings are refusals: they say that a value was cut."""
    source, made, linked, binary = (f"{place}/program.{end}" for end in ("s", "o", "elf", "bin"))
    Path(source).write_text(text)
    for command in (
        ["arm-none-eabi-as", "-march=armv7-a", "-mfpu=neon", "--fatal-warnings", source, "-o", made],
        ["arm-none-eabi-ld", f"-Ttext={BASE:#x}", "-e", f"{BASE:#x}", made, "-o", linked],
        ["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", linked, binary],
    ):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
    data = Path(binary).read_bytes()
    return data + bytes(-len(data) % 4)


_LOADS = ("ldr", "str", "ldrb", "strb", "ldrh", "strh", "ldrsb", "ldrsh", "ldreq", "ldrbne")
_PLAIN = (
    *("add r0, r1, r2, lsl #3", "mov r0, #255", "bx lr", "push {r4, lr}", "mul r0, r1, r2", "ldr r0, [r1, #-4]!"),
    *("svc #1", "strd r0, r1, [r2]", "ldmia r0!, {r1-r3}", "mrs r0, cpsr", "mvn r1, #0", "movw r0, #0x1234", "nop"),
    *("cmp r0, #'a'", "ldrexd r0, r1, [r2]", "uxtb r0, r1, ror #8", "vldr d0, [r1, #8]", "blx r3", "msr cpsr_f, r0"),
    *("mcr p15, 0, r0, c1, c0, 0", "mov r0, #(1 << 3) | 4", "add sp, sp, #4 * 4", "ldr r0, [r1, #2 + 2]"),
)


def random_program(seed: int) -> str:
    """A program of instructions and data that refer to its labels, with gaps about as wide as references reach."""
    chance = random.Random(seed)
    names = [f"l{number}" for number in range(chance.randint(1, 4))]

    def target() -> str:
        kind = chance.random()
        if kind < 0.15:
            return f"{chance.choice((1, 2))}{chance.choice('fb')}"
        if kind < 0.3:
            return f"{chance.choice(names)} {chance.choice('+-')} {chance.choice((1, 2, 4, 8, 12))}"
        return "." if kind < 0.33 else chance.choice(names)

    def reference() -> str:
        register = chance.randrange(0, 12, 2)
        match chance.randrange(12):
            case 0 | 1:
                return f"{chance.choice(('b', 'bl', 'beq', 'blne', 'blt', 'bls'))} {target()}"
            case 2 | 3:
                return f"{chance.choice(_LOADS)} r{register}, {target()}"
            case 4:
                return f"ldrd r{register}, r{register + 1}, {target()}"
            case 5:
                return f"{chance.choice(('adr', 'adreq'))} r{register}, {target()}"
            case 6:
                constant = chance.choice((0, 255, 0x1FE, 0xFF000000, 0x12345678, -1, -256, 0x101, 0x7FFFFFFF))
                return f"ldr r{register}, ={constant}"
            case 7:
                return f"ldr r{register}, ={target()}"
            case 8:
                return f"{chance.choice(('vldr d', 'vstr s'))}{register}, {target()}"
            case 9:
                halves = ("movw", "lower"), ("movt", "upper"), ("movt", "lower")
                move, half = chance.choices(halves, (8, 8, 1))[0]
                return f"{move} r{register}, #:{half}16:{chance.choice(names)}"
            case 10:
                return f".word {target()}, {chance.choice(names)} - {chance.choice(names)}, 'A' + 3*4"
            case _:
                return f"mov r0, #({chance.choice(names)} - {chance.choice(names)}) & 0xff"

    def filling() -> str:
        kind = chance.random()
        if kind < 0.5:
            return chance.choice(_PLAIN)
        if kind < 0.75:
            size = chance.choice((4, 16, 64, 244, 256, 1008, 1024, 3000, 4076, 4096)) + chance.choice((-4, 0, 4, 8))
            return f".space {max(size, 4)}"
        return chance.choice((".balign 8, 0", ".ltorg", ".byte 1; .align", '.asciz "abc"; .align 2', ".hword 1, 2"))

    lines = [*(f"{name}:" for name in names), "1:", "2:", "1:"]
    lines += [reference() for _ in range(chance.randint(1, 6))]
    lines += [filling() for _ in range(chance.randint(1, 8))]
    chance.shuffle(lines)
    return "\n".join([".syntax unified", *lines, ".ltorg"]) + "\n"
