"""Devices that native code serves by their own methods, and nobody can tell."""

from __future__ import annotations

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.engine.observer import Observer
from dbt.host.console import CaptureConsole
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT, MODES

#: Reads what it can of the timers and counters, in all widths, until timer 0 has counted to its limit; then waits for
#: timer 1 to interrupt, looks at it and at the counters again, and sets it anew, by a store of several words of which
#: the third brings the next event nearer. R8 is a sum of all that was read.
_POLLS = f"""
    ldr r6, =0x101e2000 ; ldr r0, =0xffffffff ; str r0, [r6] ; mov r1, #0xc2 ; str r1, [r6, #8]
    ldr r7, =0x10000000 ; mov r8, #0 ; mov r11, #3
again:
    ldr r3, [r6, #4]
wait:
    ldr r4, [r6, #4] ; sub r5, r3, r4 ; add r8, r4, r8, ror #3
    ldr r2, [r7, #0x5c] ; eor r8, r2, r8, ror #5
    ldrh r2, [r7, #0x5e] ; add r8, r8, r2
    ldrb r2, [r6, #5] ; add r8, r8, r2, lsl #7
    ldm r6, {{r0, r1, r2}} ; add r8, r8, r1, ror #9
    cmp r5, #200 ; blo wait
    mov r0, #70 ; mov r1, #0 ; mov r2, #0xe3 ; add r9, r6, #0x20 ; stm r9, {{r0, r1, r2, r3}}
expect:
    ldr r2, [r7, #0x5c] ; eor r8, r2, r8, ror #1
    ldr r2, [r6, #0x30] ; ldr r0, [r6, #0x34] ; add r8, r8, r0 ; cmp r2, #0 ; beq expect
    str r2, [r6, #0x2c] ; ldr r2, [r6, #0x30] ; add r8, r8, r2, lsl #20
    ldr r2, [r7, #0x24] ; add r8, r8, r2
    subs r11, r11, #1 ; bne again
    mov r2, #0 ; {EXIT}
"""


@pytest.mark.parametrize("fuel", [1 << 40, 997, 10_007])
def test_every_tier_reads_the_same(fuel: int) -> None:
    """Cut into slices of any length, each of which forgets what is known."""
    ends = set()
    for tier, jit in MODES:
        machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole())
        machine.load_bytes(assemble(_POLLS, BASE), BASE)
        while (result := machine.run(fuel=fuel)).reason is StopReason.FUEL:
            pass
        assert result.exit_code == 0
        ends.add((result.icount, machine.r[8], state_hash(machine)))
        if tier != "reference" and fuel > 1000:
            assert machine.cpu.native("device_answers") > 1000
    assert len(ends) == 1


class Accesses(Observer):
    def __init__(self) -> None:
        self.found: list[int] = []

    def device_accessed(self, gpa: Gpa, size: int, value: int, write: bool) -> None:
        self.found.append(gpa)


def test_each_word_of_a_store_is_written_once() -> None:
    """The third brings the next event nearer, so that the slice has fewer instructions than before."""
    accesses = Accesses()
    machine = Machine(1 << 20, tier="threaded", console=CaptureConsole(), observer=accesses)
    code = f"""
        ldr r6, =0x101e2000 ; mov r0, #2 ; mov r1, #0 ; mov r2, #0xe3 ; stm r6, {{r0, r1, r2, r3}}
        mov r2, #0 ; {EXIT}
    """
    machine.load_bytes(assemble(code, BASE), BASE)
    assert machine.run().exit_code == 0
    assert accesses.found == [0x101E2000, 0x101E2004, 0x101E2008, 0x101E200C]


def test_a_write_to_any_device_is_noticed() -> None:
    """The timer is stopped and loaded anew while its value is polled."""
    code = f"""
        ldr r6, =0x101e2000 ; mov r0, #100 ; str r0, [r6] ; mov r1, #0xc2 ; str r1, [r6, #8]
        ldr r2, [r6, #4] ; ldr r2, [r6, #4]
        mov r1, #0 ; str r1, [r6, #8] ; ldr r10, [r6, #4] ; ldr r4, [r6, #4]
        mov r1, #77 ; str r1, [r6] ; ldr r5, [r6, #4] ; ldr r7, [r6, #4]
        mov r2, #0 ; {EXIT}
    """
    for tier in ("reference", "threaded"):
        machine = Machine(1 << 20, tier=tier, console=CaptureConsole())
        machine.load_bytes(assemble(code, BASE), BASE)
        assert machine.run(fuel=100).exit_code == 0
        assert (machine.r[10], machine.r[4], machine.r[5], machine.r[7]) == (99, 99, 77, 77)
