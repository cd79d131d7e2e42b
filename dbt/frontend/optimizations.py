"""The optimizations of the region tier. Each has a name and can be left out.

Leaving one out changes the speed and never the result. ``dbt run --without`` shows what an optimization is worth, and
narrows down a defect.
"""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

from typing import Any, NamedTuple

#: The LLVM passes that a region goes through, in order.
PASSES = ("sroa", "instcombine", "simplifycfg")


class Optimizations(NamedTuple):
    """Which optimizations are in use. Those of the first group concern what is made and how
    regions are formed, those of the second lowering."""

    stitching: bool = True  # warm code is stitched from stencils, until it is hot enough for a region
    calls: bool = True  # follow calls into their callees, and compare what they return to
    recursion: bool = True  # a call to a function that is being executed goes to the code that is there already
    targets: bool = True  # guess where indirect branches go from where they went
    tables: bool = True  # jump tables as switches over their index
    literals: bool = True  # loads from the literal pool as constants
    entries: bool = True  # while many wait, a region is entered at its functions and after calls too
    sharing: bool = True  # while many wait, what another region is entered at is left to it
    backlog: bool = True  # smaller regions while many wait for the compiler
    blocks: bool = True  # instructions take from the budget together, not each for itself
    paths: bool = True  # whether the budget lasts is checked once for all ways without a loop, not at each block

    flat: bool = True  # loads from RAM by base and bound, not by the shadow page table (without an MMU)
    spans: bool = True  # accesses by one register and constants are checked together
    checks: bool = True  # what was checked is not checked again; loops have their frame checked before (without an MMU)
    guesses: bool = True  # what a loop follows a pointer to is likely in the page of the last (with an MMU)
    lookups: bool = True  # where a table lies that a loop reads by a small index is found once (with an MMU)
    early_zext: bool = True  # addresses are extended to 64 bits before they are checked
    shared_exits: bool = True  # one copy of the code that leaves a region, for all its exits
    if_conversion: bool = True  # both ways of a branch around a subtraction are executed, and one result selected
    derived_counts: bool = True  # where blocks are counted, only those from which the others follow
    lazy_flags: bool = True  # flags kept as what they follow from, until they are read
    passes: tuple[str, ...] = PASSES

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names that :meth:`without` accepts: those of the optimizations and of the passes."""
        return (*(name for name in cls._fields if name != "passes"), *PASSES)

    @classmethod
    def without(cls, *names: str) -> "Optimizations":
        """Return all optimizations but the named ones. Raise ValueError for a name that does not exist."""
        if unknown := [name for name in names if name not in cls.names()]:
            raise ValueError(f"there is no optimization {unknown[0]!r}: they are {', '.join(cls.names())}")
        chosen: dict[str, Any] = {name: False for name in names if name not in PASSES}
        return cls(**chosen, passes=tuple(name for name in PASSES if name not in names))

    def describe(self) -> str:
        """Return the names of what is left out, separated by commas; an empty text if nothing is."""
        left_out = [name for name in self._fields if getattr(self, name) is False]
        return ",".join([*left_out, *(name for name in PASSES if name not in self.passes)])


#: Without these, a region can stop after each of its instructions. Searching for one instruction needs that.
STEPWISE = ("blocks", "paths")

#: All optimizations, which is the default.
ALL = Optimizations()
