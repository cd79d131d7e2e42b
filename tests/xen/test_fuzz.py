"""Whatever the arguments of a hypercall are, it has a result, and the domain's state can be restored."""

from __future__ import annotations

import struct

import pytest

from tests.xen.fuzz import fuzz
from tests.xen.fuzz_rings import KINDS
from tests.xen.guests import ARGUMENTS, MEMORY, RAM, Caller, domain_machine

CALLS = 20_000


def test_random_arguments() -> None:
    _, done = fuzz(1917, CALLS)
    assert done > CALLS // 20


@pytest.mark.parametrize(
    ("kind", "least"), [("store", 5000), ("console", 500_000), ("block", 500), ("net", 50), ("ninep", 300)]
)
def test_random_requests_and_rings(kind: str, least: int) -> None:
    """Whatever is in a ring, the host has no fault; see :mod:`tests.xen.fuzz_rings`. Much of it makes sense, too."""
    assert KINDS[kind](2026, 1000) > least


def test_the_state_follows_from_the_calls_alone() -> None:
    assert fuzz(7, 1000) == fuzz(7, 1000)


def test_a_structure_across_pages_and_one_that_ends_too_early() -> None:
    with domain_machine() as machine:
        caller = Caller(machine)
        at = caller.put("II", 0, 0x55555555, at=ARGUMENTS + 4092)
        assert caller.call(17, 6, at) == 0
        assert struct.unpack("<II", machine.memory.read_ram(at, 8)) == (0, 0x16005)  # type: ignore[arg-type]
        assert caller.call(17, 6, RAM + MEMORY - 4) == -14
        assert caller.call(17, 6, 0xFFFFFFFC) == -14
