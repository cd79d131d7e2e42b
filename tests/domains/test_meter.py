"""Runs within an allowance: exact for instructions, and each event is charged what the table says."""

from __future__ import annotations

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.abi.exits import VmExit
from dbt.board.clock import ticks_in
from dbt.vm.meter import CHARGES
from dbt.vm.options import TIERS, TierName
from dbt.vm.slice_sizer import SliceSizer
from dbt.vm.state import state_hash
from tests.domains.guests import boot


def machine(guest: str, tier: TierName = "auto") -> Machine:
    return boot(guest, tier)(CaptureConsole())


@pytest.mark.parametrize("tier", [*TIERS, "auto"])
@pytest.mark.parametrize("allowance", [1, 2, 999, 4096, 100_003])
def test_instructions_are_counted_exactly(tier: TierName, allowance: int) -> None:
    with machine("memory", tier) as guest, machine("memory", tier) as plain:
        for count in range(1, 4):
            run = guest.run_metered(allowance)
            assert (run.retired, run.charged, run.result.reason) == (allowance, 0, StopReason.FUEL)
            assert guest.icount == count * allowance
        plain.run(fuel=3 * allowance)
        assert state_hash(guest) == state_hash(plain)


@pytest.mark.parametrize(
    ("guest", "charge"),
    [
        ("mmio", CHARGES.device_access),
        ("uart", CHARGES.native_access),
        ("undefined", CHARGES.exit),
        ("flushes", CHARGES.tlb_flush),
    ],
)
@pytest.mark.parametrize("tier", ["threaded", "stitched", "auto"])
def test_events_are_charged_by_the_table(guest: str, charge: int, tier: TierName) -> None:
    with machine(guest, tier) as made:
        made.run(fuel=100)  # the first access to a device is always answered by Python
        run = made.run_metered(1_000_000)
        assert run.result.reason is StopReason.FUEL
        assert run.charged % charge == 0
        assert run.charged > run.retired
        events = run.charged // charge
        assert abs(events * {"uart": 2, "mmio": 1.5, "undefined": 5, "flushes": 3}[guest] - run.retired) <= 4


EVENTS = {
    "mmio": CHARGES.device_access,
    "uart": CHARGES.native_access,
    "undefined": CHARGES.exit,
    "flushes": CHARGES.tlb_flush,
    "phases": CHARGES.tlb_flush,
    "calls": CHARGES.exception,
    "aborts": CHARGES.exit,  # as some of them are left to the machine
    "errnos": CHARGES.semihosting,
}


@pytest.mark.parametrize("guest", EVENTS)
@pytest.mark.parametrize("allowance", [1, 1000, 100_000, 1_234_567, 7_654_321])
def test_no_more_than_the_charge_of_one_event_is_used_beyond_the_allowance(guest: str, allowance: int) -> None:
    with machine(guest) as made:
        made.run(fuel=100)  # the first access to a device is always answered by Python
        for _ in range(5):
            run = made.run_metered(allowance)
            assert run.retired <= allowance <= run.used
            assert run.used - allowance <= EVENTS[guest]


@pytest.mark.parametrize("guest", EVENTS)
def test_what_is_charged_does_not_depend_on_where_slices_end(guest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for budget in (64, 1777, 1 << 24):
        monkeypatch.setattr(SliceSizer, "learn", lambda *_: None)
        monkeypatch.setattr(SliceSizer, "begin_run", lambda sizer, budget=budget: setattr(sizer, "budget", budget))
        with machine(guest) as made:
            runs = [made.run_metered(allowance) for allowance in (1, 50_000, 777_777, 3, 300_000, 500_000)]
            found.append(([(run.retired, run.charged) for run in runs], state_hash(made)))
    assert found[0] == found[1] == found[2]


def test_a_turn_is_one_slice_if_it_is_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with machine("spinner") as made:
        made.run_metered(1_000_000)
        monkeypatch.setattr(SliceSizer, "begin_run", lambda sizer: setattr(sizer, "budget", 1 << 24))
        slices: list[int] = []
        run = made.vcpu.run

        def run_slice(budget: int, limit: int, look_at: int) -> tuple[VmExit, int]:
            slices.append(budget)
            return run(budget, limit, look_at)

        monkeypatch.setattr(made.vcpu, "run", run_slice)
        assert made.run_metered(10_000_000).used == 10_000_000
        assert slices == [10_000_000]


def test_a_slice_does_not_end_between_an_abort_and_the_next_instruction() -> None:
    """Its tick would be that of the instruction that aborts, and a replay would stop there before the abort."""
    compared = 0
    with machine("aborts") as metered, machine("aborts") as plain:
        for allowance in (*range(1, 60), 999, 1001):
            run = metered.run_metered(allowance)
            plain.run(fuel=metered.icount - plain.icount)
            if run.charged < CHARGES.exit:  # else the machine has taken the last one, which ends a slice of any kind
                compared += 1
                assert state_hash(metered) == state_hash(plain)
    assert compared > 50


def test_what_is_charged_does_not_change_what_the_guest_does() -> None:
    with machine("mmio") as metered, machine("mmio") as plain:
        for _ in range(20):
            metered.run_metered(50_000)
        plain.run(fuel=metered.icount)
        assert state_hash(metered) == state_hash(plain)


def test_a_run_without_a_meter_is_charged_nothing() -> None:
    with machine("mmio") as made:
        made.run_metered(10_000)
        before = made.icount
        assert made.run(fuel=1000).reason is StopReason.FUEL
        assert made.icount == before + 1000


def test_the_same_guest_is_charged_the_same_again() -> None:
    def charges() -> list[tuple[int, int]]:
        with machine("ticker") as made:
            runs = []
            for _ in range(10):
                run = made.run_metered(7000)
                runs.append((run.retired, run.charged))
                if run.wait_ns is not None:
                    made.wait_until(made.vcpu.now() + ticks_in(run.wait_ns, made.timeline.ticks_per_second))
            return runs

    assert charges() == charges()


def test_a_guest_that_waits_ends_the_run_with_its_time_unchanged() -> None:
    with machine("ticker") as made:
        run = made.run_metered(1_000_000)
        assert run.result.reason is StopReason.WAITING
        assert run.charged >= CHARGES.wait
        assert run.wait_ns is not None
        assert 9_000_000 < run.wait_ns <= 10_000_000  # the timer counts 10,000 us
        now = made.vcpu.now()
        assert made.run_metered(1000).retired == 0
        assert made.vcpu.now() == now
        made.wait_until(now + ticks_in(run.wait_ns, made.timeline.ticks_per_second))
        assert made.run_metered(1_000_000).retired > 3
        assert made.cpu.r[6] == 1


def test_a_guest_that_waits_for_nothing_has_no_time() -> None:
    with machine("sleeper") as made:
        run = made.run_metered(100_000)
        assert (run.result.reason, run.wait_ns) == (StopReason.WAITING, None)


def test_an_allowance_is_at_least_one_instruction() -> None:
    with machine("branch") as made, pytest.raises(ValueError, match="1 or more"):
        made.run_metered(0)
