"""Stitched code beneath an MMU: second mappings of a page, pages that are mapped elsewhere, and interrupts anywhere."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from dbt import Machine
from dbt.engine.threaded import ThreadedTier
from dbt.host.console import CaptureConsole
from dbt.vm.state import state_hash
from isa.arm.state import Mode
from tests.assembler import assemble
from tests.hypervisor.remapping import flush, machine, remap
from tests.oracle.programs import require_same_state

KINDS = ("reference", "threaded", "stitched", "warm")


@pytest.mark.parametrize("seed", range(6))
def test_pages_that_are_mapped_several_times_and_elsewhere(seed: int) -> None:
    machines = [machine(kind, seed) for kind in KINDS]
    random = Random(f"{seed}/steps")
    for step in range(80):
        change = random.randrange(8)
        count = random.choice((1, 3, 20, 150, 700, 2500))
        number = random.random()
        for each in machines:
            if change == 0:
                remap(each, Random(number))
                flush(each)
            elif change == 1:
                each.cpu.switch_mode(Mode.USER if each.cpu.mode != Mode.USER else Mode.SUPERVISOR)
            each.advance(count)
        require_same_state(machines, f"seed {seed}, step {step}")
        if machines[0].ended:
            break
    warm = machines[-1].tier
    assert isinstance(warm, ThreadedTier) and warm.stitched is not None
    assert warm.stitched.count("insns") > 30 and warm.stitched.count("pages") >= 3
    for each in machines:
        each.close()


#: The handler counts in R0 of its mode's bank and in RAM, and lets the timer ring again after another time.
_HANDLER = """
    push {r0, r1, r2, lr} ; ldr r1, =0x101e2000 ; str r1, [r1, #0xc]
    mov r2, #0x2000 ; ldr r0, [r2] ; add r0, r0, #1 ; str r0, [r2] ; ldr r1, =0x101e2000
    and r0, r0, #0x3f ; add r0, r0, #NUMBER ; str r0, [r1] ; ldr r0, [sp, #12] ; str r0, [r2, #4]
    pop {r0, r1, r2, lr} ; subs pc, lr, #4
"""
_WORK = """
    msr cpsr_c, #0xd2 ; mov sp, #0x7000 ; msr cpsr_c, #0xd3 ; mov sp, #0x6000
    ldr r9, =0x101e2000 ; mov r0, #90 ; str r0, [r9] ; mov r0, #0xe2 ; str r0, [r9, #8]
    ldr r9, =0x10140000 ; mov r0, #0x10 ; str r0, [r9, #0x10] ; msr cpsr_c, #0x53
    mov r11, #4000 ; mov r8, #0x20000
loop: adds r0, r0, r11, ror #3 ; eors r3, r0, r11, lsl #3 ; strmi r3, [r8], #4 ; ldrpl r4, [r8, #-4]
    adcs r5, r4, r0 ; addcs r6, r6, #1 ; bl sub ; bic r8, r8, #0x800 ; subs r11, r11, #1 ; bne loop ; end: b end
sub: push {r4, r5, lr} ; umull r4, r5, r0, r11 ; tst r4, #1 ; popeq {r4, r5, pc} ; addvs r7, r4, r5 ; pop {r4, r5, pc}
"""


@pytest.mark.parametrize("number", range(1, 40, 6))
def test_interrupts_at_every_instruction_of_warm_code(number: int) -> None:
    """The timer rings after another number of instructions each time. R14 of the handler is in RAM."""
    states = {}
    for tier in ("reference", "threaded", "stitched"):
        with _interrupted(tier, number) as machine:
            found = []
            for fuel in (1000, 20_000, 7, 19_993, 30_000):
                machine.run(fuel=fuel)
                found.append((machine.icount, state_hash(machine), machine.read(0x2000, 8)))
            assert int.from_bytes(machine.read(0x2000, 4), "little") > 60
            states[tier] = found
            if tier == "stitched":
                assert isinstance(machine.tier, ThreadedTier) and machine.tier.stitched is not None
                assert machine.tier.stitched.count("insns") > 10
    assert states["threaded"] == states["reference"] and states["stitched"] == states["reference"]


def _interrupted(tier: Any, number: int) -> Machine:
    machine = Machine(1 << 20, tier=tier, console=CaptureConsole(), insn_ns=100)
    machine.write(0x18, assemble("b 0x1000", 0x18))
    machine.write(0x1000, assemble(_HANDLER.replace("NUMBER", str(number)), 0x1000))
    machine.write(0x8000, assemble(_WORK, 0x8000))
    machine.pc = 0x8000
    return machine
