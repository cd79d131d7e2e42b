"""Slices that native code prolongs by itself: nobody can tell, and they end where they must."""

from __future__ import annotations

import random
import time

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.abi.exits import VmExit
from dbt.engine.observer import Observer
from dbt.vm.options import TierName
from dbt.vm.slice_sizer import SliceSizer
from dbt.vm.state import state_hash
from dbt.vm.vcpu import Vcpu
from tests.assembler import assemble
from tests.vm.waits import machine_for

NATIVE_TIERS: tuple[TierName, ...] = ("threaded", "stitched", "auto")
BASE = 0x10000
SPINNER = assemble("spin: add r0, r0, #1 ; b spin", BASE)
#: The guest asks for a reset, by the system registers, in the middle of a loop.
RESETTER = assemble(
    """
        ldr r4, =0x10000000 ; ldr r0, =0xa05f ; str r0, [r4, #0x20]
        mov r5, #5000
    count:
        subs r5, r5, #1 ; bne count
        mov r0, #0x104 ; str r0, [r4, #0x40]
    spin:
        add r6, r6, #1 ; b spin
        .ltorg
    """,
    BASE,
)


@pytest.fixture(params=(1, 7, 64, 1777))
def length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make all slices so long that they may be prolonged, which are so many instructions. Return how many."""
    number: int = request.param

    def begin_run(sizer: SliceSizer) -> None:
        sizer.budget = sizer._most = number

    monkeypatch.setattr(SliceSizer, "begin_run", begin_run)
    monkeypatch.setattr(SliceSizer, "learn", lambda *_: None)
    return number


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the list of slices: how many instructions each was to have, and how many have retired."""
    found: list[tuple[int, int]] = []
    run = Vcpu.run

    def note(vcpu: Vcpu, budget: int, limit: int = 0, look_at: int = 0) -> tuple[VmExit, int]:
        exit_, retired = run(vcpu, budget, limit, look_at)
        found.append((budget, retired))
        return exit_, retired

    monkeypatch.setattr(Vcpu, "run", note)
    return found


def machine_with(code: bytes, tier: TierName, **options: object) -> Machine:
    machine = Machine(1 << 20, tier, console=CaptureConsole(), jit="sync", **options)  # type: ignore[arg-type]
    machine.load_bytes(code, base=BASE)
    return machine


@pytest.mark.parametrize("tier", NATIVE_TIERS)
def test_a_slice_goes_on_in_native_code(tier: TierName, length: int, slices: list[tuple[int, int]]) -> None:
    with machine_with(SPINNER, tier) as machine:
        assert machine.run(fuel=1_000_000).reason is StopReason.FUEL
        assert machine.icount == 1_000_000
        assert machine.r[0] == 500_000
    assert max(retired for _, retired in slices) > 10 * length


@pytest.mark.parametrize("seed", range(3))
def test_interrupts_come_where_they_come_in_the_reference_tier(seed: int, length: int) -> None:
    chance = random.Random(seed)
    cuts = [chance.choice((1, 2, 3, 17, 1000)) for _ in range(60)]
    ends = set()
    for tier in ("reference", *NATIVE_TIERS):
        with machine_for(tier, seed, 300) as machine:
            reason = StopReason.FUEL
            for fuel in [*cuts, 100_000]:
                if reason is StopReason.FUEL:
                    reason = machine.run(fuel=fuel).reason
            assert reason is StopReason.EXITED
            counts = sorted(machine.vcpu.event_counts.items())
            ends.add((machine.icount, machine.timeline.now, state_hash(machine), repr(counts)))
    assert len(ends) == 1


@pytest.mark.parametrize("tier", NATIVE_TIERS)
def test_a_request_for_a_reset_ends_the_slice(tier: TierName, length: int) -> None:
    with machine_with(RESETTER, tier) as machine:
        result = machine.run(fuel=1_000_000)
        assert result.reason is StopReason.EXITED and "reset" in result.message
        assert machine.r[6] == 0


def test_the_host_s_clock_ends_a_slice(length: int, slices: list[tuple[int, int]]) -> None:
    """The time limit is looked at by Python, and is kept although all of the fuel would fit in a slice."""
    began = time.monotonic()
    with machine_with(SPINNER, "auto") as machine:
        assert machine.run(fuel=1 << 39, timeout=0.2).reason is StopReason.TIMEOUT
    assert len(slices) > 2
    assert time.monotonic() - began < 20


class Listening(Observer):
    """An observer that hears of exits, as that of a trace does."""

    hears_exits = True


def test_no_slice_goes_on_where_somebody_hears_of_exits(length: int, slices: list[tuple[int, int]]) -> None:
    with machine_with(SPINNER, "threaded", observer=Listening()) as machine:
        machine.run(fuel=10_000)
    assert max(retired for _, retired in slices) <= length


def test_no_slice_of_a_metered_run_goes_on(length: int, slices: list[tuple[int, int]]) -> None:
    """It ends where the allowance does, from which native code takes what is charged."""
    with machine_with(SPINNER, "threaded") as machine:
        assert machine.run_metered(10_001).used == 10_001
    assert sum(retired for _, retired in slices) == 10_001
    assert all(retired <= budget for budget, retired in slices)
