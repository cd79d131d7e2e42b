"""Events that a kernel in user mode takes where it stands, and what it can do to the frame: alike in every tier."""

from __future__ import annotations

import random
import struct
from threading import Timer

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.hypervisor.xen.interface import FIRST_SHARED_PAGE
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import MODES, make_elf
from tests.vm.waits import waits_in_python
from tests.xen.guests import RAM, domain_machine
from tests.xen.pv import KERNEL_ROOT, KERNEL_TABLE, LEAF_PAGE, PAGE, READ, WRITE

#: Where the guest has RAM, its shared page, the frame, its variables, and its records and answers.
HIGH, SHARED, FRAME, STATE, PORT, RECORDS, ANSWERS = (
    *(0xC0000000, 0xC00FF000, 0xFFE00000, 0xC0060000, 0xC0061000, 0xC0070000, 0xC0090000),
)
#: Maps RAM, the page of its tables for reading, and the shared page. In user mode it binds a port to itself (bind_ipi)
#: and unmasks its events. Then it does BODY. STATE has the next record, where the next answer goes, and how many events
#: it has taken in the kernel.
_GUEST = f"""
    ldr r0, ={LEAF_PAGE} ; ldr r1, ={RAM} ; mov r2, #256 ; ldr r5, ={KERNEL_ROOT}
    next_page: ldr r3, ={WRITE & ~1} ; sub r4, r1, r5 ; cmp r4, #{LEAF_PAGE + PAGE - KERNEL_ROOT} ; bhs other
    ldr r3, ={READ & ~1}
    other: orr r3, r3, r1 ; str r3, [r0], #4 ; add r1, r1, #4096 ; subs r2, r2, #1 ; bne next_page
    ldr r3, ={FIRST_SHARED_PAGE | WRITE & ~1} ; str r3, [r0, #-4]
    ldr r0, ={KERNEL_ROOT + 4 * 0xC00} ; ldr r1, ={LEAF_PAGE | KERNEL_TABLE} ; str r1, [r0]
    adr r0, beginning ; mov r12, #48 ; .word 0xe140ea71
    b .
    .ltorg
    beginning: .word {KERNEL_ROOT}, 0x80000000 + high, 0xc0080000, 0x80000000 + traps
    traps: ldr r2, [r1, #80] ; cmp r2, #0 ; cmpne r0, #4 ; beq kernels ; any: b fault
    kernels: cmp r2, #0 ; beq any
    push {{r4, lr}} ; ldr r1, ={SHARED} ; mov r3, #0 ; strb r3, [r1] ; str r3, [r1, #8] ; str r3, [r1, #48]
    ldr r2, ={STATE} ; ldr r4, [r2, #8] ; add r4, r4, #1 ; str r4, [r2, #8] ; strb r3, [r1, #1]
    pop {{r4, lr}} ; mov r12, #51 ; svc #0
    off: ldr r1, ={STATE + 16} ; mov r0, #0 ; str r0, [r1] ; mov r0, #2 ; mov r12, #29 ; svc #0
    b .
    high: ldr r1, ={PORT} ; mov r0, #0 ; str r0, [r1] ; mov r0, #7 ; mov r12, #32 ; svc #0
    ldr r1, ={SHARED} ; mov r0, #0 ; strb r0, [r1, #1]
    BODY
    .ltorg
"""
#: Sends 300 events with other registers and flags each time, which have to be there afterwards. R9 counts those that
#: are not. Those of every fourth time are masked, and come with the next one.
_SEND = f"""
    mov r9, #0 ; mov r8, #300
    again: tst r8, #3 ; ldr r1, ={SHARED} ; moveq r0, #1 ; movne r0, #0 ; strb r0, [r1, #1]
    add r2, r8, r8, lsl #7 ; mvn r3, r2 ; eor r4, r2, r8, lsl #20 ; mov r5, r4, ror #3 ; mov r6, sp ; add r7, r2, r4
    mov lr, r7 ; mov r0, #4 ; ldr r1, ={PORT + 4} ; mov r12, #32 ; adds r10, r4, r4 ; mrs r10, apsr ; adds r11, r4, r4
    svc #0
    mrs r11, apsr ; cmp r10, r11 ; addne r9, r9, #1 ; cmp r0, #0 ; addne r9, r9, #1 ; cmp lr, r7 ; addne r9, r9, #1
    add r10, r8, r8, lsl #7 ; cmp r2, r10 ; addne r9, r9, #1 ; mvn r10, r10 ; cmp r3, r10 ; addne r9, r9, #1
    cmp r5, r4, ror #3 ; addne r9, r9, #1 ; cmp r6, sp ; addne r9, r9, #1 ; cmp r12, #32 ; addne r9, r9, #1
    subs r8, r8, #1 ; bne again ; b off
    fault: add r9, r9, #1000 ; b off
"""
#: Does what records say: a hypercall (R12, R0 to R2), or a store (0, address, value). The frame's PC is always `next`,
#: where the kernel goes on in whatever way iret leads there. What came of it goes to ANSWERS.
_FUZZ = f"""
    ldr r11, ={STATE} ; ldr r0, ={RECORDS} ; str r0, [r11] ; ldr r0, ={ANSWERS} ; str r0, [r11, #4]
    next: ldr r11, ={STATE} ; ldr r10, [r11] ; ldm r10!, {{r4, r5, r6, r7}} ; str r10, [r11]
    ldr r0, ={FRAME} ; adr r1, next ; str r1, [r0, #60]
    cmp r4, #255 ; beq off ; cmp r4, #0 ; streq r6, [r5] ; beq next
    mov r0, r5 ; mov r1, r6 ; mov r2, r7 ; mov r3, #0x7f00 ; orr r3, r3, #0xf0 ; mov r12, r4 ; svc #0
    bl note ; b next
    fault: mov r5, r0 ; ldr r2, ={SHARED} ; mov r3, #0 ; strb r3, [r2] ; str r3, [r2, #8] ; str r3, [r2, #48]
    ldr r0, [r1, #72] ; bl note ; ldr r0, [r1, #80] ; bl note ; mov r0, r5 ; bl note ; b next
    note: ldr r11, ={STATE} ; ldr r10, [r11, #4] ; str r0, [r10], #4 ; str r10, [r11, #4] ; bx lr
"""
#: Sets the timer 300 times, to other periods, and waits for its event each time, once in four with events masked.
_TICKS = f"""
    ldr r1, ={PORT + 16} ; mov r0, #0 ; str r0, [r1] ; str r0, [r1, #4] ; mov r0, #1 ; mov r12, #32 ; svc #0
    ldr r8, =300
    tick: ldr r1, ={SHARED} ; mov r0, #0 ; strb r0, [r1] ; str r0, [r1, #8] ; str r0, [r1, #48]
    tst r8, #3 ; moveq r0, #1 ; strb r0, [r1, #1]
    mov r0, #10240 ; add r0, r0, r8, lsl #6 ; mov r12, #52 ; svc #0
    mov r0, #1 ; mov r12, #29 ; svc #0
    subs r8, r8, #1 ; bne tick ; b off
    fault: b off
"""
#: Has a timer whose event is bound to no port, and waits.
_FOR_EVER = """
    mov r0, #10240 ; mov r12, #52 ; svc #0
    mov r0, #1 ; mov r12, #29 ; svc #0
    fault: b off
"""


def _load(machine: Machine, body: str) -> None:
    machine.load_bytes(make_elf(assemble(_GUEST.replace("BODY", body), RAM + 0x8000), base=RAM + 0x8000))


def test_registers_and_flags_are_as_before() -> None:
    ends = set()
    for tier, jit in MODES:
        with domain_machine(tier, jit=jit) as machine:
            _load(machine, _SEND)
            result = machine.run(fuel=200_000)
            assert result.reason is StopReason.EXITED, result
            assert machine.cpu.r[9] == 0
            assert int.from_bytes(machine.memory.read_ram(Gpa(STATE - HIGH + RAM + 8), 4), "little") == 225
            ends.add((result.icount, state_hash(machine)))
            assert machine.cpu.native("hypercalls") >= 300 or tier == "reference"
    assert len(ends) == 1


def test_a_kernel_waits_for_its_timer_alike_in_every_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code does it: Python completes no wait, but for the reference tier. How long it waited is a part of the
    state.
    """
    chance = random.Random(1)
    cuts = [chance.choice((1, 2, 5, 30, 200)) for _ in range(300)]
    ends = set()
    for tier, jit in MODES:
        for fuels in ([], cuts):
            with waits_in_python(monkeypatch) as begun, domain_machine(tier, jit=jit) as machine:
                _load(machine, _TICKS)
                for fuel in fuels:
                    assert machine.run(fuel=fuel).reason is StopReason.FUEL
                assert machine.run(fuel=200_000).reason is StopReason.EXITED
                assert bool(begun) == (tier == "reference")
                assert machine.vcpu.skipped > 300 * 800
                ends.add((machine.icount, machine.timeline.now, state_hash(machine)))
    assert len(ends) == 1


def test_a_kernel_that_waits_for_ever_can_be_interrupted() -> None:
    """Its timer rings and rings, in native code."""
    with domain_machine("threaded") as machine:
        _load(machine, _FOR_EVER)
        timer = Timer(0.3, machine.interrupt)
        timer.start()
        assert machine.run(timeout=60).reason is StopReason.INTERRUPTED
        timer.join()
        assert machine.vcpu.skipped > 64 * 1000


def _records(chance: random.Random, count: int) -> list[tuple[int, ...]]:
    """Return hypercalls, most of them with arguments that are there, and stores to what the hypervisor reads."""
    found: list[tuple[int, ...]] = []
    handles = (*[PORT + 4] * 8, PORT + 0xFFE, PORT, SHARED + 0xFFC, FRAME, 0xFFFF1FE0, 0x10, 0xC00FFFFE)
    tables = (KERNEL_ROOT + 0x3000, KERNEL_ROOT + 0x3FF8, LEAF_PAGE, LEAF_PAGE + 0x3FC, RAM, 0x39009000)
    stores = (
        *[(SHARED + 1, value) for value in (0, 0, 0, 0, 1)],
        *[(FRAME + 64, value & ~0x220) for value in (chance.getrandbits(32), 0xD3, 0x10, 0x1F, 0xFFFFFFFF)],
        *[(FRAME + 80, value) for value in (0, 1, 1, chance.getrandbits(32))],
        *[(FRAME + 68 + 4 * chance.randrange(4), chance.getrandbits(32))],
        *[(place, chance.getrandbits(32)) for place in (0xFFFF1FF4, 0xFFFF1FE4, HIGH + LEAF_PAGE - RAM, SHARED + 48)],
        (0xFFFF0008, 0),
    )
    for _ in range(count):
        handle = chance.choice(handles)
        match chance.randrange(10):
            case 0 | 1 | 2 | 3:
                place, value = chance.choice(stores)
                found.append((0, place, value, 0))
            case 4 | 5 | 6:
                found.append((32, chance.choice((4, 4, 4, 9, 3, 7)), handle, 0))
            case 7 | 8:
                found.append((51, *(chance.getrandbits(32) for _ in range(3))))
            case _:
                number = chance.choice((18, 29, 49, 50, 52, 53, 99))
                first = 0 if number == 18 else 0 if number == 29 else chance.choice(tables)
                found.append((number, first, chance.choice((0, 1, 2, 65)), chance.choice((0, handle))))
    return [*found, (255, 0, 0, 0)]


@pytest.mark.parametrize("seed", range(8))
def test_what_the_kernel_does_to_its_frame_has_the_same_effect_in_every_tier(seed: int) -> None:
    """It forges modes, masks and places to return to, and names handles that are not its own. It gets no privilege: the
    mode is always one of the monitor's with its code, or user mode.
    """
    records = _records(random.Random(seed), 400)
    ends = set()
    for tier, jit in MODES:
        with domain_machine(tier, jit=jit) as machine:
            _load(machine, _FUZZ)
            at = RECORDS - HIGH + RAM
            for number, record in enumerate(records):
                machine.memory.write_ram(Gpa(at + 16 * number), struct.pack("<4I", *record))
            for _ in range(60):
                result = machine.run(fuel=997)
                in_monitor = machine.cpu.r[15] >= 0xFFFF0000
                assert machine.icount < 5000 or in_monitor or machine.cpu["psr"] & 0x1F == 0x10
                if result.reason is not StopReason.FUEL:
                    break
            answers = machine.memory.read_ram(Gpa(ANSWERS - HIGH + RAM), 0x4000)
            ends.add((result.reason, result.icount, machine.cpu.r[15], answers, state_hash(machine)))
    assert len(ends) == 1
