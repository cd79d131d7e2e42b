"""The performance monitors: what counts cycles, when an overflow interrupts, and that every tier agrees about it.

What does not depend on the time is compared with QEMU in tests/oracle/test_coprocessors.py.
"""

from __future__ import annotations

import pytest

from dbt import Machine
from dbt.board.timeline import Timeline
from dbt.devices.performance_monitors import PerformanceMonitors
from dbt.devices.state import StateError
from dbt.host.console import CaptureConsole
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from isa.arm.private import (
    CONTROL,
    CYCLES,
    ENABLE_CLEAR,
    ENABLE_SET,
    EVENT_COUNT,
    EVENT_TYPE,
    INTERRUPT_SET,
    OVERFLOW_CLEAR,
    OVERFLOW_SET,
)
from tests.assembler import assemble
from tests.devices.virtual_time import Line, VirtualTime
from tests.long import LONG
from tests.vm.programs import EXIT, MODES

BASE = 0x40010000
_CYCLE, _FIRST = 1 << 31, 1 << 0
_CYCLE_EVENT = 0x11


class Rig:
    """Monitors with a line that a test looks at. A tick is ten cycles."""

    def __init__(self) -> None:
        self.time, self.line = VirtualTime(), Line()
        self.monitors = PerformanceMonitors(self.time.named(), self.line)
        self.read = self.monitors.read_register

    def write(self, number: int, value: int) -> None:
        self.monitors.write_register(number, value, 0)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_cycles_are_nanoseconds_while_they_are_enabled(rig: Rig) -> None:
    rig.time.advance(50)
    assert rig.read(CYCLES) == 0
    rig.write(ENABLE_SET, _CYCLE)
    rig.time.advance(50)
    assert rig.read(CYCLES) == 0
    rig.write(CONTROL, 1)
    rig.time.advance(50)
    assert rig.read(CYCLES) == 500
    rig.write(ENABLE_CLEAR, _CYCLE)
    rig.time.advance(50)
    assert rig.read(CYCLES) == 500
    rig.write(CONTROL, 5)
    assert (rig.read(CYCLES), rig.read(CONTROL)) == (0, 1)


def test_a_divided_cycle_counter_counts_every_64th(rig: Rig) -> None:
    rig.write(ENABLE_SET, _CYCLE | _FIRST)
    rig.write(EVENT_TYPE, _CYCLE_EVENT)
    rig.write(CONTROL, 9)
    for _ in range(10):
        rig.time.advance(9)
        rig.read(CYCLES)
    assert (rig.read(CYCLES), rig.read(EVENT_COUNT)) == (900 // 64, 900)


@pytest.mark.parametrize("divided", [0, 8])
def test_an_overflow_interrupts_at_its_tick(rig: Rig, divided: int) -> None:
    rig.write(ENABLE_SET, _CYCLE)
    rig.write(CYCLES, 0xFFFFFF00)
    rig.write(INTERRUPT_SET, _CYCLE)
    rig.write(CONTROL, 1 | divided)
    last = (256 * (64 if divided else 1) + 9) // 10 - 1
    rig.time.advance(last)
    assert (rig.line.level, rig.read(OVERFLOW_SET)) == (False, 0)
    rig.time.advance(1)
    assert (rig.line.level, rig.read(OVERFLOW_SET)) == (True, _CYCLE)
    rig.write(OVERFLOW_CLEAR, _CYCLE)
    assert (rig.line.level, rig.read(OVERFLOW_SET)) == (False, 0)


@pytest.mark.parametrize(("insn_ns", "ticks"), [(0.1, 2560), (0.5, 512), (1, 256)])
def test_a_cycle_may_take_several_ticks(insn_ns: float, ticks: int) -> None:
    time, line = VirtualTime(), Line()
    time.timeline = Timeline(lambda: time.tick, insn_ns)
    monitors = PerformanceMonitors(time.named(), line)
    for number, value in ((ENABLE_SET, _CYCLE), (CYCLES, 0xFFFFFF00), (INTERRUPT_SET, _CYCLE), (CONTROL, 1)):
        monitors.write_register(number, value, 0)
    time.advance(ticks - 1)
    assert (line.level, monitors.read_register(CYCLES)) == (False, 0xFFFFFFFF)
    time.advance(1)
    assert (line.level, monitors.read_register(CYCLES)) == (True, 0)


def test_an_overflow_without_interrupt_needs_no_event(rig: Rig) -> None:
    rig.write(ENABLE_SET, _FIRST)
    rig.write(EVENT_TYPE, _CYCLE_EVENT)
    rig.write(EVENT_COUNT, 0xFFFFFFFF)
    rig.write(CONTROL, 1)
    assert rig.time.timeline.next_tick is None
    rig.time.advance(1)
    assert (rig.read(EVENT_COUNT), rig.read(OVERFLOW_SET), rig.line.level) == (9, _FIRST, False)


def test_states_do_not_depend_on_who_looked(rig: Rig) -> None:
    other = Rig()
    for each in (rig, other):
        each.write(ENABLE_SET, _CYCLE)
        each.write(CONTROL, 9)
        each.time.advance(12345)
    for _ in range(100):
        rig.time.advance(1)
        rig.read(CYCLES)
    other.time.advance(100)
    assert rig.monitors.save() == other.monitors.save()
    other.monitors.restore(rig.monitors.save())
    with pytest.raises(StateError):
        other.monitors.restore(rig.monitors.save() | {"settled": 1 << 40})


#: Counts cycles in two counters, one divided, until the overflow of the cycle counter interrupts. R8 is a sum of what
#: was read.
_PROGRAM = f"""
    b start ; b . ; b . ; b . ; b . ; b .
irq:
    push {{r0-r3}}
    ldr r1, =0x08010000 ; ldr r2, [r1, #0xc]
    mrc p15, #0, r0, c9, c12, #3 ; add r8, r8, r0 ; mcr p15, #0, r0, c9, c12, #3
    mrc p15, #0, r0, c9, c13, #0 ; eor r8, r0, r8, ror #3
    str r2, [r1, #0x10] ; add r10, r10, r2
    pop {{r0-r3}} ; subs pc, lr, #4
start:
    adr r0, start ; bic r0, r0, #0xff ; mcr p15, #0, r0, c12, c0, #0
    cps #0x12 ; ldr sp, =0x40020000 ; cps #0x13 ; ldr sp, =0x40021000
    ldr r1, =0x08000000 ; mov r0, #1 ; str r0, [r1] ; ldr r0, =0x00800000 ; str r0, [r1, #0x100]
    ldr r1, =0x08010000 ; mov r0, #1 ; str r0, [r1] ; mov r0, #0xf0 ; str r0, [r1, #4]
    mov r8, #0 ; mov r10, #0 ; mov r11, #5
    mov r0, #0x11 ; mcr p15, #0, r0, c14, c12, #2
    ldr r0, =0x80000004 ; mcr p15, #0, r0, c9, c12, #1 ; mcr p15, #0, r0, c9, c14, #1
    mov r0, #1 ; mcr p15, #0, r0, c9, c12, #0
    cpsie i
again:
    ldr r0, =0xffff0000 ; mcr p15, #0, r0, c9, c13, #0 ; mov r4, r10
count:
    mrc p15, #0, r0, c9, c13, #0 ; eor r8, r0, r8, ror #7 ; mrc p15, #0, r0, c14, c8, #2 ; add r8, r8, r0
    cmp r4, r10 ; beq count
    mrc p15, #0, r0, c9, c12, #0 ; eor r0, r0, #8 ; mcr p15, #0, r0, c9, c12, #0
    ldr r0, =0xffffff00 ; mcr p15, #0, r0, c9, c13, #0 ; mov r4, r10
run:
    add r8, r8, #1 ; cmp r4, r10 ; beq run
    subs r11, r11, #1 ; bne again
    mov r2, #0 ; {EXIT}
    .ltorg
"""


@pytest.mark.parametrize("fuel", [1 << 40, 1009] if LONG else [1009])
def test_every_tier_agrees(fuel: int) -> None:
    ends = set()
    for tier, jit in MODES:
        with Machine(4 << 20, tier=tier, jit=jit, console=CaptureConsole(), cpu="cortex-a15", board="virt") as machine:
            machine.load_bytes(assemble(_PROGRAM, BASE), BASE, BASE)
            while (result := machine.run(fuel=fuel)).reason is StopReason.FUEL:
                pass
            assert result.exit_code == 0, result.message
            assert machine.r[10] == 10 * 23
            ends.add((result.icount, machine.r[8], state_hash(machine)))
    assert len(ends) == 1
