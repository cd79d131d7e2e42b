"""A guest of the board virt that plays with frames with whoever is at the other end of its network."""

from __future__ import annotations

from tests.vm.programs import EXIT

BASE = 0x40008000
#: The beginning of the frames, and where the guest has the first one.
FRAME = b"\x52\x54\0\x12\x34\x56\x02\0\0\0\0\1\x88\xb5"
FRAME_AT = 0x400A000C
#: Starts the network card, sends a frame, and gives each frame that comes back to the network with its byte 14 one
#: more, until that is 20. Between, the guest computes.
CODE = f"""
    ldr r4, =0x0a003e00 ; ldr r5, =0x40080000 ; ldr r6, =0x40090000
    mov r0, #3 ; str r0, [r4, #0x70] ; mov r0, #1 ; str r0, [r4, #0x24] ; str r0, [r4, #0x20]
    mov r0, #11 ; str r0, [r4, #0x70]
    mov r0, #0 ; str r0, [r4, #0x30] ; mov r7, r5 ; bl queue
    mov r0, #1 ; str r0, [r4, #0x30] ; mov r7, r6 ; bl queue
    ldr r0, =0x400a0000 ; str r0, [r5] ; ldr r1, =2048 ; str r1, [r5, #8] ; mov r1, #2 ; strh r1, [r5, #12]
    str r0, [r6] ; mov r1, #72 ; str r1, [r6, #8]
    mov r0, #15 ; str r0, [r4, #0x70]
    mov r8, #0 ; mov r9, #0
    b send
next:
    add r9, r9, #1 ; add r1, r5, #0x1000 ; strh r9, [r1, #2] ; mov r0, #0 ; str r0, [r4, #0x50]
    add r1, r5, #0x2000
wait:
    add r10, r10, #1 ; ldrh r0, [r1, #2] ; cmp r0, r9 ; bne wait
    ldr r2, =0x400a0000 ; ldrb r3, [r2, #26] ; add r3, r3, #1 ; strb r3, [r2, #26]
    cmp r3, #20 ; bhs done
send:
    add r8, r8, #1 ; add r1, r6, #0x1000 ; strh r8, [r1, #2] ; mov r0, #1 ; str r0, [r4, #0x50]
    add r1, r6, #0x2000
sent:
    ldrh r0, [r1, #2] ; cmp r0, r8 ; bne sent
    b next
done:
    mov r2, r3 ; ldr sp, =0x40070000 ; {EXIT}
queue:
    mov r0, #8 ; str r0, [r4, #0x38]
    str r7, [r4, #0x80] ; add r7, r7, #0x1000 ; str r7, [r4, #0x90] ; add r7, r7, #0x1000 ; str r7, [r4, #0xa0]
    mov r0, #1 ; str r0, [r4, #0x44] ; bx lr
"""
