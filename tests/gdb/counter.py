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
