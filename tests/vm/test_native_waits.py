"""Waits for interrupts that native code completes: nobody can tell, and it is not done where somebody would."""

from __future__ import annotations

import random

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.abi.exits import VmExit, WaitForInterrupt
from dbt.engine.observer import Observer
from dbt.vm.options import TIERS, TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.waits import BASE, RAM, machine_for, waits_in_python


@pytest.mark.parametrize("seed", range(12))
def test_every_tier_waits_alike_wherever_the_run_is_cut(seed: int) -> None:
    ends = set()
    chance = random.Random(seed)
    cuts = [chance.choice((1, 2, 3, 17, 100)) for _ in range(200)]
    for tier in TIERS:
        for fuels in ([10_000], cuts):
            with machine_for(tier, seed) as machine:
                reason = StopReason.FUEL
                for fuel in [*fuels, 10_000]:
                    if reason is StopReason.FUEL:
                        reason = machine.run(fuel=fuel).reason
                assert reason is StopReason.EXITED
                saved = machine.vcpu.save()
                assert isinstance(saved, dict) and isinstance(saved["exits"], dict)
                assert "interrupt" not in saved["exits"]
                counts = saved["completed"], sorted(machine.vcpu.event_counts.items())
                ends.add((machine.icount, machine.timeline.now, state_hash(machine), repr(counts)))
    assert len(ends) == 1


@pytest.mark.parametrize("tier", [tier for tier in TIERS if tier != "reference"])
def test_native_code_completes_waits(tier: TierName, monkeypatch: pytest.MonkeyPatch) -> None:
    with waits_in_python(monkeypatch) as waits, machine_for(tier) as machine:
        machine.run(fuel=10_000)
        assert not waits
        assert machine.r[9] == 40 and machine.vcpu.skipped > 1000


class Listening(Observer):
    """An observer that hears of exits, as that of a trace does."""

    def __init__(self) -> None:
        self.waits = 0

    def left_guest(self, exit_: VmExit) -> None:
        self.waits += isinstance(exit_, WaitForInterrupt)


class Watching:
    """A watcher of a run that never stops it."""

    goes_on, hears_exceptions = False, False

    def wants_stop(self) -> bool:
        return False

    def stops_in_handler(self, kind: object) -> bool:
        return False


def test_who_hears_of_waits_hears_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with machine_for("threaded") as machine:
        machine.run(fuel=10_000)
        end = machine.timeline.now, state_hash(machine)
    observer = Listening()
    with machine_for("threaded", observer=observer) as machine:
        machine.run(fuel=10_000)
        assert observer.waits == 40 and (machine.timeline.now, state_hash(machine)) == end
    with waits_in_python(monkeypatch) as waits, machine_for("threaded") as machine:
        machine.run(fuel=10_000, watcher=Watching())
        assert len(waits) == 40 and (machine.timeline.now, state_hash(machine)) == end
    with waits_in_python(monkeypatch) as waits, machine_for("threaded") as machine:
        machine.run_metered(10_000_000)
        assert len(waits) == 1  # and the run is over, for its host has others to do


def test_a_guest_that_expects_input_does_not_miss_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed comes at the first tick of a wait, and not after all the events that are due in a slice."""
    code = assemble(
        """
            ldr r4, =0x10140000 ; ldr r0, =0x1010 ; str r0, [r4, #0x10]
            ldr r8, =0x101f1000 ; mov r0, #0x10 ; str r0, [r8, #0x38]
            ldr r5, =0x101e2000 ; mov r0, #50 ; str r0, [r5] ; mov r0, #0xe2 ; str r0, [r5, #8]
        again: wfi
            str r0, [r5, #0xc]
            ldr r0, [r4] ; tst r0, #0x1000 ; beq again
            ldr r9, [r8]
            mov r0, #0x18 ; ldr r1, =0x20026 ; svc #0x123456
            .ltorg
        """,
        BASE,
    )
    console = CaptureConsole(b"x")
    with waits_in_python(monkeypatch) as waits, Machine(RAM, cpu="cortex-a8", console=console) as machine:
        machine.load_bytes(code, base=BASE)
        assert machine.run(fuel=10_000).reason is StopReason.EXITED
        assert machine.r[9] == ord("x") and waits and machine.timeline.now < 200


@pytest.mark.parametrize("shift", [20, 50, 53, 56, 58, 63])
def test_a_wait_of_years_ends_alike_in_every_tier(shift: int) -> None:
    """A compare value of the generic timer far ahead, and short waits afterwards, in which products have more bits."""
    compare = (1 << shift) - 1
    code = assemble(
        f"""
            ldr r4, =0x08000000 ; mov r0, #1 ; str r0, [r4] ; ldr r0, =0x7fffffff ; str r0, [r4, #0x100]
            ldr r5, =0x08010000 ; mov r0, #0xff ; str r0, [r5, #4] ; mov r0, #1 ; str r0, [r5]
            cpsid if
            ldr r0, ={compare & 0xFFFFFFFF} ; ldr r1, ={compare >> 32} ; mcrr p15, #2, r0, r1, c14
            mov r3, #1 ; mcr p15, #0, r3, c14, c2, #1
            wfi
            mov r11, #20
        again: mov r2, #300 ; mcr p15, #0, r2, c14, c2, #0 ; mcr p15, #0, r3, c14, c2, #1
            wfi
            mrrc p15, #0, r0, r1, c14 ; eor r8, r0, r8, ror #1 ; eor r8, r1, r8, ror #3
            subs r11, r11, #1 ; bne again
            mov r0, #0x18 ; ldr r1, =0x20026 ; svc #0x123456
            .ltorg
        """,
        0x40010000,
    )
    ends = set()
    for tier in TIERS:
        with Machine(1 << 20, tier, jit="sync", cpu="cortex-a15", board="virt", console=CaptureConsole()) as machine:
            machine.load_bytes(code, 0x40010000, 0x40010000)
            result = machine.run(fuel=10_000)
            assert result.reason is (StopReason.EXITED if shift < 58 else StopReason.HALTED)
            ends.add((result.icount, machine.timeline.now, machine.r[8], state_hash(machine)))
    assert len(ends) == 1
