"""Some rounds of the fuzzer for virtio queues (:mod:`tests.devices.virtio.fuzz`), and many with DBT_LONG_TESTS."""

from __future__ import annotations

import time

import pytest

from tests.devices.virtio.fuzz import MOST_SECONDS, run
from tests.long import LONG

_ROUNDS = 20_000 if LONG else 200


@pytest.mark.parametrize("part", range(6))
def test_mutated_queues_do_no_harm(part: int) -> None:
    broken = 0
    for seed in range(1_000_000 * part, 1_000_000 * part + _ROUNDS):
        began = time.process_time()
        broken += run(seed)
        assert time.process_time() - began < MOST_SECONDS, f"seed {seed}"
    assert _ROUNDS // 20 < broken < _ROUNDS // 2
