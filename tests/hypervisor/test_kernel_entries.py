"""A kernel's way in and out: transfers of user mode's registers, SRS and RFE, over and over in the same pages."""

from __future__ import annotations

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble

#: Saves all registers of user mode as Linux does, counts in RAM, and lets the timer ring again after another time.
_HANDLER = """
    sub lr, lr, #4 ; srsdb sp!, #0x13 ; cpsid i, #0x13 ; stmdb sp, {r0-r14}^ ; nop ; sub sp, sp, #60
    ldr r1, =0x101e2000 ; str r1, [r1, #0xc] ; mov r2, #0x2000 ; ldr r0, [r2] ; add r0, r0, #1 ; str r0, [r2]
    and r0, r0, #0x3f ; add r0, r0, #NUMBER ; str r0, [r1]
    ldmia sp, {r0-r14}^ ; nop ; add sp, sp, #60 ; rfeia sp!
"""
_CALL = """
    srsdb sp!, #0x13 ; stmdb sp, {r0-r14}^ ; nop ; sub sp, sp, #60 ; mrs r3, spsr ; add r3, r3, #1
    ldmia sp, {r0-r14}^ ; nop ; add sp, sp, #60 ; rfeia sp!
"""
_WORK = """
    msr cpsr_c, #0xd2 ; mov sp, #0x7000 ; msr cpsr_c, #0xd3 ; mov sp, #0x6000
    ldr r9, =0x101e2000 ; mov r0, #90 ; str r0, [r9] ; mov r0, #0xe2 ; str r0, [r9, #8]
    ldr r9, =0x10140000 ; mov r0, #0x10 ; str r0, [r9, #0x10] ; msr cpsr_c, #0x50
    mov sp, #0x5000
loop: add r4, r4, #1 ; eor r5, r5, r4, ror #7 ; push {r4, r5} ; svc #1 ; pop {r6, r7} ; b loop
"""
_FUELS = (1000, 20_000, 7, 19_993)


def _machine(tier: TierName, number: int = 1) -> Machine:
    machine = Machine(1 << 20, tier=tier, console=CaptureConsole(), insn_ns=100)
    for vector, target in ((0x08, 0x1800), (0x18, 0x1000)):
        machine.write(vector, assemble(f"b {target:#x}", vector))
    machine.write(0x1000, assemble(_HANDLER.replace("NUMBER", str(number)), 0x1000))
    machine.write(0x1800, assemble(_CALL, 0x1800))
    machine.write(0x8000, assemble(_WORK, 0x8000))
    machine.pc = 0x8000
    return machine


@pytest.mark.parametrize("number", range(1, 40, 6))
def test_interrupts_come_at_the_same_instructions_in_every_tier(number: int) -> None:
    states = {}
    for tier in ("reference", "threaded", "stitched"):
        with _machine(tier, number) as machine:
            found = []
            for fuel in _FUELS:
                machine.run(fuel=fuel)
                found.append((machine.icount, state_hash(machine)))
            assert int.from_bytes(machine.read(0x2000, 4), "little") > 50
            states[tier] = found
    assert states["threaded"] == states["reference"] and states["stitched"] == states["reference"]


def test_a_run_can_end_at_every_instruction() -> None:
    with _machine("reference") as one, _machine("threaded") as other:
        for _ in range(300):
            for machine in (one, other):
                machine.run(fuel=1)
            assert state_hash(one) == state_hash(other)


def test_pages_that_are_known_are_not_looked_up_again() -> None:
    with _machine("threaded") as machine:
        machine.run(fuel=2000)
        before = machine.cpu.native("fills")
        machine.run(fuel=200_000)
        assert before > 0
        assert machine.cpu.native("fills") - before < 10
