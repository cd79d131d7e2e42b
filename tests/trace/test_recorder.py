"""What is recorded is what happened, and recording changes nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa, Gva
from dbt.abi.layout import SideExit
from dbt.backend.compile_record import read_stages
from dbt.backend.compiled import CompiledRegion
from dbt.backend.link import link_object
from dbt.backend.llvm import compile_object
from dbt.cli.statistics import statistics
from dbt.engine.region_cache import MAX_PAGE_REWRITES
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.host.console import CaptureConsole
from dbt.trace.log import EventKind, Note
from dbt.trace.model import Trace
from dbt.trace.recorder import TraceRecorder
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.guests import GUESTS
from tests.long import LONG
from tests.trace.recordings import LOOP, program, record, region_tier
from tests.vm.programs import BASE, EXIT, MODES, make_elf


@pytest.mark.parametrize("block_counters", [False, True])
@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_recorded_run_is_the_same_run(
    tier: Any, jit: Any, block_counters: bool, only_handlers: Path, tmp_path: Path
) -> None:
    image = GUESTS / "images" / "minios-armv5te-O2.elf"
    fuel = 200_000 if tier == "reference" and not LONG else 700_000
    plain = Machine(8 << 20, tier=tier, jit=jit, console=CaptureConsole())
    plain.load(str(image))
    assert plain.run(fuel=fuel).reason is StopReason.FUEL
    traced, result, trace = record(tmp_path / "t", image, block_counters, tier=tier, jit=jit, fuel=fuel)
    assert result.icount == trace.icount == fuel
    assert state_hash(traced) == state_hash(plain)
    assert trace.end is not None and dict(plain.event_counts) == trace.end["events"]


def test_every_number_agrees_with_the_statistics(only_handlers: Path, tmp_path: Path) -> None:
    machine, _, trace = record(tmp_path / "t", GUESTS / "bench" / "images" / "tokenizer.elf", fuel=20_000_000)
    found, tier = statistics(machine), region_tier(machine)
    assert trace.end is not None and trace.end["statistics"] == found
    totals = trace.totals
    for name, number in found["instructions"].items():
        assert totals[f"insns {name}"] == number
    for name, number in found["region_exits"].items():
        assert totals[f"exit {name}"] == number
    for name, number in found["callouts"].items():
        assert totals[f"callout {name}"] == number
    assert len(trace.regions) == found["regions"]["compiled"] + found["regions"]["loaded"]
    assert sum(region.insns for region in trace.regions) == found["regions"]["insns"]
    assert sum(len(region.code) for region in trace.regions) == found["regions"]["code_bytes"]
    assert sum(note["what"] == Note.REQUESTED for note in trace.notes) >= found["regions"]["compiled"]
    inside = sum(place.insns for place in trace.hot_places if place.region is not None)
    assert len(trace.samples) > 5 and sum(place.insns for place in trace.hot_places) == trace.icount
    assert inside == tier.retired["region"]
    assert trace.reasons[0].kind == "side exit"
    sums = {reason.text: reason.count for reason in trace.reasons if reason.kind == "side exit"}
    assert sum(sums.values()) == sum(tier.regions.side_exits.values())


def test_regions_from_disk_are_told_apart_and_have_their_compile_record(only_handlers: Path, tmp_path: Path) -> None:
    _, _, first = record(tmp_path / "1", program())
    _, _, second = record(tmp_path / "2", program())
    assert first.regions and [region.kept for region in first.regions] == [False] * len(first.regions)
    assert second.regions and all(region.kept for region in second.regions)
    known = {region.entry: region.code for region in first.regions}
    for region in second.regions:
        assert known[region.entry] == region.code and second.compile_record(region)["blocks"]
    assert first.find_region(str(first.regions[0].number)) is first.regions[0]
    assert first.find_region("loop") is not None and first.find_region(hex(LOOP)) is not None


def test_debug_locations_change_no_byte_of_the_code(only_handlers: Path, tmp_path: Path) -> None:
    """What is shown is what would run without anybody looking."""
    _, _, trace = record(tmp_path / "t", GUESTS / "bench" / "images" / "objects.elf", fuel=10_000_000)
    assert len(trace.regions) >= 2
    for region in trace.regions:
        code, symbols = link_object(compile_object(read_stages(region.compile_record)["ir"], ALL.passes, 1))
        assert (code, symbols["region0"]) == (region.code, region.start)


def test_a_region_that_is_written_over(only_handlers: Path, tmp_path: Path) -> None:
    code = f"""
        movw r5, #3
        again: movw r4, #20000
        loop: add r1, r1, #1 ; subs r4, r4, #1 ; bne loop
        ldr r0, loop ; str r0, loop
        subs r5, r5, #1 ; bne again
        mov r2, #0 ; {EXIT}
    """
    symbols = {"loop": (BASE + 8, 12), "patch": (BASE + 20, 8)}
    machine, _, trace = record(tmp_path / "t", program(code, symbols))
    dropped = [region for region in trace.regions if not region.is_live]
    assert len(dropped) == region_tier(machine).regions.counts.dropped > 0
    for region in dropped:
        assert region.dropped is not None and region.dropped["written"] == BASE + 8
        assert trace.describe(region.dropped["pc"]) == "patch+0x4"
    assert trace.regions[-1].generation > 1
    assert len({region.identity for region in trace.regions}) == len(trace.regions)
    [reason] = [reason for reason in trace.reasons if reason.kind == "dropped"]
    assert (reason.count, reason.text, reason.pc) == (len(dropped), "code written over: loop", BASE + 24)


def test_what_cannot_be_compiled_says_why(only_handlers: Path, tmp_path: Path) -> None:
    code = f"movw r4, #20000 ; loop: mrs r0, spsr ; subs r4, r4, #1 ; bne loop ; mov r2, #0 ; {EXIT}"
    without = Optimizations.without("stitching")  # so that the loop is hot soon
    _, _, trace = record(tmp_path / "t", program(code, {}), optimizations=without)
    refused = [reason for reason in trace.reasons if reason.kind == "not compiled"]
    assert [(reason.pc, reason.text) for reason in refused] == [(BASE + 4, "sensitive instruction: MRS (SPSR)")]
    [callout] = [reason for reason in trace.reasons if reason.kind == "callout"]
    assert (callout.pc, callout.count) == (BASE + 4, 20_000)


def test_device_accesses_and_interrupts_are_events_or_counted(only_handlers: Path, tmp_path: Path) -> None:
    code = f"ldr r3, =0x101f1000 ; mov r0, #65 ; str r0, [r3] ; ldr r1, [r3, #0x18] ; mov r2, #0 ; {EXIT}"
    for tier in ("threaded", "stitched", "auto"):
        _, _, trace = record(tmp_path / "t", program(code, {}), tier=tier)
        kinds = (EventKind.DEVICE_READ, EventKind.DEVICE_WRITE)
        accesses = [event for event in trace.events if event.kind in kinds]
        assert [(event.kind, event.first, event.second, event.pc, event.icount) for event in accesses] == [
            (EventKind.DEVICE_WRITE, 0x101F1000, 65, BASE + 8, 2),
        ]  # the first; it makes the device known to native code
        assert trace.totals["device accesses answered by native code"] == 1
    image = GUESTS / "images" / "minios-armv5te-O2.elf"
    machine, _, trace = record(tmp_path / "t", image)
    taken = sum(event.kind == EventKind.INTERRUPT for event in trace.events)
    counted = trace.totals["exception interrupt"]
    assert taken + counted == machine.event_counts["interrupt"] > 0
    assert trace.totals["mmu fills"] > 100


def test_what_regions_count(only_handlers: Path, tmp_path: Path) -> None:
    machine, _, trace = record(tmp_path / "t", program(), block_counters=True)
    inside = machine.retired["region"]
    sizes = block_sizes(trace).items()
    assert sum(trace.block_counters["block"].get(pc, 0) * size for pc, size in sizes) == inside > 100_000
    exits = sum(trace.block_counters["exit"].values())
    reasons = {name: n for region in trace.regions for name, n in trace.exits_of(region).items()}
    assert reasons and max(reasons.values()) <= exits
    assert (
        exits
        == sum(region_tier(machine).regions.side_exits.values())
        - region_tier(machine).regions.side_exits[SideExit.BUDGET]
    )


def block_sizes(trace: Trace) -> dict[Gpa, int]:
    """Return the number of instructions of each block of all regions, by its address."""
    records = [trace.compile_record(region) for region in trace.regions]
    return {block["pc"]: len(block["insns"]) for record in records for block in record["blocks"]}


def test_both_ways_of_a_converted_branch_are_counted(only_handlers: Path, tmp_path: Path) -> None:
    code = f"""
        movw r4, #60000 ; movw r3, #0x4567 ; movt r3, #0x8123
        digit: add r1, r1, r1, lsl #4 ; add r1, r1, #77 ; cmp r1, r3 ; blo less ; sub r1, r1, r3 ; add r8, r8, #1
        less: add r5, r5, #1 ; subs r4, r4, #1 ; bne digit ; mov r2, #0 ; {EXIT}
    """
    sizes = []
    for optimizations in (Optimizations(), Optimizations.without("if_conversion")):
        machine, _, trace = record(tmp_path / "t", program(code, {}), block_counters=True, optimizations=optimizations)
        found = trace.block_counters["block"]
        inside = sum(found.get(pc, 0) * size for pc, size in block_sizes(trace).items())
        assert inside == machine.retired["region"] > 100_000
        assert 1_000 < found[Gpa(BASE + 28)] <= machine.r[8]  # the way that subtracts
        sizes += [len(one.region.code) for one in region_tier(machine).cache.installed.values()]
    assert sizes[0] != sizes[1]  # one of them was converted


def mapped_apart(recorder: TraceRecorder) -> Machine:
    """A loop in two pages that follow one another in virtual memory, and in physical memory the other way round."""
    table = 0x4000
    boot = f"""
        ldr r0, ={table:#x} ; ldr r1, =0x00000c12 ; str r1, [r0]
        ldr r2, =0x00006011 ; str r2, [r0, #4]
        mov r3, #0x6000 ; ldr r1, =0x00109ff2 ; str r1, [r3] ; ldr r1, =0x00108ff2 ; str r1, [r3, #4]
        mcr p15, #0, r0, c2, c0, #0 ; mov r1, #1 ; mcr p15, #0, r1, c3, c0, #0
        mrc p15, #0, r1, c1, c0, #0 ; orr r1, r1, #1 ; mcr p15, #0, r1, c1, c0, #0
        ldr r4, =60000 ; ldr r5, =0x00100ff8 ; bx r5
    """
    machine_code = {0x10000: assemble(boot, 0x10000)}
    # The loop begins at the end of the first virtual page and goes on in the second.
    machine_code[0x109FF8] = assemble("add r6, r6, #1 ; nop", 0x100FF8)
    machine_code[0x108000] = assemble("subs r4, r4, #1 ; bne 0x100ff8 ; b 0x101008", 0x101000)
    # Stitched code would count arrivals in the second page too, and make a region of it alone.
    optimizations = Optimizations.without("stitching")
    console = CaptureConsole()
    machine = Machine(
        2 << 20, jit="sync", cpu="arm926", console=console, observer=recorder, optimizations=optimizations
    )
    for gpa, code in machine_code.items():
        machine.write(gpa, code)
    machine.pc = 0x10000
    recorder.begin(machine, "test", {}, {})
    return machine


def test_regions_of_pages_that_are_mapped_apart(only_handlers: Path, tmp_path: Path) -> None:
    recorder = TraceRecorder(str(tmp_path / "t"), block_counters=True)
    machine = mapped_apart(recorder)
    recorder.end(machine.run(fuel=300_000), 1.0, statistics(machine))
    trace = Trace(str(tmp_path / "t"))
    region = next(region for region in trace.regions if len(region.pages) == 2)
    assert {0x100FF8, 0x101000} <= {region.to_gva(gpa) for gpa in region.words}
    assert {0x109FF8, 0x108000} <= region.words.keys()
    assert trace.find_region("0x101004") is not None and trace.region_at(Gva(0x101000), trace.nanoseconds) is region
    blocks = trace.compile_record(region)["blocks"]
    assert all(trace.block_counters["block"].get(region.to_gpa(block["pc"]), 0) > 10_000 for block in blocks)


def test_nothing_is_emitted_unless_asked_for(only_handlers: Path, tmp_path: Path) -> None:
    def sizes(block_counters: bool | None) -> list[int]:
        if block_counters is None:
            machine = Machine(8 << 20, jit="sync", console=CaptureConsole())
            machine.load_bytes(program())
            machine.run()
        else:
            machine, _, _ = record(tmp_path / "t", program(), block_counters)
        regions: list[CompiledRegion] = [found.region for found in region_tier(machine).cache.installed.values()]
        return sorted(len(region.code) for region in regions)

    assert sizes(None) == sizes(False) < sizes(True)


def test_the_memory_at_the_end(only_handlers: Path, tmp_path: Path) -> None:
    machine, _, trace = record(tmp_path / "t", GUESTS / "images" / "minios-armv5te-O2.elf", fuel=900_000)
    guest, shadow = trace.memory["guest"], trace.memory["shadow"]
    assert guest and any(space["mappings"] for space in shadow)
    current = next(space for space in shadow if space["current"])
    for gva, gpa, size, rights in current["mappings"]:
        # A shadow page table has nothing that the guest's own does not allow.
        own = [one for one in guest if one[0] <= gva and gva + size <= one[0] + one[2]]
        assert [one[1] + gva - one[0] for one in own] == [gpa] and set(rights) <= set(own[0][3])
    executed = trace.executed[BASE >> 12 if BASE >> 12 in trace.executed else machine.image.entry >> 12]  # type: ignore[union-attr]
    assert any(executed)


def test_a_short_run_without_regions(only_handlers: Path, tmp_path: Path) -> None:
    _, _, trace = record(tmp_path / "t", make_elf(assemble(f"mov r2, #0 ; {EXIT}")))
    assert trace.is_complete and not trace.regions and len(trace.samples) == 1
    assert [(place.region, place.insns) for place in trace.hot_places] == [(None, trace.icount)]


def test_reasons_name_code_by_its_virtual_address(only_handlers: Path, tmp_path: Path) -> None:
    """Neither page of the loop is mapped to itself, so that its GPA is not one of its GVAs."""
    recorder = TraceRecorder(str(tmp_path / "t"))
    machine = mapped_apart(recorder)
    for _ in range(2 * MAX_PAGE_REWRITES):  # of two pages
        result = machine.run(fuel=3000)
        machine.write(0x108000, machine.read(0x108000, 4))
    recorder.end(result, 1.0, statistics(machine))
    trace = Trace(str(tmp_path / "t"))
    texts = {reason.text for reason in trace.reasons if reason.kind == "dropped"}
    assert texts == {"code written over: 0x101000"}
    refused = [reason.pc for reason in trace.reasons if reason.kind == "not compiled"]
    assert refused and set(refused) <= {0x100FF8, 0x100FFC, 0x101000, 0x101004}


def test_code_in_no_region_is_named_by_the_page_tables(only_handlers: Path, tmp_path: Path) -> None:
    recorder = TraceRecorder(str(tmp_path / "t"))
    machine = mapped_apart(recorder)
    recorder.end(machine.run(fuel=100), 1.0, statistics(machine))
    trace = Trace(str(tmp_path / "t"))
    assert (trace.gva_of(Gpa(0x109FF8)), trace.gva_of(Gpa(0x108004))) == (0x100FF8, 0x101004)
