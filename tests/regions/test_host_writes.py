"""Writes by the hypervisor (loader, DMA, debugger) under regions, and under regions that are still being compiled."""

from __future__ import annotations

import pytest

from tests.regions.host_writes import WRITES, outdated_regions_are_refused, writes_are_seen


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_seen(name: str) -> None:
    assert writes_are_seen(name)


@pytest.mark.parametrize("name", WRITES)
def test_outdated_regions_are_refused(name: str) -> None:
    assert outdated_regions_are_refused(name)
