"""The loops of graphs of every form, beside what the definition says of them."""

from __future__ import annotations

from hypothesis import given

from dbt.frontend.forming import Place, Region
from dbt.frontend.graph import Graph, graph_of, loops
from tests.regions.graphs import regions


def reached(graph: Graph, start: Place) -> set[Place]:
    """Return what one or more edges lead to."""
    found, queue = set[Place](), list(graph[start])
    while queue:
        place = queue.pop()
        if place not in found:
            found.add(place)
            queue += graph[place]
    return found


@given(regions())
def test_loops_are_what_leads_back_to_itself(region: Region) -> None:
    graph = graph_of(region)
    found = list(loops(graph))
    reach = {place: reached(graph, place) for place in graph}
    outermost = {frozenset(to for to in reach[place] if place in reach[to]) for place in graph if place in reach[place]}
    assert outermost <= set(map(frozenset, found))
    for number, loop in enumerate(found):
        inside = {place: [to for to in graph[place] if to in loop] for place in loop}
        assert all(reached(inside, place) == loop for place in loop)
        later = found[number + 1 :]
        assert all(inner < loop or not inner & loop for inner in later), "a loop comes after one within it"
