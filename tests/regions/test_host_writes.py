"""Writes by the hypervisor (loader, DMA, debugger) under regions, and under regions that are still being compiled."""

from __future__ import annotations

import time

import pytest

from dbt.engine.region_tier import RegionTier, Request
from tests.assembler import assemble
from tests.regions.machines import ENTRY, RAM_SIZE, SmallMachine
from tests.regions.mutants import Mutant, is_noticed

LOOP = assemble("""
    mov r1, #0x1000 
    loop: add r0, r0, #1 ; ldr r2, word ; subs r1, r1, #1 ; bne loop ; svc #0
    word: .word 7
""")
HEAD, LITERAL = ENTRY + 4, ENTRY + 24
#: Where, and what: an instruction, a byte of it, a literal, and all of RAM from there on.
WRITES = {
    "an instruction": (HEAD, assemble("sub r0, r0, #3")),
    "a byte of an instruction": (HEAD, b"\x05"),
    "the middle of two instructions": (HEAD + 2, b"\x81\xe2\x01\x20"),
    "a literal": (LITERAL, b"\x01\x02\x03\x04"),
    "the end of a literal": (LITERAL + 3, b"\x55"),
    "a literal and what is before it": (LITERAL - 4, LOOP[20:24] + b"\x01\x02\x03\x04"),
    "all of RAM": (LITERAL, b"\x01\x02\x03\x04" + bytes(RAM_SIZE - LITERAL - 4)),
}


def writes_are_seen(name: str) -> bool:
    """Whether the tiers agree when RAM is written in the middle of a loop whose region is installed."""
    address, data = WRITES[name]
    machines = [SmallMachine(kind, LOOP) for kind in ("threaded", "sync")]
    for machine in machines:
        machine.advance(1000)
        machine.memory.write_ram(address, data)
        machine.advance(100_000)
    tier = machines[1].tier
    assert isinstance(tier, RegionTier) and tier.counts.compiled
    tier.close()
    return len({machine.digest() for machine in machines}) == 1


def outdated_regions_are_refused(name: str) -> bool:
    """Whether they agree when RAM is written after the region was compiled and before it is installed."""
    address, data = WRITES[name]
    machines = [SmallMachine(kind, LOOP) for kind in ("threaded", "async")]
    tier = machines[1].tier
    assert isinstance(tier, RegionTier)
    for machine in machines:
        machine.advance(20)
        if machine is machines[1]:
            tier._requested.add(HEAD)
            tier._worker.submit(Request(HEAD, HEAD, strict=False))
            tier.settle()  # type: ignore[attr-defined]
            time.sleep(0.01)
        machine.memory.write_ram(address, data)
        machine.advance(100_000)
    tier.close()
    return len({machine.digest() for machine in machines}) == 1


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_seen(name: str) -> None:
    assert writes_are_seen(name)


@pytest.mark.parametrize("name", WRITES)
def test_outdated_regions_are_refused(name: str) -> None:
    assert outdated_regions_are_refused(name)


MUTANTS = [
    Mutant(RegionTier, "_host_write", "self._on_code_write(gpa, size)", "pass"),
    Mutant(RegionTier, "_host_write", 'self.drop_all("the hypervisor wrote to memory")', "pass"),
    Mutant(RegionTier, "_on_code_write", "gpa & ~3, gpa + size", "gpa & ~3, (gpa & ~3) + 4"),
    Mutant(RegionTier, "_install", "ram[gva : gva + len(data)] != data", "False"),
    Mutant(RegionTier, "_install", "for gva, data in region.runs)", "for gva, data in region.runs[:1])"),
    Mutant(RegionTier, "drop_all", "self._drop(entry, why)", "pass"),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    assert is_noticed(
        mutant.apply, lambda: not all(writes_are_seen(name) and outdated_regions_are_refused(name) for name in WRITES)
    )
