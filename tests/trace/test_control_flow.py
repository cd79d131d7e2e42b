"""The graph of regions says where control went, as counts, recorded targets and the program's symbols have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt.abi.addresses import Gva
from dbt.trace.control_flow import ControlFlow, Key, control_flow
from dbt.trace.model import Trace
from tests.codecache.samples import use_only_handlers
from tests.guests import GUESTS
from tests.trace.recordings import record

DISPATCHING = GUESTS / "slow" / "images" / "dispatching.elf"


@pytest.fixture(scope="module")
def dispatching(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    folder = tmp_path_factory.mktemp("flow")
    with pytest.MonkeyPatch.context() as patch:
        use_only_handlers(folder / "cache", patch)
        return record(folder / "t", DISPATCHING, block_counters=True, fuel=40_000_000)[2]


def handlers(trace: Trace) -> dict[str, int]:
    return {s.name: s.address for s in trace.symbols.symbols if s.name.startswith("handle_")}


def hub(flow: ControlFlow) -> Key:
    """The node with the most ways."""
    return max(flow.nodes, key=lambda key: sum(key in ends for ends in flow.ways))


def test_the_targets_of_the_call_through_the_table_are_known(dispatching: Trace) -> None:
    known = set(handlers(dispatching).values())
    assert len(known) == 64
    found = max(map(set, dispatching.branch_targets.values()), key=len)
    # Some share their entry in the table of targets with other pairs: which, depends on where the code pages are.
    assert found <= known and len(found) >= 56
    returns = [
        found
        for gpa, found in dispatching.branch_targets.items()
        if "handle_" in dispatching.describe(dispatching.gva_of(gpa))
    ]
    assert len(returns) >= 56 and all(
        dispatching.describe(to) == "run_events+0x20" for found in returns for to in found
    )


def test_the_hub_has_ways_to_the_handlers_and_back(dispatching: Trace) -> None:
    flow = control_flow(dispatching, 150)
    middle = hub(flow)
    assert isinstance(middle, int) and "run_events" in flow.nodes[middle].name
    around = {key for key, node in flow.nodes.items() if "handle_" in node.name}
    there = {key for key in around if (middle, key) in flow.ways}
    back = {key for key in around if (key, middle) in flow.ways}
    # A region tells 16 targets apart; the other handlers are regions of their own.
    assert len(there) >= 40 and len(back) >= 30


def test_counts_of_ways_add_up_to_the_exits_counted(dispatching: Trace) -> None:
    flow = control_flow(dispatching, 150)
    exits = dispatching.block_counters["exit"]
    names = {address: name for name, address in handlers(dispatching).items()}
    exact = [(ends, way) for ends, way in flow.ways.items() if way.is_exact and isinstance(ends[0], int)]
    assert len(exact) >= 30
    for (source, _), way in exact:
        assert isinstance(source, int)
        region = dispatching.regions[source - 1]
        if region.gva in names and len(way.sites) == 1:
            assert way.count == exits[region.to_gpa(Gva(region.gva + 12))], (
                "the handler's return is its fourth instruction"
            )
    call = max(exits, key=exits.__getitem__)
    outward = [way for way in flow.ways.values() if any(f"{exits[call]:,} exits there" in site for site in way.sites)]
    total = sum(way.count or 0 for way in outward)
    # Parts are rounded, and a region that ends at its own entry has no way to draw.
    assert abs(total - exits[call]) <= max(len(outward), exits[call] // 100)


def test_a_smaller_graph_has_the_hottest(dispatching: Trace) -> None:
    flow = control_flow(dispatching, 5)
    assert sum(node.region is not None for node in flow.nodes.values()) == 5
    assert flow.left == len({(r.entry, r.mmu, r.strict) for r in dispatching.regions}) - 5
    assert any("run_events" in node.name for node in flow.nodes.values())
    assert all(end in flow.nodes for ends in flow.ways for end in ends)


def test_without_counts_there_are_ways_without_numbers(only_handlers: Path, tmp_path: Path) -> None:
    _, _, trace = record(tmp_path / "t", DISPATCHING, fuel=20_000_000)
    flow = control_flow(trace, 150)
    assert len(flow.ways) >= 40 and all(way.count is None for way in flow.ways.values())


def test_a_trace_of_another_tier_has_no_graph(only_handlers: Path, tmp_path: Path) -> None:
    _, _, trace = record(tmp_path / "t", GUESTS / "images" / "hello-armv7-a-O2.elf", tier="reference")
    assert control_flow(trace, 10) == ControlFlow({}, {}, 0)
