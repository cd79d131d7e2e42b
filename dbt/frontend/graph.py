"""The control-flow graph of a region as a graph: a search in depth, and the loops that it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dbt.frontend.forming import Place, Region

#: The successors of each block that are in the region too.
Graph = Mapping[Place, list[Place]]


def graph_of(region: Region) -> Graph:
    """Return the graph of the region's blocks."""
    blocks = region.blocks
    return {place: [to for to in dict.fromkeys(block.successors()) if to in blocks] for place, block in blocks.items()}


@dataclass(frozen=True, slots=True)
class Search:
    """What a depth-first search has found.

    ``left`` has the blocks in the order in which the search left them, so the successors of a block come before it
    unless an edge leads back. ``heads`` has the blocks to which an edge leads back: every cycle has one.
    """

    left: dict[Place, None] = field(default_factory=dict)
    heads: set[Place] = field(default_factory=set)


def search(graph: Graph, starts: Iterable[Place]) -> Search:
    """Search in depth from each of the starts in turn."""
    found, seen = Search(), set[Place]()
    for start in starts:
        path = [] if start in seen else [(start, iter(graph[start]))]
        seen.add(start)
        while path:
            place, rest = path[-1]
            for to in rest:
                if to not in seen:
                    seen.add(to)
                    path.append((to, iter(graph[to])))
                    break
                if to not in found.left:
                    found.heads.add(to)
            else:
                path.pop()
                found.left[place] = None
    return found


def loops(graph: Graph) -> Iterator[set[Place]]:
    """Yield the blocks of each loop, each loop before those within it. All blocks of a loop can be reached from each.

    What is within a loop is what can still be repeated without the edges to the block where the search came to it.
    """
    return (loop for _, loop in headed_loops(graph))


def nested_loops(graph: Graph) -> Iterator[set[Place]]:
    """Yield the loops, and within one of them the inner loop that has the same head, if there is one.

    A region is entered at the head of the innermost loop, which is the head of the outer ones then, too. A compiler
    puts what leads into a loop before it. So what leads back from lower addresses belongs to an outer loop.
    """
    for head, loop in headed_loops(graph):
        yield loop
        latches = [place for place in loop if head in graph[place]]
        inner = [place for place in latches if place.calls == head.calls and place.pc >= head.pc]
        if 0 < len(inner) < len(latches):
            within = {place: [to for to in graph[place] if to in loop and to != head] for place in loop - {head}}
            found = {head, *_leading_to(inner, sources_of({head: [], **within}), set())}
            if found != loop:
                yield found


def headed_loops(graph: Graph) -> Iterator[tuple[Place, set[Place]]]:
    """Yield the loops, each with the block where the search came to it."""
    sources, done = sources_of(graph), set[Place]()
    for head in reversed(search(graph, graph).left):  # what leads to it is a strongly connected component
        loop = _leading_to([head], sources, done)
        if len(loop) > 1 or (loop and head in graph[head]):
            yield head, loop
            yield from headed_loops({place: [to for to in graph[place] if to in loop and to != head] for place in loop})


def sources_of(graph: Graph) -> Graph:
    """Return what leads to each block."""
    sources: dict[Place, list[Place]] = {place: [] for place in graph}
    for place, successors in graph.items():
        for to in successors:
            sources[to].append(place)
    return sources


def _leading_to(places: Iterable[Place], sources: Graph, done: set[Place]) -> set[Place]:
    """Return these blocks and what leads to them, but for those that are ``done``. They are done afterwards."""
    found, queue = set[Place](), list(places)
    while queue:
        place = queue.pop()
        if place not in done:
            done.add(place)
            found.add(place)
            queue += sources[place]
    return found
