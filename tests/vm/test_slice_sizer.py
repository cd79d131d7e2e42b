"""How long the run loop leaves the guest alone, by a clock of the test's own: Ctrl-C is to be served within 50 ms."""

from __future__ import annotations

import pytest

from dbt.vm.slice_sizer import TARGET, SliceSizer

#: Instructions per second of the slowest loops of device accesses in native code.
_DEVICE_RATE = 5e7


@pytest.mark.parametrize("rate", [2e4, 2e5, 1e7, 5e8, 5e9])
def test_a_slice_takes_some_milliseconds(rate: float) -> None:
    """``rate``: instructions per second, from the reference tier's to a region's."""
    pace, taken = SliceSizer(), []
    for _ in range(20):
        budget = pace.budget
        taken.append(budget / rate)
        pace.learn(budget, budget, budget / rate)
    assert max(taken[1:]) <= TARGET * 1.01
    assert taken[-1] >= TARGET * 0.9 or pace.budget >= 1 << 21
    assert max(taken) < 0.06


def test_a_guest_that_becomes_slow_is_noticed_after_one_slice() -> None:
    pace = SliceSizer()
    for _ in range(20):
        pace.learn(pace.budget, pace.budget, pace.budget / 5e9)
    fast = pace.budget
    pace.learn(fast, fast, fast / _DEVICE_RATE)
    assert pace.budget / _DEVICE_RATE <= TARGET < fast / _DEVICE_RATE < 0.05
    pace.learn(pace.budget, pace.budget, 0)
    assert pace.budget > 0
