"""In which tiers the code at an address was executed, and why there and not elsewhere (``dbt trace why ADDRESS``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gpa, Gva
from dbt.trace.log import Note
from dbt.trace.model import Trace, TracedRegion

if TYPE_CHECKING:
    from dbt.trace.stitched import StitchedTrace


class TierAnswer(NamedTuple):
    """What is known of an address in a tier: ``is_there`` says whether its code was there at any time."""

    tier: str
    is_there: bool
    text: str


def tiers_of(trace: Trace, gva: Gva) -> Iterator[TierAnswer]:
    """Yield what is known of the instruction at an address in each tier of the run, the lowest first."""
    gpa = trace.gpa_of(gva)
    if trace.lowest_tier == "reference":
        yield TierAnswer("reference", True, "everything is evaluated in Python")
        return
    yield _by_handler(trace, gpa)
    stitched = trace.stitched
    if stitched is not None:
        yield from _in_stitched_code(trace, stitched, gpa)
    elif trace.header["tier"] != "threaded":
        why = "nothing was stitched" if trace.is_complete else "stitched code is recorded at the end, which is missing"
        yield TierAnswer("stitched", False, why)
    if trace.header["tier"] == "auto":
        yield from _in_regions(trace, gpa)


def _by_handler(trace: Trace, gpa: Gpa) -> TierAnswer:
    if trace.was_executed(gpa):
        return TierAnswer("threaded", True, "its handler executes it wherever nothing below does")
    if not trace.is_complete:
        return TierAnswer("threaded", False, "what was executed is recorded at the end, which is missing")
    return TierAnswer("threaded", False, "it was not executed, or was written over since")


def _in_stitched_code(trace: Trace, stitched: StitchedTrace, gpa: Gpa) -> Iterator[TierAnswer]:
    from dbt.trace.stitched_panes import checked, describe_block, stencil_of

    for block in stitched.blocks_at(gpa):
        index = (gpa - block.gpa) // 4
        with checked(trace):
            made_of = stencil_of(stitched, block, index)
        yield TierAnswer("stitched", True, f"in the block of {describe_block(trace, block)}, by the stencil {made_of}")
    why = stitched.why_not(gpa)
    if why is not None:
        lost = f"; {stitched.lost} blocks were dropped when the memory was full" if stitched.lost else ""
        yield TierAnswer("stitched", False, f"{why}{lost}")


def _in_regions(trace: Trace, gpa: Gpa) -> Iterator[TierAnswer]:
    found = [region for region in trace.regions if gpa in region.words]
    for region in found:
        yield TierAnswer("region", True, _describe_region(trace, region, gpa))
    if not found:
        asked = [note for note in trace.notes if note["what"] == Note.REQUESTED and note["entry"] == gpa]
        refused = [note["why"] for note in trace.notes if note["what"] == Note.REFUSED and note["entry"] == gpa]
        if refused:
            yield TierAnswer("region", False, f"it was refused: {refused[-1]}")
        elif asked:
            yield TierAnswer("region", False, f"requested at {asked[-1]['time'] / 1e6:.1f} ms, and not installed")
        else:
            yield TierAnswer("region", False, "no region that was asked for has it: it was not hot enough")


def _describe_region(trace: Trace, region: TracedRegion, gpa: Gpa) -> str:
    is_entry = gpa == region.entry or gpa in region.others
    where = "entered there" if is_entry else f"entered at {trace.describe(region.gva)}"
    how = "from disk" if region.kept else "compiled"
    text = f"#{region.number}, {where}, {how} and installed at {region.time / 1e6:.1f} ms"
    if region.dropped is None:
        return text
    return f"{text}, dropped at {region.dropped['time'] / 1e6:.1f} ms: {region.dropped['why']}"
