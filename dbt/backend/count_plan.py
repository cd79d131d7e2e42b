"""Choice of the blocks of a region that count, from which the others follow: see :mod:`dbt.backend.block_flows`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from dbt.abi.addresses import Gpa, Gva
from dbt.backend.block_flows import DERIVED, NO_METER, OUTSIDE, BlockFlows, Flow, FlowKind
from dbt.frontend.forming import Place, Region
from dbt.frontend.graph import Graph, graph_of, loops, search

#: How often the body of a loop is thought to be executed.
_TURNS = 10.0


class _Sets:
    """Sets of numbers that are united."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def find(self, item: int) -> int:
        """Return the number that stands for the set of ``item``."""
        while (above := self._above.get(item, item)) != item:
            self._above[item] = self._above.get(above, above)
            item = above
        return item

    def unite(self, one: int, other: int) -> bool:
        """Unite two sets. Return False if they are one already."""
        one, other = self.find(one), self.find(other)
        self._above[one] = other
        return one != other


@dataclass(slots=True)
class CountPlan:
    """What counts in a region.

    ``blocks`` has the counters of blocks that count, ``pads`` those of entries. ``meters`` has those of loops, by each
    of their blocks: the budget at which the loop is entered, less that at which it is left. ``before`` and ``behind``
    are the joints of each block. ``flows`` has blocks and entries, and is to have the exits too.
    """

    before: dict[Place, int]
    behind: dict[Place, int]
    blocks: dict[Place, int] = field(default_factory=dict)
    meters: dict[Place, int] = field(default_factory=dict)
    pads: dict[Gva, int] = field(default_factory=dict)
    flows: list[Flow] = field(default_factory=list)
    counters: int = 0

    def new_counter(self) -> int:
        """Return the number of another counter."""
        self.counters += 1
        return self.counters - 1


def plan_counts(
    region: Region, branchless: Collection[Place], gpa_of: Callable[[Gva], Gpa], derive: bool = True
) -> CountPlan:
    """Return the plan for a region. The blocks that are ``branchless`` do not branch to their successors, but execute
    them in their place. Without ``derive``, all blocks and entries count.
    """
    graph = graph_of(region)
    plan = CountPlan(*_joints(graph))
    tree = _Sets()

    def follows(source: int, target: int) -> bool:
        """Return True if this flow will follow from the others."""
        return derive and tree.unite(source, target)

    frequencies = _frequencies(region, graph)
    flows: list[tuple[float, Place, Gva | None]] = [(weight, place, None) for place, weight in frequencies.items()]
    numbers: dict[Place, int] = {}
    flows += [(1.0, place, gva) for gva, place in region.entries.items()]
    for _, place, entry in sorted(flows, key=lambda flow: -flow[0]):
        before, behind = plan.before[place], plan.behind[place]
        counter = DERIVED
        if entry is not None:
            if not follows(OUTSIDE, before):
                counter = plan.pads[entry] = plan.new_counter()
            plan.flows.append(Flow(OUTSIDE, before, counter, 0, NO_METER, FlowKind.UNREPORTED, gpa_of(entry)))
            continue
        if not follows(before, behind):
            counter = plan.blocks[place] = plan.new_counter()
        numbers[place] = len(plan.flows)
        insns = len(region.blocks[place].insns)
        plan.flows.append(Flow(before, behind, counter, insns, NO_METER, FlowKind.BLOCK, gpa_of(place.pc)))
    if derive:
        for loop in _innermost(graph):
            if all(place not in branchless or loop.issuperset(graph[place]) for place in loop):
                _meter(plan, loop, numbers)
    return plan


def _meter(plan: CountPlan, loop: set[Place], numbers: Mapping[Place, int]) -> None:
    """Let a loop have a meter in place of a counter, if that says as much. ``numbers`` are those of blocks' flows."""
    flows = BlockFlows(plan.counters, (), tuple(plan.flows))
    inside = {numbers[place] for place in loop}
    for place, counter in plan.blocks.items():  # the one that is executed most often comes first
        if place in loop and flows.can_meter(numbers[place], inside):
            del plan.blocks[place]
            plan.meters |= dict.fromkeys(loop, counter)
            for number in inside:
                plan.flows[number] = plan.flows[number]._replace(meter=counter)
            return


def _innermost(graph: Graph) -> list[set[Place]]:
    """Return the loops that have no loop within them, in an order that is the same in each run."""
    alone = [{place} for place in graph if place in graph[place]]  # also at the head of another loop
    found = [*alone, *(loop for loop in loops(graph) if len(loop) > 1)]
    return [loop for loop in found if not any(other < loop for other in found)]


def _joints(graph: Graph) -> tuple[dict[Place, int], dict[Place, int]]:
    """Return the numbers of the joints before and behind each block."""
    same = _Sets()
    # OUTSIDE is no number of a block's.
    ends = {place: (2 * number + 1, 2 * number + 2) for number, place in enumerate(graph)}
    for place, successors in graph.items():
        for to in successors:
            same.unite(ends[place][1], ends[to][0])
    before = {place: same.find(ahead) for place, (ahead, _) in ends.items()}
    return before, {place: same.find(behind) for place, (_, behind) in ends.items()}


def _frequencies(region: Region, graph: Graph) -> dict[Place, float]:
    """Guess how often each block is executed for each entry: loops go round, and branches go each way equally often."""
    found = dict.fromkeys(graph, 0.0)
    for place in region.entries.values():
        found[place] += 1.0
    seen = set[Place]()
    for place in reversed(search(graph, region.entries.values()).left):
        seen.add(place)
        ahead = [to for to in graph[place] if to not in seen]
        for to in ahead:
            found[to] += found[place] / len(ahead)
    for loop in loops(graph):
        for place in loop:
            found[place] *= _TURNS
    return found
