"""Choice of the blocks at which a region checks its budget: a few of them, with at least one on every loop."""

from __future__ import annotations

from dbt.frontend.forming import Place, Region


def find_checks(region: Region) -> tuple[set[Place], int]:
    """Return the blocks that check the budget, and the most instructions from one check to the next.

    The checks are at the entries, and at blocks to which a depth-first search comes back before it has left them.
    Therefore every cycle has a check, and the paths between checks are finite.
    """
    blocks = region.blocks
    ways = {place: [to for to in dict.fromkeys(block.successors()) if to in blocks] for place, block in blocks.items()}
    checks = set(region.entries.values())
    seen, left = set[Place](), dict[Place, None]()  # second: the blocks, in the order in which the search left them
    for entry in region.entries.values():
        path = [] if entry in seen else [(entry, iter(ways[entry]))]
        seen.add(entry)
        while path:
            place, rest = path[-1]
            for to in rest:
                if to not in seen:
                    seen.add(to)
                    path.append((to, iter(ways[to])))
                    break
                if to not in left:
                    checks.add(to)
            else:
                path.pop()
                left[place] = None
    follow: dict[Place, int] = {}
    for place in left:  # the search left a block's successors, other than checks, before the block
        follow[place] = max((len(blocks[to].insns) + follow[to] for to in ways[place] if to not in checks), default=0)
    return checks, max(follow[place] for place in checks)
