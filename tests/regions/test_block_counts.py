"""What regions count of their blocks: few counters must say as much as one for each block."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.abi.layout import BlockCounters, SideExit
from dbt.backend.block_counting import BlockCounting
from dbt.backend.block_flows import DERIVED, BlockFlows, Flow, FlowKind
from dbt.backend.count_plan import plan_counts
from dbt.backend.module import Function
from dbt.engine.observer import Observer
from dbt.frontend.forming import Region
from dbt.frontend.graph import graph_of
from dbt.frontend.optimizations import Optimizations
from dbt.host.console import CaptureConsole
from dbt.vm.slice_sizer import SliceSizer
from tests.long import LONG
from tests.regions.graphs import regions

GUESTS = Path(__file__).resolve().parents[2] / "guests"


class Simulated(BlockCounting):
    """The counting of a region that a test walks through, with the counters and the budget as Python's numbers."""

    def __init__(self, region: Region, derive: bool) -> None:
        super().__init__(Function("f"), region, "counters", "budget", (), Gpa, derive)
        self.numbers = Counter[int]()
        self.budget = 0

    def _add(self, counter: int, amount: str, sign: str = "add") -> None:
        self.numbers[counter] += int(amount) if sign == "add" else -int(amount)

    def _add_budget(self, meter: int, sign: str, more: int = 0) -> None:
        self._add(meter, str(self.budget + more), sign)

    def counts(self) -> Counter[tuple[BlockCounters, Gpa]]:
        flows = self.flows(())
        flows = BlockFlows.unpack(flows.pack(), 0)
        found = Counter[tuple[BlockCounters, Gpa]]()
        for what, gpa, number in flows.counts([self.numbers[n] for n in range(flows.counters)]):
            found[what, gpa] += number
        return found


def walk(counting: Simulated, region: Region, random: Random) -> Counter[tuple[BlockCounters, Gpa]]:
    """Enter the region and go some way through it. Return what happened."""
    happened, graph = Counter[tuple[BlockCounters, Gpa]](), graph_of(region)
    gva = random.choice(list(region.entries))
    counting.budget = random.randrange(1 << 40)
    counting.enter_region(gva)
    source, place = None, region.entries[gva]
    while True:
        counting.go(source, place)
        insns = region.blocks[place].insns
        counting.budget -= len(insns)
        if random.random() < 0.05:
            counting.leave(place, place.pc, SideExit.BUDGET)
            return happened
        counting.enter_block(place)
        happened[BlockCounters.BLOCK, Gpa(place.pc)] += 1
        if random.random() < 0.1 or not graph[place]:
            pc = random.choice(insns).pc
            counting.leave(place, pc, SideExit.EDGE)
            happened[BlockCounters.EXIT, Gpa(pc)] += 1
            return happened
        source, place = place, random.choice(graph[place])


@settings(max_examples=40)
@given(regions(), st.randoms(use_true_random=False), st.booleans())
def test_what_is_counted_is_what_happened(region: Region, random: Random, derive: bool) -> None:
    counting, happened = Simulated(region, derive), Counter[tuple[BlockCounters, Gpa]]()
    for _ in range(5):
        happened.update(walk(counting, region, random))
    assert +counting.counts() == happened


@settings(max_examples=40)
@given(regions())
def test_no_block_counts_that_follows_from_others(region: Region) -> None:
    plan, graph = plan_counts(region, (), Gpa), graph_of(region)
    alone = {place for place in graph if place in graph[place]}
    assert alone <= plan.meters.keys() and alone.isdisjoint(plan.blocks)
    joined = {joint: {joint} for flow in plan.flows for joint in (flow.source, flow.target)}
    for flow in plan.flows:
        if flow.counter == DERIVED:
            joined |= dict.fromkeys(both := joined[flow.source] | joined[flow.target], both)
    others = [flow for flow in plan.flows if flow.counter not in (DERIVED, *plan.meters.values())]
    assert all(flow.target in joined[flow.source] for flow in others), "this one need not have been counted"


class _Counting(Observer):
    wants_block_counters = True


@pytest.mark.parametrize("name", ["objects", "strings", *(["tokenizer", "softfloat"] if LONG else [])])
def test_derived_counts_are_those_of_counters_in_all_blocks(
    name: str, only_handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SliceSizer, "learn", lambda *_: None)  # slices are the same for both, and many
    found = []
    for optimizations in (Optimizations(), Optimizations.without("derived_counts")):
        machine = Machine(
            8 << 20, console=CaptureConsole(), jit="sync", observer=_Counting(), optimizations=optimizations
        )
        machine.load(str(GUESTS / "bench" / "images" / f"{name}.elf"))
        for fuel in (3_000_000, 1, 77, 4_567, 100_003, 250_000):  # so that slices end in various blocks
            machine.run(fuel=fuel)
        regions = machine.tier.regions
        assert regions is not None and regions.block_counts is not None
        counts = regions.block_counts()
        found.append((machine.retired, {what: +Counter(counts[what]) for what in BlockCounters}))
        uncounted = (SideExit.BUDGET, SideExit.MODE)
        exits = sum(number for reason, number in regions.side_exits.items() if reason not in uncounted)
        assert sum(counts[BlockCounters.EXIT].values()) == exits
    assert found[0] == found[1] and sum(found[0][1][BlockCounters.BLOCK].values()) > 100_000


def _flow(source: int, target: int, counter: int, insns: int = 1, meter: int = -1) -> Flow:
    return Flow(source, target, counter, insns, meter, FlowKind.BLOCK, Gpa(0))


@pytest.mark.parametrize(
    ("flows", "patches"),
    [
        ((_flow(1, 2, 1),), ()),  # a counter that is not there
        ((_flow(1, 2, 0, meter=1),), ()),  # a meter that is not there
        ((_flow(1, 1, 0, insns=0, meter=0),), ()),  # a loop without instructions
        ((_flow(1, 2, 0, meter=0), _flow(2, 1, -1)), ()),  # a loop that is not in the meter
        ((_flow(1, 2, -1), _flow(2, 1, -1)), ()),  # a cycle
        ((), ((5, 0),)),  # a patch behind the code
        ((), ((0, 8),)),  # a patch for a counter that is not there
    ],
)
def test_flows_that_make_no_sense_are_refused(flows: tuple[Flow, ...], patches: tuple[tuple[int, int], ...]) -> None:
    data = BlockFlows(1, patches, flows).pack()
    with pytest.raises(ValueError, match=r"flow|patch"):
        BlockFlows.unpack(data, 8)
    good = BlockFlows(1, ((4, -4),), (_flow(1, 2, 0, meter=0), _flow(2, 1, -1, meter=0)))
    assert BlockFlows.unpack(good.pack(), 8) == good
    for size in range(len(good.pack())):
        with pytest.raises(ValueError, match="flows"):
            BlockFlows.unpack(good.pack()[:size], 8)
