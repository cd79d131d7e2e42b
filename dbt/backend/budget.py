"""Choice of the blocks at which a region checks its budget: a few of them, with at least one on every loop."""

from __future__ import annotations

from dbt.frontend.forming import Place, Region
from dbt.frontend.graph import graph_of, search


def find_checks(region: Region) -> tuple[set[Place], int]:
    """Return the blocks that check the budget, and the most instructions from one check to the next.

    The checks are at the entries, and at blocks to which a depth-first search comes back before it has left them.
    Therefore every cycle has a check, and the paths between checks are finite.
    """
    blocks, graph = region.blocks, graph_of(region)
    found = search(graph, region.entries.values())
    checks = {*region.entries.values(), *found.heads}
    follow: dict[Place, int] = {}
    for place in found.left:  # the search left a block's successors, other than checks, before the block
        follow[place] = max((len(blocks[to].insns) + follow[to] for to in graph[place] if to not in checks), default=0)
    return checks, max(follow[place] for place in checks)
