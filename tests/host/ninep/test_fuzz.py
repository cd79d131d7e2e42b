"""Some rounds of the fuzzer (:mod:`tests.host.ninep.fuzz`)."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.host.ninep.fuzz import MESSAGES_IN_A_ROUND, damage_outcome, make_removable, run

_ROUNDS = 60


def test_mutated_messages_are_answered(tmp_path: Path) -> None:
    done = 0
    for seed in range(_ROUNDS):
        place = tmp_path / str(seed)
        place.mkdir()
        done += run(seed, place)
        make_removable(place)
    assert done > _ROUNDS * MESSAGES_IN_A_ROUND // 10


def test_mutated_outcomes_are_refused_or_read() -> None:
    random = Random(1)
    for _ in range(2000):
        damage_outcome(random)
