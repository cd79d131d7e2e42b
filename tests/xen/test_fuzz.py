"""Whatever the arguments of a hypercall are, it has a result, and the domain's state can be restored."""

from __future__ import annotations

import struct

from tests.xen.fuzz import fuzz
from tests.xen.guests import ARGUMENTS, MEMORY, RAM, Caller, domain_machine

CALLS = 20_000


def test_random_arguments() -> None:
    _, done = fuzz(1917, CALLS)
    assert done > CALLS // 20


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
