"""Random programs in every tier, with runs cut anywhere: one history, whatever executes it."""

from __future__ import annotations

import pytest

from tests.long import LONG
from tests.oracle.programs import WITHOUT, compare_random_program

PROGRAMS = 10 if LONG else 3
PROGRAMS_WITHOUT = 1  # with each optimization left out
STEPS_WITHOUT = 80


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_random_programs(seed: int) -> None:
    compiled = compare_random_program(seed)
    assert compiled["eager"] and compiled["sync"], "nothing was compiled"


@pytest.mark.parametrize("kind", list(WITHOUT) if LONG else list(WITHOUT)[::-3])
def test_random_programs_without_an_optimization(kind: str) -> None:
    for seed in range(PROGRAMS_WITHOUT):
        number = 1000 * list(WITHOUT).index(kind) + seed
        assert compare_random_program(number, ("threaded", kind), STEPS_WITHOUT)[kind], "nothing was compiled"
