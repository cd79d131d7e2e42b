"""A guest that waits for timers again and again, and who completes its waits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dbt import CaptureConsole, Machine
from dbt.vm.options import TierName
from dbt.vm.vcpu import Vcpu
from tests.assembler import assemble

BASE, RAM = 0x10000, 1 << 20
TABLE = 0x20000
#: The lines of the interrupt controller at which the two pairs of timers are.
LINES = 0x30


def program(entries: int) -> bytes:
    """Waits once for each entry of a table: four words, which are how long two timers run, and how, and what is masked.

    The handler of IRQ writes down which interrupt it was, and the value of the counters.
    """
    return assemble(
        f"""
            mov r1, #0x18 ; ldr r3, =0xe59ff018 ; str r3, [r1]
            adr r3, irq ; str r3, [r1, #0x20]
            msr cpsr_c, #0xd2 ; mov sp, #0x8000
            msr cpsr_c, #0xd3
            ldr r4, =0x10140000 ; mov r0, #{LINES} ; str r0, [r4, #0x10]
            ldr r5, =0x101e2000 ; ldr r6, =0x101e3000 ; ldr r10, ={TABLE:#x} ; ldr r11, ={TABLE + 0x10000:#x}
            ldr r12, ={TABLE + 16 * entries:#x}
        next:
            ldm r10!, {{r0, r1, r2, r3}}
            str r0, [r5] ; str r2, [r5, #8] ; str r1, [r6] ; mov r2, r2, lsr #8 ; str r2, [r6, #8]
            msr cpsr_c, r3
            wfi
            add r9, r9, #1
            msr cpsr_c, #0xd3
            ldr r0, [r4] ; str r0, [r11], #4 ; ldr r0, [r5, #4] ; str r0, [r11], #4
            str r0, [r5, #0xc] ; str r0, [r6, #0xc]
            cmp r10, r12 ; blo next
            mov r0, #0x18 ; ldr r1, =0x20026 ; svc #0x123456
        irq:
            ldr r8, [r6, #4] ; str r8, [r11], #4 ; str r8, [r5, #0xc] ; str r8, [r6, #0xc]
            subs pc, lr, #4
            .ltorg
        """,
        BASE,
    )


def table(seed: int, entries: int) -> bytes:
    chance = random.Random(seed)
    words = []
    for _ in range(entries):
        # One shot or periodic, with 32 bits and an interrupt; or without one, so that nobody is told of the event.
        kinds = [0xA3, 0xE2, 0xA2, 0x82, 0xC2]
        first, second = chance.choice(kinds[:3]), chance.choice(kinds)
        if chance.random() < 0.5:
            first, second = second, first
        words += [chance.choice((1, 2, 3, 40, 700)), chance.choice((1, 2, 5, 90, 800))]
        words += [first | second << 8, chance.choice((0x13, 0x93, 0xD3, 0x1F))]
    return b"".join(word.to_bytes(4, "little") for word in words)


def machine_for(tier: TierName, seed: int = 0, entries: int = 40, **options: object) -> Machine:
    options = {"console": CaptureConsole(), "jit": "sync", "cpu": "cortex-a8", **options}
    machine = Machine(RAM, tier, **options)  # type: ignore[arg-type]
    machine.load_bytes(program(entries), base=BASE)
    machine.write(TABLE, table(seed, entries))
    return machine


@contextmanager
def waits_in_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yield the list of the ticks at which waits begin that Python completes."""
    found: list[int] = []
    begin_wait = Vcpu.begin_wait

    def note(vcpu: Vcpu) -> None:
        found.append(vcpu.now())
        begin_wait(vcpu)

    with monkeypatch.context() as patch:
        patch.setattr(Vcpu, "begin_wait", note)
        yield found
