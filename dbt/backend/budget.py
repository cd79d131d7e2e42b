"""Where a region looks whether its budget lasts: once for all ways without a loop, and not at each block."""

from __future__ import annotations

from dbt.frontend.forming import Place, Region


def find_checks(region: Region) -> tuple[set[Place], int]:
    """The blocks at which to look, and how many instructions may follow on one of them before the next.

    They are the entries, and where a depth-first search comes back to a block that it has not left: so there is one on
    every cycle, and ways between them are finite.
    """
    blocks = region.blocks
    ways = {place: [to for to in dict.fromkeys(block.successors()) if to in blocks] for place, block in blocks.items()}
    checks = set(region.entries.values())
    seen, left = set[Place](), dict[Place, None]()  # the second in the order in which they were left
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
    for place in left:  # what a block goes on to, other than to a check, was left before it
        follow[place] = max((len(blocks[to].insns) + follow[to] for to in ways[place] if to not in checks), default=0)
    return checks, max(follow[place] for place in checks)
