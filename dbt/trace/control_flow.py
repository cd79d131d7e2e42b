"""The graph of the report: where control went between regions, and between regions and code that is in none.

A way from one node to another is dynamic: control took it. Its evidence is the targets that indirect branches were
seen to go to, and the counts of exits by instruction where the run had ``--trace-counts``. Without these counts a
branch that the compiler left out of a region is taken for a way too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dbt.abi.addresses import Gpa, Gva
from dbt.trace.model import Trace, TracedRegion


@dataclass(slots=True)
class Node:
    """A region, by its number, or the code of one symbol, or of one page without symbols, that is in no region.

    ``share`` is its part of the instructions, from 0 to 1.
    """

    name: str
    region: int | None = None
    share: float = 0.0


@dataclass(slots=True)
class Way:
    """An edge of the graph: control went from one node to another.

    ``count`` is how often, or None if exits were not counted. ``is_exact`` is False if the count of an instruction
    was split: several regions have that instruction, or it goes to several targets. ``sites`` describes the
    instructions and how control left there.
    """

    count: int | None = None
    is_exact: bool = True
    sites: set[str] = field(default_factory=set)


#: The end of a way: the number of a region, or the name of a symbol outside.
Key = int | str


@dataclass(frozen=True, slots=True)
class ControlFlow:
    """The graph, with ``ways`` by their ends. ``left`` counts the regions that are not hot enough for the ``nodes``."""

    nodes: dict[Key, Node]
    ways: dict[tuple[Key, Key], Way]
    left: int


def control_flow(trace: Trace, most: int) -> ControlFlow:
    """Return the graph of the ``most`` regions with the most instructions and transfers, and of what is around them."""
    ways = _Ways(trace).found
    regions = _latest_regions(trace)
    shares: Counter[Any] = Counter()
    for place in trace.hot_places:
        if place.region is not None:
            shares[_place_of(place.region)] += place.share  # type: ignore[assignment]
    traffic: Counter[Key] = Counter()
    for ends, way in ways.items():
        for end in ends:
            traffic[end] += way.count or 0
    all_traffic = max(sum(traffic.values()), 1)

    def weight(region: TracedRegion) -> float:
        return float(shares[_place_of(region)]) + traffic[region.number] / all_traffic

    chosen = sorted(regions, key=lambda region: (-weight(region), region.number))[:most]
    nodes: dict[Key, Node] = {
        region.number: Node(
            f"#{region.number} {trace.describe(region.gva)}", region.number, float(shares[_place_of(region)])
        )
        for region in chosen
    }
    shown = {
        ends: way
        for ends, way in ways.items()
        if any(end in nodes for end in ends) and all(end in nodes or isinstance(end, str) for end in ends)
    }
    nodes |= {end: Node(end) for ends in shown for end in ends if isinstance(end, str)}
    return ControlFlow(nodes, shown, len(regions) - len(chosen))


def _place_of(region: TracedRegion) -> tuple[Gpa, bool, bool]:
    return region.entry, region.mmu, region.strict


def _latest_regions(trace: Trace) -> list[TracedRegion]:
    """Return the last of the regions that were made for each entry."""
    return list({_place_of(region): region for region in trace.regions}.values())


def _entered_regions(trace: Trace) -> dict[Gva, int]:
    """Return the number of the region that is entered at a GVA: at the end, or last where there is none then."""
    changes = [(region.time, 0, region) for region in trace.regions]
    changes += [(region.dropped["time"], 1, region) for region in trace.regions if region.dropped is not None]
    live: dict[Gva, int] = {}
    ever: dict[Gva, int] = {}
    for _, is_dropped, region in sorted(changes, key=lambda change: (change[0], change[1], change[2].number)):
        if is_dropped:
            live = {gva: number for gva, number in live.items() if number != region.number}
            continue
        live[region.gva] = ever[region.gva] = region.number
        for gpa in region.others:
            gva = region.to_gva(gpa)
            ever[gva] = live.setdefault(gva, region.number)
    return ever | live


@dataclass(slots=True)
class _Site:
    """The last instruction of blocks of one region. ``known`` are the targets that all of them have in the region."""

    pc: Gva
    known: set[Gva] | None = None
    left_out: dict[Gva, str] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)

    def add(self, edges: Iterable[dict[str, Any]], blocks: list[dict[str, Any]]) -> None:
        inside = {blocks[edge["to"]]["pc"] for edge in edges if edge["to"] is not None}
        self.known = inside if self.known is None else self.known & inside
        for edge in edges:
            if edge["kind"] == "back":
                continue  # the callee returns there, so the way is one of the callee's
            self.kinds.add(edge["kind"])
            if edge["to"] is None and edge["pc"] is not None:
                self.left_out[edge["pc"]] = edge["kind"]


class _Ways:
    """Finds the ways of a trace, by their ends."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._regions = _latest_regions(trace)
        self._entered = _entered_regions(trace)
        self._exits = trace.block_counters.get("exit")
        self._blocks = trace.block_counters.get("block", {})
        self.found: dict[tuple[Key, Key], Way] = defaultdict(Way)
        for gpa, sites in self._sites.items():
            self._leave_regions(gpa, sites)
        self._leave_other_code()

    @cached_property
    def _sites(self) -> dict[Gpa, dict[int, _Site]]:
        """By the place of an instruction and the number of a region."""
        found: dict[Gpa, dict[int, _Site]] = defaultdict(dict)
        for region in self._regions:
            blocks = self._trace.compile_record(region).get("blocks", [])
            for block in blocks:
                pc = block["insns"][-1][0]
                site = found[region.to_gpa(pc)].setdefault(region.number, _Site(pc))
                site.add(block["edges"], blocks)
        return found

    def _leave_regions(self, gpa: Gpa, sites: dict[int, _Site]) -> None:
        count = None if self._exits is None else self._exits.get(gpa, 0)
        if count == 0:
            return
        targets = {number: self._targets_of(gpa, site) for number, site in sites.items()}
        targets = {number: found for number, found in targets.items() if found}
        weights = [1 + sum(self._trace.sampled_in(self._trace.regions[number - 1]).values()) for number in targets]
        for (number, found), part in zip(targets.items(), _split(count, weights), strict=True):
            parts = _split(part, [1 + self._blocks.get(self._gpa_near(number, target), 0) for target in found])
            for target, share in zip(found, parts, strict=True):
                way = self._way(number, self._key(target), share, len(targets) == len(found) == 1)
                way.sites.add(self._describe(sites[number], count, len(found)))

    def _targets_of(self, gpa: Gpa, site: _Site) -> list[Gva]:
        """Return the targets outside the region to which control went from there."""
        targets = set(site.left_out) | set(self._trace.branch_targets.get(gpa, ()))
        return sorted(targets - (site.known or set()))

    def _gpa_near(self, number: int, gva: Gva) -> Gpa:
        """Return the GPA of a target, by the region that is entered there or by the one that goes there."""
        return self._trace.regions[self._entered.get(gva, number) - 1].to_gpa(gva)

    def _describe(self, site: _Site, count: int | None, targets: int) -> str:
        kind = next((kind for kind in _KIND_TEXTS if kind in site.kinds), "jump")
        where = f"{_KIND_TEXTS[kind]} at {self._trace.describe_line(site.pc)}"
        if count is not None:
            where += f", {count:,} exits there"
        return f"{where}, to {targets} targets" if targets > 1 else where

    def _leave_other_code(self) -> None:
        """Add the ways of branches in code that is in no region. Their targets are known, and their counts are not."""
        inside = {gpa for region in self._regions for gpa in region.words}
        for gpa, targets in self._trace.branch_targets.items():
            if gpa in inside:
                continue
            pc = self._trace.gva_of(gpa)
            for target in targets:
                if target in self._entered:
                    way = self._way(self._symbol(pc), self._entered[target], None, False)
                    way.sites.add(f"indirect branch at {self._trace.describe_line(pc)}, not counted outside regions")

    def _way(self, source: Key, target: Key, count: int | None, is_exact: bool) -> Way:
        way = self.found[source, target]
        if count is not None:
            way.count = (way.count or 0) + count
        way.is_exact &= is_exact
        return way

    def _key(self, gva: Gva) -> Key:
        return self._entered.get(gva) or self._symbol(gva)

    def _symbol(self, pc: Gva) -> str:
        symbol = self._trace.symbols.find(pc)
        return symbol[0] if symbol else f"page {pc & ~0xFFF:#x}"


#: The kinds of edges, in words. The first kind that an instruction has describes the instruction.
_KIND_TEXTS = {
    "return": "return",
    "call": "call",
    "table": "jump through a table",
    "indirect": "indirect branch",
    "loop": "branch back",
    "jump": "branch",
    "synchronise": "change of mode",
    "next": "end of a block",
}


def _split(count: int | None, weights: list[int]) -> Iterator[int | None]:
    """Return parts of a count in proportion to weights. They are None if the count is not known."""
    total = sum(weights)
    for weight in weights:
        yield None if count is None else round(count * weight / total)
