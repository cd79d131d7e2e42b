"""The carriers, for tests that are the same with each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbt.hypervisor import ProcessCarrier
from dbt.hypervisor.carrier import Carrier
from dbt.hypervisor.threads import ThreadCarrier


@pytest.fixture(scope="session")
def processes() -> Iterator[ProcessCarrier]:
    """A carrier with one zygote for all tests: to start it takes a second."""
    with ProcessCarrier() as carrier:
        yield carrier


@pytest.fixture(params=["threads", "processes"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    if request.param == "threads":
        return ThreadCarrier()
    found: ProcessCarrier = request.getfixturevalue("processes")
    return found
