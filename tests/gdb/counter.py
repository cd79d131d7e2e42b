"""A guest for tests of the debugger, and where its instructions are."""

from __future__ import annotations

from dbt.abi.addresses import Gva
from tests.vm.programs import BASE

RAM = 1 << 20
#: Calls a function that stores and loads a counter, R6 times. ``store`` is the word that stores it.
COUNTER = """
    start:  ldr r6, =3000
            ldr r5, =0x20000
            mov r7, #0
    loop:   bl count
            subs r6, r6, #1
            bne loop
            mov r2, #7
            b end
    count:  ldr r4, [r5]
            add r4, r4, #1
    store:  str r4, [r5]
            add r7, r7, r4
            ldr r3, [r5, #64]
            bx lr
    end:
"""
WORDS = {"loop": 3, "count": 8, "load": 8, "store": 10, "beside": 12}
PLACES = {name: Gva(BASE + 4 * word) for name, word in WORDS.items()}
COUNTED = Gva(0x20000)

#: Counts at COUNTED in each interrupt of a timer (SP804, every 2 us, which is 200 instructions), up to 12.
TIMED = """
    ldr r0, =0xe59ff018          @ ldr pc, [pc, #24]
    mov r1, #0x18
    str r0, [r1]
    adr r0, handler
    str r0, [r1, #32]
    ldr r5, =0x20000
    ldr r0, =0x10140000          @ PL190: the timer's line
    mov r1, #16
    str r1, [r0, #0x10]
    ldr r0, =0x101e2000          @ SP804
    mov r1, #2
    str r1, [r0]
    mov r1, #0xe2
    str r1, [r0, #8]
    msr cpsr_c, #0xd2
    ldr sp, =0x30000
    msr cpsr_c, #0x53
wait:
    add r7, r7, #1
    ldr r4, [r5]
    cmp r4, #12
    bne wait
    mov r2, #9
    b end
handler:
    push {r0, r1}
    ldr r0, =0x101e2000
    str r0, [r0, #12]
    ldr r1, [r5]
    add r1, r1, #1
    str r1, [r5]
    pop {r0, r1}
    subs pc, lr, #4
end:
"""
