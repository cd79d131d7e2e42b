"""What is counted: instructions by what executed them, regions, and the compiler's work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.addresses import Gva
from dbt.abi.layout import SIDE_EXIT_TEXTS, SideExit
from dbt.cli.statistics import statistics, statistics_lines
from dbt.engine.region_tier import RegionTier
from dbt.engine.worker import CompileWorker
from dbt.host.console import CaptureConsole
from dbt.inspector.disassembly import disassemble_place
from dbt.vm.machine import JitMode, TierName
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.guests import GUESTS, MANIFEST
from tests.vm.programs import BASE, EXIT, MODES, TIERS, make_elf

#: Prime, so that the fuel ends at all kinds of places.
STEP = 30_011
GUESTS_COUNTED = [
    "bench/images/crc32.elf", "bench/images/objects.elf", "images/exceptions.bin", "images/smc-armv7-a-O2.elf",
    "images/sieve-armv7-a-O2.elf",
]  # fmt: skip
WITHOUT_COMPILER: tuple[TierName, JitMode] = ("auto", "off")


def machine_for(image: str, tier: Any, jit: Any) -> Machine:
    machine = Machine(8 << 20, tier=tier, jit=jit, console=CaptureConsole(), measures=True)
    base = next((guest.get("base") for guest in MANIFEST.values() if image.endswith(tuple(guest["images"]))), None)
    machine.load(str(GUESTS / image), base=base)
    return machine


def region_tier(machine: Machine) -> RegionTier:
    assert isinstance(machine.tier, RegionTier)
    return machine.tier


def check(machine: Machine) -> None:
    """Whatever adds up does so."""
    found = statistics(machine)
    instructions = found["instructions"]
    assert sum(instructions.values()) == machine.icount and min(instructions.values()) >= 0
    if machine.tier_name in ("stitched", "auto"):
        stitching = found["stitching"]
        assert min(stitching.values()) >= 0
        assert stitching["insns"] >= stitching["blocks"] and stitching["code_bytes"] >= 4 * stitching["insns"]
    if machine.tier_name == "auto":
        regions = found["regions"]
        answered = ("compiled", "refused", "outdated", "lost", "pending")
        assert regions["requested"] == sum(regions[name] for name in answered)
        assert min(regions.values()) >= 0
        assert regions["dropped"] >= sum(found["invalidations"].values())
        assert found["compile_seconds"]["sum"] >= found["compile_seconds"]["longest"] >= 0
        assert (instructions["region"] > 0) <= (sum(found["region_exits"].values()) > 0)
        assert (regions["code_bytes"] > 0) == (regions["insns"] > 0) == (regions["compiled"] + regions["loaded"] > 0)


@pytest.mark.parametrize(("tier", "jit"), [*MODES, WITHOUT_COMPILER])
@pytest.mark.parametrize("image", GUESTS_COUNTED)
def test_instructions_add_up_wherever_the_fuel_ends(only_handlers: Path, image: str, tier: Any, jit: Any) -> None:
    machine = machine_for(image, tier, jit)
    steps = 3 if tier == "reference" else 40
    for _ in range(steps):
        result = machine.run(fuel=STEP)
        check(machine)
        if result.reason is not StopReason.FUEL:
            break
    if tier == "reference":
        assert set(machine.retired) == {"reference", "machine"}
    if jit == "sync" and "bench" in image:
        assert machine.retired["region"] > machine.icount / 4
    if jit == "off" and tier == "auto":
        assert machine.retired["region"] == 0
    if "bench" in image and (tier == "stitched" or (tier, jit) == WITHOUT_COMPILER):
        assert machine.retired["stitched"] > machine.icount / 2
    machine.reset()
    assert machine.retired == dict.fromkeys(machine.retired, 0)
    machine.run(fuel=STEP)
    check(machine)


LOOP = assemble(f"""
    movw r1, #60000
    loop: add r0, r0, r1 ; subs r1, r1, #1 ; bne loop
    mov r2, #0 ; {EXIT}
""")


def looping(code: bytes, head: int) -> Machine:
    """Stopped at the head of a loop, whose region is installed."""
    machine = Machine(1 << 20, tier="auto", jit="off", console=CaptureConsole())
    machine.load_bytes(make_elf(code))
    while machine.icount < 20 or machine.pc != head:
        machine.step()
    assert region_tier(machine).compile_now(Gva(head))
    return machine


@pytest.mark.parametrize("fuel", [0, 1, 2, 3, 4, 30, 31, 32, 3000, 30_001, 30_002])
def test_a_region_counts_what_it_executes_and_no_more(only_handlers: Path, fuel: int) -> None:
    machine = looping(LOOP, BASE + 4)
    before = machine.retired
    assert machine.tier.run(fuel)[1] == fuel  # as one slice
    # Where the budget is less than the block, the threaded tier goes on.
    assert machine.retired == before | {
        "region": before["region"] + fuel // 3 * 3,
        "threaded": before["threaded"] + fuel % 3,
    }
    # Entered in the middle of the loop, it is in the region from its head on.
    machine.tier.run(-fuel % 3 + 300)
    assert machine.retired == before | {
        "region": before["region"] + fuel // 3 * 3 + 300,
        "threaded": before["threaded"] + fuel % 3 + -fuel % 3,
    }


def test_a_side_exit_gives_back_what_was_not_executed(only_handlers: Path) -> None:
    code = assemble("""
        ldr r3, =0x101f1018
        loop: add r0, r0, #1 ; add r1, r1, #1 ; ldr r2, [r3] ; add r4, r4, #1 ; b loop
    """)
    machine = looping(code, BASE + 4)
    before = machine.retired
    machine.run(fuel=50)  # two of five instructions come before the device access
    assert machine.retired["region"] == before["region"] + 20
    assert machine.retired["threaded"] == before["threaded"] + 30
    exits = region_tier(machine).regions.side_exits
    assert exits == dict.fromkeys(SideExit, 0) | {
        SideExit.LOAD: 10,
        SideExit.BUDGET: 1,
    }
    check(machine)


STITCHED_LOOP = assemble("""
    ldr r3, =0x101f1018
    loop: add r0, r0, #1 ; add r1, r1, #1 ; ldr r2, [r3] ; add r4, r4, #1 ; b loop
""")


def stitched_loop(measures: bool = True) -> Machine:
    """Stopped at the head of a stitched loop of five instructions, of which the third leaves for a device."""
    machine = Machine(1 << 20, tier="stitched", console=CaptureConsole(), measures=measures)
    machine.load_bytes(make_elf(STITCHED_LOOP))
    machine.run(fuel=1001)
    return machine


@pytest.mark.parametrize("fuel", range(12))
def test_stitched_code_counts_what_it_executes_and_no_more(only_handlers: Path, fuel: int) -> None:
    machine = stitched_loop()
    before = machine.retired
    machine.run(fuel=fuel)
    # The first two of five are executed in stitched code, and after the device access the handlers go on up to the
    # head of the loop. Where less of the budget is left than the block has, they execute all of it.
    inside = 2 * (fuel // 5)
    assert machine.retired == before | {
        "stitched": before["stitched"] + inside,
        "threaded": before["threaded"] + fuel - inside,
    }
    check(machine)


def test_where_it_is_not_measured_stitched_code_counts_as_threaded(only_handlers: Path) -> None:
    measured, plain = stitched_loop().retired, stitched_loop(measures=False).retired
    assert measured["stitched"] > 300
    assert plain == {"threaded": measured["stitched"] + measured["threaded"], "reference": 0, "machine": 0}


def test_what_is_stitched_is_counted_anew_after_a_reset(only_handlers: Path) -> None:
    machine = stitched_loop()
    found = machine.tier.stitching
    assert found is not None and found.insns == 5 and found.blocks == 1 and not found.rewrites and not found.resets
    machine.write(BASE + 8, assemble("add r0, r0, #2"))
    machine.run(fuel=500)
    assert machine.tier.stitching == found._replace(insns=10, blocks=2, code_bytes=2 * found.code_bytes, rewrites=1)
    machine.reset()
    assert machine.tier.stitching == (0, 0, 0, 0, 0)


def test_reset_sets_every_count_to_zero(only_handlers: Path) -> None:
    machine = machine_for("bench/images/crc32.elf", "auto", "sync")
    machine.run(fuel=3_000_000)
    found = statistics(machine)
    assert found["regions"]["compiled"] and found["store"]["saved"] and found["compile_seconds"]["longest"] > 0.0005
    machine.reset()
    found = statistics(machine)
    del found["insn_ns"]  # which is no count
    assert all(number in (0, "") for group in found.values() for number in _numbers(group))
    assert not machine.vcpu.exit_counts
    machine.run(fuel=3_000_000)
    found = statistics(machine)
    assert found["instructions"]["region"] > 2_000_000, "the regions are still there"
    check(machine)


def _numbers(group: Any) -> list[Any]:
    return list(group.values()) if isinstance(group, dict) else [group]


def test_writes_over_code_and_literals_are_told_apart(only_handlers: Path) -> None:
    code = assemble("""
        loop: ldr r0, word ; subs r1, r1, #1 ; bne loop
        b .
        word: .word 0x12345
    """)
    for address, expected in ((BASE + 16, (0, 1)), (BASE + 4, (1, 0)), (BASE + 12, (0, 0))):
        machine = looping(code, BASE)
        machine.write(address, bytes(4))
        counts = region_tier(machine).regions.counts
        assert (counts.code_writes, counts.literal_writes) == expected
        assert counts.dropped == sum(expected)


@pytest.mark.parametrize("jit", ["sync", "async"])
def test_a_compiler_that_is_lost(only_handlers: Path, monkeypatch: pytest.MonkeyPatch, jit: Any) -> None:
    broken = CompileWorker(lambda: lambda mirror, request: os._exit(3))
    monkeypatch.setattr("dbt.engine.worker.shared_worker", lambda: broken)
    machine = machine_for("bench/images/crc32.elf", "auto", jit)
    machine.run(fuel=3_000_000)
    tier = region_tier(machine)
    while tier.regions.worker.pending:
        machine.run(fuel=100_000)
    found = statistics(machine)
    check(machine)
    assert found["regions"]["lost"] == found["worker_restarts"] == tier.regions.counts.refused > 0
    assert found["regions"]["refused"] == found["instructions"]["region"] == 0


def test_sensitive_instructions_are_counted_by_place_alike_in_every_tier(only_handlers: Path) -> None:
    found = {}
    for tier, jit in (*MODES, WITHOUT_COMPILER):
        machine = machine_for("images/minios-armv5te-O2.elf", tier, jit)
        machine.run(fuel=900_000)
        found[tier, jit] = dict(machine.tier.callout_places)
        assert sum(machine.tier.callouts.values()) >= sum(machine.tier.callout_places.values()) > 1000
        machine.reset()
        assert not machine.tier.callout_places
    assert all(places == found["reference", "off"] for places in found.values())


@pytest.mark.parametrize("tier", TIERS)
def test_a_sensitive_instruction_counts_where_its_condition_holds(only_handlers: Path, tier: Any) -> None:
    machine = Machine(1 << 20, tier=tier, jit="off", console=CaptureConsole())
    machine.load_bytes(
        make_elf(assemble("loop: eors r1, r1, #1 ; mrseq r0, cpsr ; mrsne r0, spsr ; mrsne r0, cpsr ; b loop"))
    )
    machine.run(fuel=30)
    assert machine.tier.callout_places == {BASE + 8: 3}


def test_a_sensitive_instruction_that_is_written_over_counts_anew(only_handlers: Path) -> None:
    machine = Machine(1 << 20, tier="threaded", jit="off", console=CaptureConsole())
    machine.load_bytes(make_elf(assemble("loop: mrs r0, spsr ; b loop")))
    machine.run(fuel=20)
    assert machine.tier.callout_places == {BASE: 10}
    machine.write(BASE, assemble("msr spsr_fc, r0"))
    assert machine.tier.callout_places == {}
    machine.run(fuel=6)
    assert machine.tier.callout_places == {BASE: 3}
    [place] = statistics(machine)["callout_places"]
    assert place == {"address": f"{BASE:#010x}", "word": "0xe169f000", "count": 3}
    assert disassemble_place(place) == "msr spsr_fc, r0"


def test_everything_counted_has_words() -> None:
    assert set(SIDE_EXIT_TEXTS) == {reason.name.lower() for reason in SideExit}


def test_statistics_fit_80_columns(only_handlers: Path) -> None:
    machine = machine_for("bench/images/objects.elf", "auto", "sync")
    machine.run(fuel=2_000_000)
    counts, worker = region_tier(machine).regions.counts, region_tier(machine).regions.worker
    counts.dropped, counts.code_writes, counts.literal_writes = 10**9, 10**8, 10**8
    counts.refused = counts.outdated = counts.seconds = counts.code_bytes = 10**9
    worker.lost = worker.restarts = 10**6
    machine.vcpu.icount = 10**14
    lines = list(statistics_lines(machine, 100000.0))
    assert max(map(len, lines)) < 80
    text = "\n".join(lines)
    for words in (
        "in regions", "in stitched code", "blocks stitched", "threaded", "reference", "supervisor calls",
        "regions compiled", "regions from disk", "regions refused", "regions dropped", "code written over",
        "literal written over", "lost with the compiler", "compiler restarts", "compile time", "the longest",
        "region exits",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("call", [False, True])
def test_what_lies_across_a_page_boundary_becomes_hot_too(only_handlers: Path, call: bool) -> None:
    """A loop whose branch back goes to another page, or a function without loops that is called from another page."""
    machine = Machine(1 << 20, tier="auto", jit="sync", console=CaptureConsole())
    if call:
        machine.write(
            0x8000, assemble("loop: mrs r0, spsr ; bl 0xa000 ; subs r4, r4, #1 ; bne loop ; end: b end", 0x8000)
        )
        machine.write(0xA000, assemble("add r1, r1, #1 ; " * 20 + "bx lr", 0xA000))
        head = 0xA000
    else:
        head = 0x8FF8
        machine.write(head, assemble("add r6, r6, #1 ; nop ; subs r4, r4, #1 ; bne 0x8ff8 ; end: b end", head))
    machine.r[4], machine.pc = 20_000, head if not call else 0x8000
    machine.run(fuel=200_000 if call else 79_000)
    assert head in region_tier(machine).cache.installed
    assert machine.retired["region"] > 40_000
