"""The generic timer: what its registers do, when its lines rise, and that every tier agrees about it.

Who may access it, and what its registers are at reset, is in tests/oracle/test_coprocessors.py.
"""

from __future__ import annotations

from random import Random

import pytest

from dbt import Machine
from dbt.abi.addresses import Gva
from dbt.abi.exits import Undefined
from dbt.board.timeline import Timeline
from dbt.devices.generic_timer import GenericTimer
from dbt.devices.performance_monitors import PerformanceMonitors
from dbt.devices.state import StateError
from dbt.host.console import CaptureConsole
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from isa.arm.private import (
    CONTROL,
    COUNT,
    CYCLES,
    ENABLE_SET,
    PHYSICAL_TIMER,
    TIMER_COMPARE,
    TIMER_CONTROL,
    TIMER_VALUE,
    VIRTUAL_TIMER,
)
from tests.assembler import assemble
from tests.devices.virtual_time import Line, VirtualTime
from tests.oracle.privileged import CODE, TIERS, Guest
from tests.vm.programs import EXIT, MODES

BASE = 0x40010000
_WORD = 0xFFFFFFFF


class Rig:
    """A timer with lines that a test looks at. Eight ticks are five counts."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.physical, self.virtual = Line(), Line()
        self.timer = GenericTimer(self.time.named(), self.physical, self.virtual)

    def compare(self, value: int) -> None:
        self.timer.write_register(PHYSICAL_TIMER + TIMER_COMPARE, value & _WORD, value >> 32)

    def control(self, value: int) -> None:
        self.timer.write_register(PHYSICAL_TIMER + TIMER_CONTROL, value, 0)

    @property
    def state(self) -> int:
        return self.timer.read_register(PHYSICAL_TIMER + TIMER_CONTROL)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_count_follows_from_the_time(rig: Rig) -> None:
    rig.time.tick = 100_000_000 * 70  # 70 seconds
    count = 62_500_000 * 70
    assert rig.timer.read_register(COUNT) == count & _WORD
    assert rig.timer.read_register(COUNT + 1) == count >> 32 == 1


def test_the_line_rises_with_the_first_tick_of_the_count(rig: Rig) -> None:
    rig.compare(1001)
    rig.control(1)
    rig.time.advance(1601)  # 1000.625 counts
    assert (rig.state, rig.physical.level) == (1, False)
    rig.time.advance(1)  # 1001.25
    assert (rig.state, rig.physical.level, rig.virtual.level) == (5, True, False)
    rig.time.advance(10_000)
    assert rig.timer.read_register(PHYSICAL_TIMER + TIMER_VALUE) == 1001 - 11602 * 5 // 8 & _WORD
    rig.control(0)
    assert (rig.state, rig.physical.level) == (0, False)


def test_a_masked_timer_shows_its_condition_and_keeps_its_line_low(rig: Rig) -> None:
    rig.compare(10)
    rig.control(3)
    assert rig.time.timeline.next_tick is None
    rig.time.advance(100)
    assert (rig.state, rig.physical.level) == (7, False)
    rig.control(1)
    assert (rig.state, rig.physical.level) == (5, True)
    rig.control(3)
    assert (rig.state, rig.physical.level) == (7, False)


def test_comparisons_have_64_bits_without_a_sign(rig: Rig) -> None:
    rig.control(1)
    for value in (1 << 63, (1 << 64) - 1, 1 << 62):
        rig.compare(value)
        assert (rig.state, rig.physical.level, rig.time.timeline.next_tick) == (1, False, None)
        assert rig.timer.read_register(PHYSICAL_TIMER + TIMER_COMPARE + 1) == value >> 32
        assert rig.timer.read_register(PHYSICAL_TIMER + TIMER_COMPARE) == value & _WORD
    rig.compare(0)
    assert (rig.state, rig.physical.level) == (5, True)


def test_timer_value_is_signed_and_counts_from_now(rig: Rig) -> None:
    rig.time.tick = 16_000
    rig.control(1)
    rig.timer.write_register(PHYSICAL_TIMER + TIMER_VALUE, 5, 0)
    assert rig.timer.read_register(PHYSICAL_TIMER + TIMER_COMPARE) == 10_005
    rig.time.advance(8)
    assert rig.physical.level
    rig.timer.write_register(PHYSICAL_TIMER + TIMER_VALUE, -7 & _WORD, 0)
    assert rig.timer.read_register(PHYSICAL_TIMER + TIMER_COMPARE) == 9998
    assert rig.physical.level


@pytest.mark.parametrize("insn_ns", [0.1, 1, 10, 1000])
def test_a_guest_that_has_waited_for_ages_is_served(insn_ns: float) -> None:
    time = VirtualTime()
    time.timeline = Timeline(lambda: time.tick, insn_ns)
    timer, monitors = GenericTimer(time.named("timer"), Line(), Line()), PerformanceMonitors(time.named("PMU"), Line())
    monitors.write_register(ENABLE_SET, 1 << 31, 0)
    monitors.write_register(CONTROL, 1, 0)
    for shift in range(40, 63):
        time.tick = 1 << shift
        timer.write_register(PHYSICAL_TIMER + TIMER_VALUE, 0x7FFFFFFF, 0)
        timer.write_register(PHYSICAL_TIMER + TIMER_CONTROL, 1, 0)
        assert timer.read_register(PHYSICAL_TIMER + TIMER_VALUE) == 0x7FFFFFFF
        assert 0 <= monitors.read_register(CYCLES) < 1 << 32
        timer.restore(timer.save())
        monitors.restore(monitors.save())
    time.timeline.run_due()


def test_what_is_saved_goes_on(rig: Rig) -> None:
    rig.timer.write_register(VIRTUAL_TIMER + TIMER_VALUE, 100, 0)
    rig.timer.write_register(VIRTUAL_TIMER + TIMER_CONTROL, 1, 0)
    other = Rig()
    other.timer.restore(rig.timer.save())
    other.time.timeline.restore(rig.time.timeline.save())
    for each in (rig, other):
        each.time.advance(159)
        assert not each.virtual.level
        each.time.advance(1)
        assert each.virtual.level
    bad = rig.timer.save()
    bad["timers"][0]["control"] = 4  # type: ignore[index]
    with pytest.raises(StateError):
        other.timer.restore(bad)


#: Reads and writes all registers, waits for each timer by polling and by WFI, and takes its interrupt. R8 is a sum of
#: all that was read, and R10 counts the interrupts.
_PROGRAM = f"""
    b start ; b . ; b . ; b . ; b . ; b .
irq:
    push {{r0-r3}}
    ldr r1, =0x08010000 ; ldr r2, [r1, #0xc] ; str r2, [r1, #0x10] ; add r8, r2, r8, ror #3
    mrrc p15, #1, r0, r1, c14 ; add r8, r0, r8, ror #5
    mov r3, #0 ; cmp r2, #27 ; mcreq p15, #0, r3, c14, c3, #1 ; mcrne p15, #0, r3, c14, c2, #1
    add r10, r10, #1
    pop {{r0-r3}} ; subs pc, lr, #4
start:
    adr r0, start ; bic r0, r0, #0xff ; mcr p15, #0, r0, c12, c0, #0
    cps #0x12 ; ldr sp, =0x40020000 ; cps #0x13 ; ldr sp, =0x40021000
    ldr r1, =0x08000000 ; mov r0, #1 ; str r0, [r1] ; ldr r0, =0x48000000 ; str r0, [r1, #0x100]
    ldr r1, =0x08010000 ; mov r0, #1 ; str r0, [r1] ; mov r0, #0xf0 ; str r0, [r1, #4]
    mov r8, #0 ; mov r10, #0 ; mov r11, #7
again:
    mrrc p15, #0, r0, r1, c14 ; add r8, r0, r8, ror #3
    ldr r2, =1000 ; mcr p15, #0, r2, c14, c2, #0 ; mov r3, #3 ; mcr p15, #0, r3, c14, c2, #1
poll:
    mrc p15, #0, r4, c14, c2, #1 ; mrc p15, #0, r5, c14, c2, #0 ; add r8, r5, r8, ror #7
    mrrc p15, #1, r6, r7, c14 ; eor r8, r8, r6
    tst r4, #4 ; beq poll
    cpsie i ; mov r3, #1 ; mcr p15, #0, r3, c14, c2, #1
    mrrc p15, #2, r6, r7, c14 ; eor r8, r8, r6, ror #9 ; add r8, r8, r10, lsl #4
    mrrc p15, #0, r0, r1, c14 ; adds r0, r0, #300 ; adc r1, r1, #0
    mcrr p15, #3, r0, r1, c14 ; mov r3, #1 ; mcr p15, #0, r3, c14, c3, #1
    mov r4, r10
run:
    add r8, r8, #1 ; cmp r4, r10 ; beq run
    ldr r2, =70000 ; mcr p15, #0, r2, c14, c3, #0 ; mcr p15, #0, r3, c14, c3, #1
    cpsid i ; wfi ; mrrc p15, #0, r0, r1, c14 ; eor r8, r0, r8, ror #1
    cpsie i ; add r8, r8, #1 ; cpsid i
    subs r11, r11, #1 ; bne again
    mov r2, #0 ; {EXIT}
    .ltorg
"""


@pytest.mark.parametrize("fuel", [1 << 40, 997, 10_007])
def test_every_tier_agrees(fuel: int) -> None:
    ends = set()
    for tier, jit in MODES:
        with Machine(4 << 20, tier=tier, jit=jit, console=CaptureConsole(), cpu="cortex-a15", board="virt") as machine:
            machine.load_bytes(assemble(_PROGRAM, BASE), BASE, BASE)
            while (result := machine.run(fuel=fuel)).reason is StopReason.FUEL:
                pass
            assert result.exit_code == 0, result.message
            assert machine.r[10] == 21
            if tier != "reference":
                assert machine.memory.device_accesses < 10  # the first one to each page
            ends.add((result.icount, machine.r[8], state_hash(machine)))
    assert len(ends) == 1


def test_python_serves_what_native_code_cannot() -> None:
    """So it is for a guest that has waited for years, and for lines that only Python can drive."""
    ends = set()
    for native in (True, False):
        with Machine(4 << 20, tier="threaded", console=CaptureConsole(), cpu="cortex-a15", board="virt") as machine:
            machine.load_bytes(assemble(_PROGRAM, BASE), BASE, BASE)
            if not native:
                machine.cpu.set_native("private", 0)
            assert machine.run().exit_code == 0
            assert native == (machine.memory.device_accesses < 10)
            ends.add((machine.icount, machine.r[8], state_hash(machine)))
    assert len(ends) == 1


@pytest.mark.parametrize("tier", TIERS)
def test_a_processor_without_its_peripherals_has_no_registers_of_theirs(tier: str) -> None:
    guest = Guest(tier, cpu="cortex-a15")
    for register in ("0 c14 c2 0", "0 c14 c3 1", "0 c9 c13 0"):
        assert guest.read(register) == guest.write(register, 0) == Undefined(Gva(CODE))


_ACCESSES = (
    "mrrc p15, #{0}, r0, r1, c14", "mrc p15, #0, r0, c14, c2, #{0}", "mrc p15, #0, r0, c14, c3, #{0}",
    "mcr p15, #0, r4, c14, c2, #{0}", "mcr p15, #0, r4, c14, c3, #{0}", "mcrr p15, #2, r4, r5, c14",
    "mcrr p15, #3, r4, r5, c14", "add r4, r8, r4, ror #3", "and r5, r8, #1", "mov r4, #1",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_random_accesses_are_the_same_in_every_tier(seed: int) -> None:
    random = Random(seed)
    lines = [random.choice(_ACCESSES).format(random.randrange(2)) for _ in range(300)]
    source = "\n".join(f"{line} ; add r8, r0, r8, ror #1 ; eor r8, r8, r1" for line in lines)
    ends = set()
    for tier, jit in MODES:
        with Machine(4 << 20, tier=tier, jit=jit, console=CaptureConsole(), cpu="cortex-a7", board="virt") as machine:
            machine.load_bytes(assemble(f"{source}\nmov r2, #0\n{EXIT}\n.ltorg", BASE), BASE, BASE)
            assert machine.run().exit_code == 0
            ends.add((machine.icount, machine.r[8], state_hash(machine)))
    assert len(ends) == 1
