"""Guests for domains: each does one thing for ever, or ends at once."""

from __future__ import annotations

from dataclasses import dataclass

from dbt import Machine, Net
from dbt.host.console import Console
from dbt.hypervisor.carrier import Boot
from dbt.vm.options import TierName
from tests.assembler import assemble
from tests.vm.ping_pong import BASE, CODE, FRAME, FRAME_AT

#: A timer of the board, and the interrupt controller, as the guests below use them.
_TIMER = """
    ldr r4, =0x10140000 ; mov r0, #0x10 ; str r0, [r4, #0x10]
    ldr r5, =0x101e2000 ; ldr r0, ={ticks} ; str r0, [r5] ; mov r0, #0xe2 ; str r0, [r5, #8]
"""
_VECTORS = """
    b start
    b undefined
    .space 16
    b irq
"""
GUESTS = {
    # Loops: in registers, on itself, and with loads and stores.
    "spinner": "mov r0, #0\n1: add r0, r0, #1\n eor r1, r1, r0\n add r2, r2, r1, lsl #3\n b 1b",
    "branch": "1: b 1b",
    "memory": """
        mov r3, #0x20000
    1:  add r0, r0, #1 ; and r4, r0, #0xff ; ldr r1, [r3, r4, lsl #2] ; add r1, r1, r0 ; str r1, [r3, r4, lsl #2]
        b 1b
    """,
    # Device accesses that Python answers, and such that native code answers.
    "mmio": "ldr r9, =0x10002000\nmov r0, #1\n1: str r0, [r9]\n str r0, [r9, #4]\n b 1b",
    "uart": "ldr r9, =0x101f1000\n1: ldr r0, [r9, #0x18]\n b 1b",
    "undefined": f"""{_VECTORS}
    start: add r1, r1, #1 ; .word 0xe7f000f0 ; b start
    undefined: add r0, r0, #1 ; movs pc, lr
    irq: b irq
    """,
    "flushes": "1: mcr p15, #0, r0, c8, c7, #0\n add r0, r0, #1\n b 1b",
    # Supervisor calls and data aborts that native code takes, and semihosting calls that it asks for within a slice.
    "calls": "b start\nnop\nmovs pc, lr\nstart: add r0, r0, #1\n svc #1\n b start",
    "aborts": """
        b start ; .space 12 ; b abort ; nop ; nop
    start: ldr r1, =0x20001
    1:  add r0, r0, #1 ; ldm r1, {r2, r4} ; b 1b
    abort: add r3, r3, #1 ; subs pc, lr, #4
    """,
    "errnos": "1: mov r0, #0x13\n svc 0x123456\n b 1b",
    # It computes for long, and then flushes the TLB for a while.
    "phases": """
    1:  ldr r1, =1000000
    2:  subs r1, r1, #1 ; bne 2b
        ldr r1, =3000
    3:  mcr p15, #0, r0, c8, c7, #0 ; subs r1, r1, #1 ; bne 3b
        b 1b
    """,
    # It waits for a timer of 10 ms, again and again, and counts in R6.
    "ticker": f"""{_VECTORS}
    undefined: b undefined
    start: {_TIMER.format(ticks=10_000)}
        msr cpsr_c, #0xd2 ; mov sp, #0x8000 ; msr cpsr_c, #0x53
    again: mcr p15, #0, r0, c7, c0, #4
        add r7, r7, #1 ; b again
    irq: ldr r5, =0x101e2000 ; str r5, [r5, #0xc] ; add r6, r6, #1 ; subs pc, lr, #4
    """,
    # Stores to a page more in each round, up to 512 of them, and then to all of them again.
    "grower": """
    1:  mov r0, #0x100000 ; mov r1, #512
    2:  str r1, [r0] ; add r0, r0, #4096 ; ldr r3, =2000
    3:  subs r3, r3, #1 ; bne 3b
        subs r1, r1, #1 ; bne 2b
        b 1b
    """,
    # It waits for ever.
    "sleeper": "1: mcr p15, #0, r0, c7, c0, #4\n b 1b",
    # It waits for bytes and sends them back.
    "echo": f"""{_VECTORS}
    undefined: b undefined
    start: ldr r4, =0x10140000 ; mov r0, #0x1000 ; str r0, [r4, #0x10]
        ldr r8, =0x101f1000 ; mov r0, #0x10 ; str r0, [r8, #0x38] ; ldr r0, =0x301 ; str r0, [r8, #0x30]
        msr cpsr_c, #0xd2 ; mov sp, #0x8000 ; msr cpsr_c, #0x53
    again: mcr p15, #0, r0, c7, c0, #4
        b again
    irq: ldr r0, [r8, #0x18] ; tst r0, #0x10 ; ldreq r0, [r8] ; streq r0, [r8] ; beq irq
        subs pc, lr, #4
    """,
    "exits": "mov r0, #0x18\nldr r1, =0x20026\nsvc 0x123456",
    # An undefined instruction where there is no handler.
    "crashes": ".word 0xe7f000f0",
    # It switches to Thumb, which nobody can execute.
    "thumb": "mov r0, #0x101\nbx r0",
    "resets": """
        ldr r3, =0x10000000 ; ldr r0, =0xa05f ; str r0, [r3, #0x20] ; mov r0, #0x107 ; str r0, [r3, #0x40]
    1:  b 1b
    """,
}


@dataclass(frozen=True)
class GuestBoot:
    """Makes a machine with a guest. It can be sent to another process."""

    code: bytes
    tier: TierName
    memory: int

    def __call__(self, console: Console) -> Machine:
        machine = Machine(self.memory, self.tier, console=console, jit="sync" if self.tier == "auto" else "off")
        machine.load_bytes(self.code, base=0, entry=0)
        return machine


def boot(name: str, tier: TierName = "auto", memory: int = 1 << 20) -> Boot:
    """A function that makes a machine with the guest of that name."""
    return GuestBoot(assemble(GUESTS[name], 0), tier, memory)


#: It asks the entropy device of the board virt for 64 bytes, again and again, and adds them up in R7. Its queue is at
#: 0x40010000. It is in the slot before the last
#: one, which the network card has.
ENTROPY = """
    ldr r8, =0x0a003c00
    mov r0, #1 ; str r0, [r8, #0x70] ; mov r0, #3 ; str r0, [r8, #0x70]
    mov r0, #1 ; str r0, [r8, #0x24] ; str r0, [r8, #0x20]
    mov r0, #11 ; str r0, [r8, #0x70]
    mov r0, #0 ; str r0, [r8, #0x30] ; mov r0, #8 ; str r0, [r8, #0x38]
    ldr r9, =0x40010000
    str r9, [r8, #0x80] ; add r0, r9, #0x100 ; str r0, [r8, #0x90] ; add r0, r9, #0x200 ; str r0, [r8, #0xa0]
    mov r0, #1 ; str r0, [r8, #0x44]
    mov r0, #15 ; str r0, [r8, #0x70]
    add r10, r9, #0x400 ; str r10, [r9] ; mov r0, #64 ; str r0, [r9, #8] ; mov r0, #2 ; str r0, [r9, #12]
    mov r6, #0
again:
    add r6, r6, #1
    add r11, r9, #0x100 ; strh r6, [r11, #2] ; mov r0, #0 ; str r0, [r8, #0x50]
    add r11, r9, #0x200
wait: ldrh r0, [r11, #2] ; cmp r0, r6 ; bne wait
    mov r1, #0
sum: ldr r0, [r10, r1] ; add r7, r0, r7, ror #7 ; add r1, r1, #4 ; cmp r1, #64 ; bne sum
    b again
"""


def entropy(console: Console) -> Machine:
    machine = Machine(1 << 20, board="virt", devices=["rng"], nets=[Net("none")], console=console, tier="stitched")
    machine.load_bytes(assemble(ENTROPY, 0x40000000), base=0x40000000)
    return machine


def ping_pong(console: Console) -> Machine:
    machine = Machine(1 << 20, "threaded", console=console, cpu="cortex-a15", nets=[Net("hub:domains")])
    machine.load_bytes(assemble(CODE, BASE), BASE)
    machine.write(FRAME_AT, FRAME.ljust(60, b"\0"))
    return machine
