"""What stitching takes of the host's memory, measured as the host counts it."""

from __future__ import annotations

from tests.engine.stitched_memory import MOST_BYTES, growth


def test_what_stitched_instructions_take() -> None:
    insns, found = growth("program")
    assert insns > 40_000
    assert all(10 < size <= MOST_BYTES for size in found.values()), found
