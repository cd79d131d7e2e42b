"""How long it takes to list 200 domains, at the socket and by the command."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from tests.daemon.daemons import TestDaemon, daemon_in

_DOMAINS = 200


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestDaemon]:
    with daemon_in(tmp_path_factory.mktemp("d")) as daemon:
        daemon.ok("define", *(daemon.definition(f"d{number}", "sleeper") for number in range(_DOMAINS)))
        yield daemon


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(11):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def test_a_list_takes_10_ms_at_the_socket(many: TestDaemon) -> None:
    assert len(many.ask("GET", "/v1/domains")) == _DOMAINS
    assert _median_ms(lambda: many.ask("GET", "/v1/domains")) <= 10


def test_a_list_takes_120_ms_by_command(many: TestDaemon) -> None:
    assert _median_ms(lambda: many.ok("list", "--all")) <= 120
