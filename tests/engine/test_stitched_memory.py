"""What stitching takes of the host's memory, measured as the host counts it."""

from __future__ import annotations

import ctypes

import capstone
import pytest

from dbt import Machine
from dbt.abi.layout import PAGE_SIZE
from dbt.abi.stitching import ARENA_START
from dbt.engine.region_tier import RegionTier
from dbt.engine.stitched import StitchedCode
from dbt.engine.threaded import ThreadedTier
from dbt.vm.options import TierName
from dbt.vm.state import state_hash
from tests.engine.mapped_memory import mapped_kb
from tests.engine.stitched_memory import MOST_BYTES, growth, program


def test_what_stitched_instructions_take() -> None:
    insns, found = growth("program")
    assert insns > 40_000
    assert all(10 < size <= MOST_BYTES for size in found.values()), found


def stitched_code(machine: Machine) -> StitchedCode:
    tier = machine.tier.threaded if isinstance(machine.tier, RegionTier) else machine.tier
    assert isinstance(tier, ThreadedTier) and tier.stitched is not None
    return tier.stitched


@pytest.mark.parametrize("tier", ["stitched", "auto"])
def test_a_machine_that_rests_has_no_stitched_code(tier: TierName) -> None:
    """However often it is stitched anew, the host has the memory back each time."""
    with program(tier) as expected:
        end = expected.run()
        state = state_hash(expected)
    sizes = []
    with program(tier) as machine:
        while machine.run(fuel=end.icount * 9 // 20).exit_code is None:
            place = stitched_code(machine).address
            sizes.append(mapped_kb("dbt-stitched", "Rss", place))
            machine.tier.rest(deep=True)
            assert mapped_kb("dbt-stitched", "Rss", place) == 0
        assert (machine.icount, state_hash(machine)) == (end.icount, state)
    assert len(sizes) == 2 and min(sizes) > 500


def test_no_counter_looks_like_a_register() -> None:
    """A host that compares the lowest 12 bits of addresses lets a load wait for a store to another page."""
    with program("auto") as machine:
        machine.run()
        stitched = stitched_code(machine)
        size = stitched.count("used") - ARENA_START
        code = ctypes.string_at(stitched.address + ARENA_START, size)
        heads = stitched.count("counters")
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    disassembler.detail = disassembler.skipdata = True
    places = set()
    for insn in disassembler.disasm(code, 0):
        if insn.mnemonic == "sub" and insn.operands[0].type == capstone.x86.X86_OP_MEM:
            places.add(insn.operands[0].mem.disp)
    assert heads > 1000 and len(places) >= heads
    assert all(place > PAGE_SIZE and place % PAGE_SIZE >= PAGE_SIZE // 2 for place in places)
