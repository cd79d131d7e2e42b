"""The credit scheduler by itself, with domains that are numbers."""

from __future__ import annotations

from random import Random

import pytest

from dbt.hypervisor.credit import CreditScheduler, LatencyClass, Precedence

PERIOD, SLICE = 100_000, 10_000


def scheduler_for(cores: int, weights: dict[str, int], caps: dict[str, int] | None = None) -> CreditScheduler:
    scheduler = CreditScheduler(cores, PERIOD, SLICE, in_order=True)
    for name, weight in weights.items():
        scheduler.add(name, weight, (caps or {}).get(name), LatencyClass.NORMAL)
        scheduler.ready(name)
    return scheduler


def run_period(scheduler: CreditScheduler, charge_more: int = 0, random: Random | None = None) -> dict[str, int]:
    """Let each domain use all of its turns up to the end of the period, and up to ``charge_more`` besides, as an event
    does. Return what they have used.
    """
    while not scheduler.period_is_over():
        free = [core for core in range(len(scheduler.clocks)) if core not in scheduler.running]
        core = min(free, key=lambda one: scheduler.clocks[one])
        clock = scheduler.clocks[core]
        turn = scheduler.choose(core)
        if turn is not None:
            more = 0 if random is None else random.randrange(charge_more)
            scheduler.finish(core, turn.units + more)
        else:
            ticks = [tick for tick in (scheduler.next_free(), scheduler.period_end) if tick is not None]
            scheduler.idle(core, min(tick for tick in ticks if tick > clock))
    used = {name: account.used for name, account in scheduler.accounts.items()}
    scheduler.begin_period()
    return used


def test_counts_at_the_end_of_a_period_are_as_the_weights() -> None:
    scheduler = scheduler_for(1, {"a": 256, "b": 512, "c": 1024})
    for _ in range(20):
        used = run_period(scheduler)
        assert used["b"] == 2 * used["a"]
        assert used["c"] == 4 * used["a"]
        assert PERIOD - 7 <= sum(used.values()) <= PERIOD + 7  # what could not be divided comes in the next period


def test_at_any_moment_counts_are_within_one_slice_of_the_weights() -> None:
    scheduler = scheduler_for(1, {"a": 1, "b": 2, "c": 4})
    accounts = scheduler.accounts
    while (turn := scheduler.choose(0)) is not None:
        assert turn.units <= SLICE
        scheduler.finish(0, turn.units)
        together = sum(account.used for account in accounts.values())
        for account in accounts.values():
            assert abs(account.used - together * account.weight / 7) <= SLICE


def test_on_two_cores_nobody_gets_more_than_one() -> None:
    scheduler = scheduler_for(2, {"a": 1, "b": 2, "c": 4})
    for _ in range(10):
        assert run_period(scheduler) == {"a": 33_333, "b": 66_666, "c": 100_000}


def test_a_cap_is_never_exceeded_and_the_rest_is_for_the_others() -> None:
    scheduler = scheduler_for(1, {"a": 1, "b": 1}, {"a": 12_345})
    for _ in range(10):
        assert run_period(scheduler) == {"a": 12_345, "b": PERIOD - 12_345}
    scheduler = scheduler_for(1, {"a": 1}, {"a": 12_345})
    assert [run_period(scheduler) for _ in range(3)] == [{"a": 12_345}] * 3


def test_a_debt_is_paid_from_the_next_shares() -> None:
    scheduler = scheduler_for(1, {"a": 1, "b": 1})
    turn = scheduler.choose(0)
    assert turn is not None
    scheduler.finish(0, 2 * PERIOD)  # one event was charged two periods
    debtor = scheduler.accounts[turn.name]
    assert (debtor.used, debtor.debt) == (PERIOD // 2, 2 * PERIOD - PERIOD // 2)
    for _ in range(3):
        used = run_period(scheduler)
        assert used == {"a": PERIOD // 2, "b": PERIOD // 2}
    assert debtor.debt == 0
    assert debtor.total == 2 * PERIOD


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_charges_beyond_a_turn_never_change_what_a_domain_has_used(cores: int, seed: int) -> None:
    """An event may be charged more than is left. Nobody else gets less for it, in the long run or in any period."""
    random = Random(seed)
    weights = {f"d{number}": random.randrange(1, 1000) for number in range(5)}
    exact, other = scheduler_for(cores, weights), scheduler_for(cores, weights)
    assert run_period(exact) == run_period(other, 5000, random)
    for _ in range(10):
        expected, used = run_period(exact), run_period(other, 5000, random)
        for name, units in expected.items():
            assert abs(used[name] - units) <= 5000 * 5 * cores, name
    assert all(account.debt < 5000 * 5 for account in other.accounts.values())


def test_who_is_not_ready_has_no_share_and_gathers_none() -> None:
    scheduler = scheduler_for(1, {"a": 1, "b": 1, "c": 1})
    scheduler.unready("c")
    assert run_period(scheduler) == {"a": PERIOD // 2, "b": PERIOD // 2, "c": 0}
    for _ in range(4):
        turn = scheduler.choose(0)
        assert turn is not None
        scheduler.finish(0, turn.units)
    scheduler.ready("c")
    used = run_period(scheduler)
    assert used["c"] == (PERIOD - 4 * SLICE) // 3
    assert abs(used["a"] - used["b"]) <= 1


def test_who_ceases_to_be_ready_leaves_its_share_to_the_others() -> None:
    scheduler = scheduler_for(1, {"a": 1, "b": 3})
    turn = scheduler.choose(0)
    assert turn is not None
    scheduler.finish(0, 1000)
    scheduler.unready(turn.name)
    other = "b" if turn.name == "a" else "a"
    used = run_period(scheduler)
    assert (used[turn.name], used[other]) == (1000, PERIOD - 1000)


def test_a_domain_with_a_precedence_goes_first_and_gets_no_more() -> None:
    scheduler = scheduler_for(1, {f"d{number}": 1 for number in range(8)})
    scheduler.add("woken", 1, None, LatencyClass.NORMAL)
    for _ in range(3):
        turn = scheduler.choose(0)
        assert turn is not None
        scheduler.finish(0, turn.units)
    scheduler.ready("woken", Precedence.INPUT)
    turn = scheduler.choose(0)
    assert turn is not None
    assert turn.name == "woken"
    scheduler.finish(0, turn.units)
    used = run_period(scheduler)
    assert used["woken"] <= min(used[f"d{number}"] for number in range(8)) + 1


def test_weights_and_caps_can_change_in_the_middle_of_a_period() -> None:
    scheduler = scheduler_for(1, {"a": 1, "b": 1})
    turn = scheduler.choose(0)
    assert turn is not None
    scheduler.finish(0, turn.units)
    scheduler.change("a", 3, None, LatencyClass.NORMAL)
    used = run_period(scheduler)
    assert sum(used.values()) <= PERIOD
    assert run_period(scheduler) == {"a": 75_000, "b": 25_000}
    scheduler.change("a", 3, 10_000, LatencyClass.NORMAL)
    assert run_period(scheduler) == {"a": 10_000, "b": 90_000}


def test_a_core_that_would_be_idle_gives_extra_turns() -> None:
    """Where cores are not kept in order, what a slow domain leaves of a core is not lost, and is no share."""
    scheduler = CreditScheduler(2, PERIOD, SLICE, in_order=False)
    for name in ("slow", "fast"):
        scheduler.add(name, 1, None, LatencyClass.NORMAL)
        scheduler.ready(name)
    slow = scheduler.choose(0)
    assert slow is not None
    fast = scheduler.accounts["fast" if slow.name == "slow" else "slow"]
    while fast.left:
        turn = scheduler.choose(1)
        assert turn is not None
        assert not turn.is_extra
        scheduler.finish(1, turn.units)
    turn = scheduler.choose(1)
    assert turn is not None
    assert (turn.name, turn.is_extra) == (fast.name, True)
    scheduler.finish(1, turn.units)
    assert (fast.used, fast.extra) == (PERIOD, SLICE)
    scheduler.finish(0, slow.units)


def test_a_capped_domain_gets_no_extra_turns() -> None:
    scheduler = CreditScheduler(2, PERIOD, SLICE, in_order=False)
    for name, cap in (("free", None), ("capped", 1000)):
        scheduler.add(name, 1, cap, LatencyClass.NORMAL)
        scheduler.ready(name)
    turns = [scheduler.choose(0), scheduler.choose(1)]
    capped = next(turn for turn in turns if turn is not None and turn.name == "capped")
    scheduler.finish(capped.core, capped.units)
    assert scheduler.choose(capped.core) is None


def test_a_cap_in_time_may_be_more_than_a_period_and_is_exact() -> None:
    scheduler = CreditScheduler(1, PERIOD, SLICE, in_order=False, paced=True)
    scheduler.add("timed", 1, None, LatencyClass.NORMAL)
    scheduler.ready("timed")
    account, most = scheduler.accounts["timed"], 2 * PERIOD + 7
    scheduler.set_time_cap("timed", most)
    while (turn := scheduler.choose(0)) is not None:
        scheduler.finish(0, turn.units)
    assert (account.used, account.extra) == (PERIOD, most - PERIOD)
    scheduler.set_time_cap("timed", 5)
    scheduler.begin_period()
    turn = scheduler.choose(0)
    assert turn is not None and turn.units == 5
    scheduler.finish(0, 3)
    scheduler.set_time_cap("timed", 3)
    assert scheduler.choose(0) is None
