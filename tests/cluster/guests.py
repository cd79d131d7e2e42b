"""Guests of clusters, which send frames and answer them."""

from __future__ import annotations

from dbt import Machine, Net
from dbt.host.console import Console
from dbt.hypervisor.carrier import Boot
from dbt.vm.options import TierName
from tests.assembler import assemble

BASE = 0x40008000
#: A frame begins here, behind the header.
_FRAME = 0x400A000C
_CARD = """
    ldr r4, =0x0a003e00 ; ldr r5, =0x40080000 ; ldr r6, =0x40090000
    mov r0, #3 ; str r0, [r4, #0x70] ; mov r0, #1 ; str r0, [r4, #0x24] ; str r0, [r4, #0x20]
    mov r0, #11 ; str r0, [r4, #0x70]
    mov r0, #0 ; str r0, [r4, #0x30] ; mov r7, r5 ; bl queue
    mov r0, #1 ; str r0, [r4, #0x30] ; mov r7, r6 ; bl queue
    ldr r0, =0x400b0000 ; str r0, [r5] ; ldr r1, =2048 ; str r1, [r5, #8] ; mov r1, #2 ; strh r1, [r5, #12]
    ldr r0, =0x400a0000 ; str r0, [r6] ; mov r1, #72 ; str r1, [r6, #8]
    mov r0, #15 ; str r0, [r4, #0x70]
    mov r8, #0 ; mov r9, #1 ; add r1, r5, #0x1000 ; strh r9, [r1, #2] ; mov r0, #0 ; str r0, [r4, #0x50]
"""
_ENDS = """
send:
    ldr r2, =0x400a0000 ; ldr r3, [r2, #28] ; add r3, r3, #1 ; str r3, [r2, #28]
    add r8, r8, #1 ; add r1, r6, #0x1000 ; strh r8, [r1, #2] ; mov r0, #1 ; str r0, [r4, #0x50]
    bx lr
queue:
    mov r0, #8 ; str r0, [r4, #0x38]
    str r7, [r4, #0x80] ; add r7, r7, #0x1000 ; str r7, [r4, #0x90] ; add r7, r7, #0x1000 ; str r7, [r4, #0xa0]
    mov r0, #1 ; str r0, [r4, #0x44] ; bx lr
"""
CODE = {
    # Sends a frame in each millisecond or so, and mixes what comes into R11. R10 counts what comes.
    "chatter": f"""{_CARD}
next:
    ldr r12, =50000
1:  subs r12, r12, #1 ; bne 1b
    bl send
    add r1, r5, #0x2000 ; ldrh r0, [r1, #2] ; add r0, r0, #1 ; cmp r0, r9 ; beq next
    ldr r2, =0x400b0000 ; ldr r3, [r2, #28] ; add r11, r3, r11, ror #7 ; add r10, r10, #1
    add r9, r9, #1 ; add r1, r5, #0x1000 ; strh r9, [r1, #2] ; mov r0, #0 ; str r0, [r4, #0x50]
    b next
{_ENDS}""",
    # Sends a frame for each byte that comes at its UART, and writes the byte. It polls.
    "typist": f"""{_CARD}
    ldr r7, =0x09000000
next:
    ldr r0, [r7, #0x18] ; tst r0, #0x10 ; bne next
    ldr r0, [r7] ; str r0, [r7] ; bl send
    b next
{_ENDS}""",
    # Waits for ever.
    "sleeper": "1: mcr p15, #0, r0, c7, c0, #4\n wfi\n b 1b",
    # Ends.
    "ends": "ldr r0, =0x84000008\n .word 0xe1400070",
}


def boot(name: str, hub: str = "lan", tier: TierName = "auto", insn_ns: int = 10) -> Boot:
    """A function that makes a machine with the guest of that name, whose card is at a hub."""
    code = assemble(CODE[name], BASE)

    def make(console: Console) -> Machine:
        machine = Machine(
            1 << 20,
            tier,
            console=console,
            jit="sync" if tier == "auto" else "off",
            cpu="cortex-a15",
            nets=[Net(f"hub:{hub}")],
            insn_ns=insn_ns,
        )
        machine.load_bytes(code, BASE)
        machine.write(_FRAME, (b"\xff" * 6 + b"\x02\0\0\0\0\1\x88\xb5").ljust(60, b"\0"))
        return machine

    return make
