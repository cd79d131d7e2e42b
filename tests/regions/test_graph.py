"""The loops of graphs of every form, beside what the definition says of them."""

from __future__ import annotations

from hypothesis import given

from dbt.abi.addresses import Gva
from dbt.frontend.forming import Place, Region
from dbt.frontend.graph import Graph, graph_of, loops, nested_loops
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


@given(regions())
def test_nested_loops_are_the_loops_and_inner_ones_with_the_same_head(region: Region) -> None:
    graph = graph_of(region)
    found, plain = list(nested_loops(graph)), list(loops(graph))
    more = [loop for loop in found if loop not in plain]
    assert [loop for loop in found if loop in plain] == plain
    for number, loop in enumerate(found):
        inside = {place: [to for to in graph[place] if to in loop] for place in loop}
        assert all(reached(inside, place) == loop for place in loop)
        assert all(not other > loop for other in found[number + 1 :]), "a loop comes after one around it"
    assert all(any(loop < other for other in plain) for loop in more)


def test_a_loop_is_entered_at_its_head_by_an_outer_one_from_lower_addresses() -> None:
    """As GCC lays out two nested loops: the region begins in the inner one, and what prepares that is before it."""
    before, head, twice, behind = (Place(Gva(pc)) for pc in (0x100, 0x110, 0x120, 0x130))
    graph = {head: [head, twice], twice: [head, behind], behind: [before], before: [head]}
    assert list(nested_loops(graph)) == [{before, head, twice, behind}, {head, twice}]
    assert list(nested_loops({head: [head, behind], behind: [before], before: [head]})) == [
        {before, head, behind},
        {head},
    ]
    both_behind = {head: [twice, behind], twice: [head], behind: [head]}
    assert list(nested_loops(both_behind)) == [{head, twice, behind}], "one loop with two ways through it"
    called = Place(Gva(0x200), (0x104,))
    assert list(nested_loops({called: [called, before], before: [called]})) == [{called, before}, {called}]
