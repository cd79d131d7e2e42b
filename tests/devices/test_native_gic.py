"""The GIC and what interrupts through it, in every tier: the same interrupts at the same instructions."""

from __future__ import annotations

import struct
from random import Random

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.engine.tier import JitMode
from dbt.host.console import CaptureConsole
from dbt.memory.ram import RamRegion
from dbt.vm.machine import TierName
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.long import LONG
from tests.vm.programs import EXIT, MODES

BASE, _TABLE, _ANSWERS, _RECORD = 0x40010000, 0x40020000, 0x40080000, 16
_DISTRIBUTOR, _CPU_INTERFACE, _UART, _CLOCK, _GPIO = 0x08000000, 0x08010000, 0x09000000, 0x09010000, 0x09030000
#: Makes the accesses of a table: address, what (an index of the branches: 0 ends), value, and how often it counts down
#: afterwards. IRQs are taken: the handler acknowledges and notes them, sets the timer anew, masks those of devices, and
#: ends them. Where it finds none, it switches the CPU interface off. The vectors are at 0xffff0000, where RAM is, too.
_SEQUENCE = f"""
    ldr r0, =0xffff0018 ; ldr r1, =0xe51ff004 ; str r1, [r0] ; adr r1, handler ; str r1, [r0, #4]
    mrc p15, 0, r0, c1, c0, 0 ; orr r0, r0, #0x2000 ; mcr p15, 0, r0, c1, c0, 0
    ldr r10, ={_TABLE} ; ldr r11, ={_ANSWERS} ; mov r9, #0 ; ldr r8, ={_CPU_INTERFACE}
    cps #0x12 ; ldr sp, =0x40070000 ; cps #0x13
    mov r0, #3000 ; mcr p15, 0, r0, c14, c3, 0 ; mov r0, #1 ; mcr p15, 0, r0, c14, c3, 1
    cpsie i
next:
    ldm r10!, {{r4, r5, r6, r7}} ; mov r0, #0
    cmp r5, #1 ; blo end ; ldrbeq r0, [r4]
    cmp r5, #2 ; ldrheq r0, [r4]
    cmp r5, #3 ; ldreq r0, [r4]
    cmp r5, #4 ; strbeq r6, [r4]
    cmp r5, #5 ; strheq r6, [r4]
    cmp r5, #6 ; streq r6, [r4]
    cmp r5, #7 ; ldmeq r4, {{r0, r1}} ; addeq r0, r0, r1
    cmp r5, #8 ; stmeq r4, {{r6, r7}} ; moveq r7, #0
    str r0, [r11], #4
1:  subs r7, r7, #1 ; bpl 1b
    b next
end:
    cpsid i ; mov r2, #0 ; ldr sp, =0x40070000 ; {EXIT}
handler:
    sub lr, lr, #4 ; push {{r0, r1, r2, r3, lr}}
    add r9, r9, #1 ; ldr r0, [r8, #0xc] ; str r0, [r11], #4
    cmp r0, #27 ; ldreq r1, =0x12345 ; mcreq p15, 0, r1, c14, c3, 0
    cmp r0, #33 ; ldreq r1, ={_UART} ; ldreq r2, [r1] ; streq r2, [r11], #4 ; moveq r2, #0 ; streq r2, [r1, #0x38]
    cmp r0, #32 ; blo 2f ; and r1, r0, #31 ; mov r2, #1 ; lsl r2, r2, r1 ; lsr r1, r0, #5
    ldr r3, =0x08000180 ; str r2, [r3, r1, lsl #2]
2:  ldr r1, =1020 ; cmp r0, r1 ; strlo r0, [r8, #0x10]
    movhs r1, #0 ; strhs r1, [r8]
    pop {{r0, r1, r2, r3, lr}} ; movs pc, lr
"""
_LOADS, _STORES = {1: 1, 2: 2, 4: 3}, {1: 4, 2: 5, 4: 6}
#: Where accesses are made: base, first and last offset.
_PLACES = (
    *((_DISTRIBUTOR, 0, 0x10), (_DISTRIBUTOR, 0x80, 0x84), (_DISTRIBUTOR, 0x100, 0x10C), (_DISTRIBUTOR, 0x180, 0x18C)),
    *((_DISTRIBUTOR, 0x200, 0x20C), (_DISTRIBUTOR, 0x280, 0x28C), (_DISTRIBUTOR, 0x300, 0x30C)),
    *((_DISTRIBUTOR, 0x380, 0x38C), (_DISTRIBUTOR, 0x400, 0x460), (_DISTRIBUTOR, 0xC00, 0xC18)),
    *((_DISTRIBUTOR, 0xF00, 0xF04), (_DISTRIBUTOR, 0xF10, 0xF30), (_DISTRIBUTOR, 0, 0x1000)),
    *(
        (_CPU_INTERFACE, 0, 0x20),
        (_CPU_INTERFACE, 0, 0x20),
        (_CPU_INTERFACE, 0xD0, 0x100),
        (_CPU_INTERFACE, 0x1000, 0x1004),
    ),
    *((_UART, 0, 0x4C), (_CLOCK, 0, 0x20), (_GPIO, 0x3F0, 0x424)),
)


def random_accesses(random: Random, count: int) -> list[tuple[int, int, int, int]]:
    accesses: list[tuple[int, int, int, int]] = []
    for number in range(count):
        if number % 40 == 0:  # everything is switched on, as a kernel does, and something is pending
            accesses += [(_DISTRIBUTOR, 6, random.choice((1, 3)), 0), (_CPU_INTERFACE, 6, random.choice((1, 7, 5)), 0)]
            accesses += [(_CPU_INTERFACE + 4, 6, 0xF0, 0), (_DISTRIBUTOR + 0x100, 6, 1 << 27, 0)]
            accesses += [(_DISTRIBUTOR + 0x104, 6, 0xFF, 0), (_UART + 0x38, 6, 0x70, 0)]
            accesses += [(_DISTRIBUTOR + 0x380 + 4 * word, 6, 0xFFFFFFFF, 0) for word in range(3)]
            accesses += [(_CPU_INTERFACE + place, 6, 0, 0) for place in range(0xD0, 0xF0, 4)]
            accesses.append((_DISTRIBUTOR + 0xF00, 6, 0x02000000 | random.randrange(16), 50))
        base, first, last = random.choice(_PLACES)
        size = random.choice((1, 4, 4, 4, 4, 4))
        what = random.choice((_LOADS[size], _STORES[size], _STORES[size]))
        offset = random.randrange(first, last, size)
        if size == 4 and offset < last - 8 and not random.randrange(8):
            what = random.choice((7, 8))
        values = (
            random.getrandbits(32),
            random.getrandbits(8),
            random.randrange(300),
            1 << random.randrange(32),
            0x20001,
        )
        accesses.append((base + offset, what, random.choice(values), random.choice((0, 0, 1, 7, 100, 1000))))
    return accesses


def started(accesses: list[tuple[int, int, int, int]], tier: TierName, jit: JitMode, console: bytes) -> Machine:
    """A machine that is about to make the accesses."""
    regions = [RamRegion(Gpa(0x40000000), 1 << 20), RamRegion(Gpa(0xFFFF0000), 0x1000)]
    machine = Machine(regions, tier=tier, jit=jit, console=CaptureConsole(console), cpu="cortex-a15")
    machine.load_bytes(assemble(_SEQUENCE, BASE), BASE)
    table = b"".join(struct.pack("<4I", *access) for access in accesses) + bytes(_RECORD)
    machine.memory.write_ram(Gpa(_TABLE), table)
    return machine


def run_sequence(
    accesses: list[tuple[int, int, int, int]], tier: TierName, jit: JitMode, console: bytes, fuel: int
) -> Machine:
    """Make the accesses, in slices of at most ``fuel`` instructions."""
    machine = started(accesses, tier, jit, console)
    while (result := machine.run(fuel=fuel)).reason is StopReason.FUEL and machine.icount < 10_000_000:
        pass
    assert result.exit_code == 0, result
    return machine


@pytest.mark.parametrize("seed", range(5 if LONG else 2))
def test_every_tier_is_interrupted_alike(seed: int) -> None:
    random = Random(seed)
    accesses, console = random_accesses(random, 1500), random.randbytes(random.choice((0, 5, 300)))
    ends = set()
    for tier, jit in MODES:
        fuel = random.choice((10_000_000, 1009, 97))
        with run_sequence(accesses, tier, jit, console, fuel) as machine:
            answers = machine.memory.read_ram(Gpa(_ANSWERS), 0x8000)
            output = bytes(machine.console.output) if isinstance(machine.console, CaptureConsole) else b""
            ends.add((machine.icount, machine.r[9], answers, output, state_hash(machine)))
            assert machine.r[9] > 50
            assert tier == "reference" or machine.cpu.native("device_answers") > 1000
    assert len(ends) == 1


@pytest.mark.parametrize("tier", ["threaded", "auto"])
def test_a_machine_goes_on_from_any_point(tier: TierName) -> None:
    """With interrupts pending, active and preempted, and the timer running."""
    accesses = random_accesses(Random(77), 600)
    with run_sequence(accesses, tier, "sync", b"input", 10_000_000) as whole:
        wanted, icount = state_hash(whole), whole.icount
    machine = started(accesses, tier, "sync", b"input")
    for _ in range(40):
        machine.run(fuel=icount // 40)
        with machine.save() as state:
            again = Machine.restore(state, tier=tier, jit="sync", console=machine.console)
        machine.close()
        machine = again
    machine.run()
    assert state_hash(machine) == wanted
    machine.close()
