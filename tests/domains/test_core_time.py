"""Parts of a core's time, by guests whose units take what a function says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice

import pytest

from dbt.hypervisor.core_time import CoreTime

PERIOD_NS = 100_000_000
TURN_NS = 10_000_000
#: What a small part is saved up to.
LEAST_NS = 5_000_000


def periods(part: float, cost: Callable[[int], float], turn_ns: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the CPU time and the units of each period. ``cost`` has the nanoseconds of a unit in the period of that
    number, in which the guest would use the whole core. A turn as such takes ``turn_ns``.
    """
    times = CoreTime(PERIOD_NS)
    cap = times.set_part("a", part)
    for number in count():
        assert cap is not None
        used_ns = units = 0
        while units < cap and used_ns < PERIOD_NS:
            turn = min(cap - units, max(int(TURN_NS / cost(number)), 1))
            taken_ns = turn_ns + round(turn * cost(number))
            used_ns, units = used_ns + taken_ns, units + turn
            new = times.revised_cap("a", units, taken_ns)
            cap = cap if new is None else new
        assert units <= cap
        yield used_ns, units
        cap = times.next_cap("a", units, PERIOD_NS)


COSTS: dict[str, Callable[[int], float]] = {
    "compiled": lambda _: 0.15,
    "cold": lambda _: 60,
    "warming up": lambda number: max(60 / (number + 1), 0.2),
    "by turns": lambda number: 40 if number % 7 < 2 else 0.2,
    "cold again": lambda number: 40 if number > 50 else 0.2,
    # Instructions are translated, which takes the time of many thousands that are executed.
    "translated first": lambda number: 10_000 if number < 2 else 0.2,
    "translated late": lambda number: 30_000 if number == 50 else 0.2,
}


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("part", [0.01, 0.1, 0.5, 0.9])
def test_a_guest_has_its_part_of_a_core_whatever_its_units_take(part: float, name: str) -> None:
    guest = periods(part, COSTS[name])
    used = [next(guest)[0] for _ in range(400)]
    assert sum(used) == pytest.approx(400 * part * PERIOD_NS, rel=0.01, abs=2 * part * PERIOD_NS + TURN_NS)
    assert max(used) <= 4 * max(part * PERIOD_NS, LEAST_NS) + TURN_NS


@pytest.mark.parametrize("turn_ns", [300_000, 1_000_000])
@pytest.mark.parametrize("part", [0.001, 0.01, 0.02, 0.05, 0.1])
def test_a_small_part_is_not_used_up_by_turns_as_such(part: float, turn_ns: int) -> None:
    number = 4000
    guest = list(islice(periods(part, COSTS["cold"], turn_ns), number))
    used = sum(used_ns for used_ns, _ in guest)
    assert used == pytest.approx(number * part * PERIOD_NS, rel=0.01, abs=2 * TURN_NS)
    assert sum(units for _, units in guest) * 60 > 0.6 * used


@pytest.mark.parametrize("units", [1, 999, 1_000, 16_000])
def test_a_guest_whose_first_units_took_long_gets_on(units: int) -> None:
    """The host was busy: a few units took a period, and the next cap is as small as they are dear."""
    times = CoreTime(PERIOD_NS)
    times.set_part("a", 0.5)
    assert times.revised_cap("a", units, 2 * PERIOD_NS) == units
    cap = times.next_cap("a", units, 4 * PERIOD_NS)
    assert cap is not None
    used = cap
    for _ in range(10):
        cap = times.revised_cap("a", used, used // 10) or cap
        used = cap
    assert used > PERIOD_NS


def test_what_a_guest_did_not_want_is_not_kept() -> None:
    times = CoreTime(PERIOD_NS)
    cap = times.set_part("a", 0.5)
    for _ in range(20):
        assert times.revised_cap("a", 1_000_000, 2_000_000) is None
        cap = times.next_cap("a", 1_000_000, PERIOD_NS)
    assert cap == PERIOD_NS // 4  # half of a period, at two nanoseconds


def test_a_part_can_be_taken_away() -> None:
    times = CoreTime(PERIOD_NS)
    times.set_part("a", 0.5)
    assert times.set_part("a", None) is None
    assert times.next_cap("a", 1, PERIOD_NS) is None
    assert times.revised_cap("a", 1, 10 * PERIOD_NS) is None
