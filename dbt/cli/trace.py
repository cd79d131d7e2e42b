"""``dbt trace``: shows a translation trace as text, JSON, a page, a terminal program, and for other tools."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dbt.abi.addresses import Gva
from dbt.cli.outputs import check_outputs, open_output
from dbt.cli.report import INSTALL_REMEDY, say
from dbt.cli.statistics import lines_of
from dbt.cli.status import CommandError, Status
from dbt.debug.divergence import describe_first
from dbt.frontend.optimizations import STEPWISE
from dbt.inspector.symbols import printable
from dbt.trace.log import TraceError
from dbt.trace.model import HotPlace, Reason, Trace, TracedRegion
from dbt.trace.panes import PANES, TITLES, Panes, panes_of
from dbt.vm.result import StopReason

if TYPE_CHECKING:
    from dbt.trace.compare import Difference
    from dbt.trace.stitched import TracedBlock

#: What a name begins with that is to be one of stitched code, though a region has it too.
_STITCHED = "stitched:"
#: The width for output that is not a terminal, where each reason has one line.
_PIPE_WIDTH = 1 << 16
#: The reasons for which a run is stopped from outside, at a time that does not depend on the guest.
_STOPPED = (StopReason.FUEL.value, StopReason.TIMEOUT.value, StopReason.INTERRUPTED.value)


def open_trace(path: str) -> Trace:
    """Return a trace. Raise CommandError if it cannot be read. Tell the user if the run did not end in an orderly
    way.
    """
    try:
        trace = Trace(path)
    except TraceError as error:
        raise CommandError(f"{error}.", Status.BAD_INPUT) from None
    if not trace.is_complete:
        say(f"{path}: the run did not end in an orderly way; this is what was recorded until then")
    return trace


def _print(lines: Iterable[str]) -> int:
    for line in lines:
        print(printable(line))
    return 0


def _print_json(answer: object) -> int:
    json.dump(answer, sys.stdout, indent=1)
    print()
    return 0


# -- stats -----------------------------------------------------------------------------------------


def print_stats(path: str, as_json: bool) -> int:
    """Print the numbers that ``dbt run --stats`` prints."""
    trace = open_trace(path)
    if not as_json:
        return _print(stats_lines(trace))
    if trace.end is None:
        return _print_json({"icount": trace.icount, "counts": trace.totals})
    return _print_json({key: trace.end[key] for key in ("icount", "seconds", "reason", "events", "statistics")})


def stats_lines(trace: Trace) -> Iterable[str]:
    """Return the lines of ``--stats``. For a run that was killed, they have the counts that were read last."""
    end, header = trace.end, trace.header
    if end is None:
        return (f"{name:<40}{number:>16,}" for name, number in trace.totals.items() if number)
    try:
        statistics, events, seconds = end["statistics"], end["events"], end["seconds"]
        return list(lines_of(statistics, events, header["tier"], end["icount"], header["memory"], seconds))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        raise TraceError(f"{trace.path}: its statistics cannot be understood. Record it again") from None


# -- top -------------------------------------------------------------------------------------------


def print_top(path: str, count: int, as_json: bool) -> int:
    """Print where the guest's instructions were executed."""
    trace = open_trace(path)
    places = trace.hot_places[: count or None]
    if as_json:
        return _print_json([_place(trace, place) for place in places])
    if not trace.samples:
        say("the run was too short to be sampled: the shares are not known")
    return _print(_top_lines(trace, places))


def _top_lines(trace: Trace, places: list[HotPlace]) -> Iterable[str]:
    yield f"{trace.title}: {trace.icount:,} instructions, {len(trace.samples):,} samples, {len(trace.regions)} regions"
    yield f"{'share':>7} {'insns':>16} {'tier':8} {'region':>6} {'size':>5} {'x':>4} {'ms':>6}  where"
    for place in places:
        region = place.region
        share = f"{100 * place.share:6.1f}%" if place.samples else "      -"
        if region is None:
            yield f"{share} {place.insns:16,} {place.tier:8} {'':24}  {place.name}"
        else:
            seconds = sum(trace.compile_record(region).get("seconds", {}).values())
            about = f"{f'#{region.number}':>6} {region.insns:5} {region.expansion:4.1f} {1000 * seconds:6.1f}"
            name = place.name if region.is_live else f"{place.name} (dropped)"
            yield f"{share} {place.insns:16,} {'region':8} {about}  {name}"


def _place(trace: Trace, place: HotPlace) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": place.name,
        "tier": place.tier,
        "share": place.share,
        "sampled_insns": place.insns,
        "sampled_seconds": place.nanoseconds / 1e9,
        "samples": place.samples,
    }
    if place.region is not None:
        found["region"] = region_as_json(trace, place.region)
    return found


def region_as_json(trace: Trace, region: TracedRegion) -> dict[str, Any]:
    return {
        "number": region.number,
        "identity": region.identity,
        "entry": region.gva,
        "gpa": region.entry,
        "symbol": trace.describe(region.gva),
        "insns": region.insns,
        "code_bytes": len(region.code),
        "expansion": round(region.expansion, 2),
        "from_disk": region.kept,
        "installed_ns": region.time,
        "icount": region.icount,
        "dropped": None if region.dropped is None else {k: region.dropped[k] for k in ("time", "why", "written", "pc")},
        "seconds": trace.compile_record(region).get("seconds", {}),
        "exits": dict(trace.exits_of(region)) if trace.block_counters else None,
    }


# -- block -----------------------------------------------------------------------------------------


def print_block(path: str, name: str, pane: str, as_json: bool) -> int:
    """Print one region at each stage."""
    trace = open_trace(path)
    region = None if name.startswith(_STITCHED) else trace.find_region(name)
    if region is None:
        blocks = with_extras(lambda: trace.find_stitched(name.removeprefix(_STITCHED)))
        if blocks:
            return _print_stitched(trace, blocks, pane, as_json)
        known = ", ".join(f"#{region.number} {trace.describe(region.gva)}" for region in trace.regions[:8])
        message = (
            f"{path}: no region has {name}, and no stitched code. There are {len(trace.regions)} regions: {known}."
        )
        raise CommandError(message, Status.USAGE)
    panes = with_extras(lambda: panes_of(trace, region))
    wanted = PANES if pane == "all" else (pane,)
    if as_json:
        rows = {key: [[row.label, row.text, row.origin, row.line] for row in panes.rows[key]] for key in wanted}
        return _print_json({**region_as_json(trace, region), "attributed": panes.attributed, "panes": rows})
    return _print(_block_lines(trace, region, panes, wanted))


def _print_stitched(trace: Trace, blocks: list[TracedBlock], pane: str, as_json: bool) -> int:
    """Print the stitched blocks of a symbol or around an address."""
    from dbt.trace.stitched_panes import stitched_panes

    assert trace.stitched is not None
    panes = with_extras(lambda: stitched_panes(trace, blocks))
    wanted = PANES if pane == "all" else (pane,)
    if as_json:
        rows = {key: [[row.label, row.text, row.origin, row.line] for row in panes.rows[key]] for key in wanted}
        return _print_json({"stitched": [stitched_as_json(trace, block) for block in blocks], "panes": rows})
    insns, size = (sum(found) for found in zip(*((len(b.words), b.size) for b in blocks), strict=True))
    lines = [
        f"stitched code  {trace.describe(trace.gva_of(blocks[0].gpa))}",
        f"blocks {len(blocks)}, guest instructions {insns}, bytes of host code {size} ({size / (4 * insns):.1f} for 1)",
    ]
    return _print([*lines, *_pane_lines(panes, [name for name in wanted if panes.rows[name]])])


def stitched_as_json(trace: Trace, block: TracedBlock) -> dict[str, Any]:
    return {
        "entry": trace.gva_of(block.gpa),
        "gpa": block.gpa,
        "symbol": trace.describe(trace.gva_of(block.gpa)),
        "insns": len(block.words),
        "code_bytes": block.size,
        "root": block.root,
        "arrivals": block.arrivals,
        "state": block.state.name.lower(),
    }


def _block_lines(trace: Trace, region: TracedRegion, panes: Panes, wanted: Iterable[str]) -> Iterable[str]:
    yield f"region #{region.number} {region.identity}  {trace.describe(region.gva)}"
    yield f"{region.insns} guest instructions, {len(region.code)} bytes of host code ({region.expansion:.1f} for 1)"
    compile_record = trace.compile_record(region)
    if compile_record:
        phases = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in compile_record["seconds"].items())
        mode = "; made in backlog mode" if compile_record["backlog"] else ""
        yield f"{phases}{mode}{'; from disk' if region.kept else ''}"
        yield f"{panes.attributed} of {panes.host_insns} host instructions belong to a guest instruction"
    if region.dropped is not None:
        yield f"dropped: {region.dropped['why']}, by the store at {trace.describe(region.dropped['pc'])}"
    yield from _pane_lines(panes, wanted)


def _pane_lines(panes: Panes, wanted: Iterable[str]) -> Iterable[str]:
    for name, title in zip(PANES, TITLES, strict=True):
        if name in wanted:
            yield f"\n-- {title} " + "-" * (74 - len(title))
            for row in panes.rows[name]:
                yield f"{row.label:>8}  {row.text}".rstrip()


# -- why -------------------------------------------------------------------------------------------


def print_why(path: str, place: str | None, as_json: bool) -> int:
    """Print why control was not in compiled code; with an address or a symbol, in which tiers its code was and why."""
    trace = open_trace(path)
    if place is not None:
        return _print_why_there(trace, _address_of(trace, place), as_json)
    if as_json:
        return _print_json([_reason_as_json(trace, reason) for reason in trace.reasons])
    return _print(_why_lines(trace, trace.reasons))


def _address_of(trace: Trace, place: str) -> Gva:
    try:
        return Gva(int(place, 0) & 0xFFFFFFFC)
    except ValueError:
        symbol = next((symbol for symbol in trace.symbols.symbols if symbol.name == place), None)
    if symbol is None:
        raise CommandError(f"{trace.path}: {place} is neither an address nor a symbol of the guest.", Status.USAGE)
    return Gva(symbol.address)


def _print_why_there(trace: Trace, gva: Gva, as_json: bool) -> int:
    from dbt.trace.why import tiers_of

    answers = with_extras(lambda: list(tiers_of(trace, gva)))
    reasons = [reason for reason in trace.reasons if reason.pc == gva]
    if as_json:
        return _print_json(
            {
                "pc": gva,
                "symbol": trace.describe_line(gva),
                "tiers": [answer._asdict() for answer in answers],
                "reasons": [_reason_as_json(trace, reason) for reason in reasons],
            }
        )
    lines = [f"{gva:#010x} {trace.describe_line(gva)}"]
    for answer in answers:
        lines += _wrapped(f"{answer.tier:<10}{'' if answer.is_there else 'not: '}{answer.text}", 10)
    return _print([*lines, *_why_lines(trace, reasons)])


def _reason_as_json(trace: Trace, reason: Reason) -> dict[str, Any]:
    return {
        "kind": reason.kind,
        "pc": reason.pc,
        "symbol": None if reason.pc is None else trace.describe_line(reason.pc),
        "count": reason.count,
        "reason": reason.text,
    }


def _wrapped(text: str, indent: int) -> list[str]:
    width = shutil.get_terminal_size((_PIPE_WIDTH, 0)).columns
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def _why_lines(trace: Trace, reasons: list[Reason]) -> Iterable[str]:
    kind = ""
    for reason in reasons:
        if reason.kind != kind:
            kind = reason.kind
            yield f"{kind}:"
        place = "" if reason.pc is None else f"{trace.describe_line(reason.pc)}: "
        yield from _wrapped(f"{reason.count:>14,}  {place}{reason.text}", 18)


# -- html ------------------------------------------------------------------------------------------


def write_page(path: str, output: str, regions: int) -> int:
    """Write the report, one page that opens offline."""

    check_outputs([("-o", output)], [("the recording", path)])

    def make() -> int:
        from dbt.trace.html import report

        trace = open_trace(path)
        text = report(trace, stats_lines(trace), regions)
        with open_output("-o", output) as file:
            file.write(text.encode())
        say(f"{output}: {len(text) / 1e6:.1f} MB")
        return 0

    return with_extras(make)


# -- export ----------------------------------------------------------------------------------------


def write_export(path: str, format_: str, output: str | None) -> int:
    """Write the trace in the format of another tool, to standard output unless ``output`` is given."""
    from dbt.trace.export import FORMATS

    if format_ not in FORMATS:
        known = ", ".join(f"{name} ({what})" for name, (_, what) in FORMATS.items())
        raise CommandError(f"{format_}: there is no such format; there are {known}.", Status.USAGE)
    check_outputs([("-o", output)], [("the recording", path)])
    content = FORMATS[format_][0](open_trace(path))
    if output is None:
        sys.stdout.buffer.write(content)
        return 0
    with open_output("-o", output) as file:
        file.write(content)
    return 0


# -- view ------------------------------------------------------------------------------------------


def view(path: str) -> int:
    """Run the terminal program. It needs a terminal for its keys and one for its pictures."""

    def run() -> int:
        from dbt.trace.view import TraceViewer

        trace = open_trace(path)
        for name, descriptor in (("input", 0), ("output", 1)):
            if not os.isatty(descriptor):
                message = (
                    f"standard {name} is not a terminal, and dbt trace view needs one; dbt trace html writes a page."
                )
                raise CommandError(message, Status.USAGE)
        TraceViewer(trace).run()
        return 0

    return with_extras(run)


_T = TypeVar("_T")
#: The libraries of the extra "trace".
_EXTRAS = ("elftools", "jinja2", "textual")


def with_extras(what: Callable[[], _T]) -> _T:
    """Call a function that needs libraries of an extra. Raise CommandError if they are missing."""
    try:
        return what()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRAS:
            raise
        name = error.name.partition(".")[0]
        message = f"this takes the Python package {name}: {INSTALL_REMEDY}, pip install -e '.[trace]'."
        raise CommandError(message, Status.FAILURE) from None


# -- diff ------------------------------------------------------------------------------------------


def print_diff(path: str, other: str, files: str | None, as_json: bool) -> int:
    """Compare two runs of one program, which may be in two tiers. Return status 1 if they differ.

    ``files`` is the directory for guests that had one in their runs.
    """
    from dbt.cli.origin import start_again
    from dbt.trace.compare import common_checkpoints, first_difference

    traces = open_trace(path), open_trace(other)
    agreed, differs, count = common_checkpoints(*traces)
    ends = [trace.end for trace in traces if trace.end is not None]
    same: bool | None = None  # where one was not recorded to its end
    if len(ends) == 2:
        same = all(ends[0][key] == ends[1][key] for key in ("icount", "exit_code", "pc"))
    at_end = differs is None and same is False and all(end["reason"] not in _STOPPED for end in ends)
    if at_end:
        differs = max(end["icount"] for end in ends)
    if differs is None:
        answer: dict[str, Any] = {"checkpoints": count, "agreed": agreed, "differs": None, "same_end": same}
        if as_json:
            _print_json(answer)
        else:
            first = f"the registers are equal at {count} checkpoints, up to instruction {agreed:,}"
            _print((first, "the runs end alike" if same else f"the ends are not alike: {_ends(traces)}"))
        return 1 if same is False else 0
    # A difference that is one of how regions were compiled may not be there where they are compiled otherwise.
    start = partial(start_again, files=files)
    exact = first_difference(traces, partial(start, without=STEPWISE), agreed, differs)
    found = exact or first_difference(traces, start, agreed, differs)
    if as_json:
        _print_json(
            {
                "checkpoints": count,
                "agreed": agreed,
                "differs": differs if found is None else found.insn,
                "exact": exact is not None,
                "pc": None if found is None else found.before.pc,
                "registers": [] if found is None else [dict(machine.cpu.describe()) for machine in found.after],
                "memory": [] if found is None else found.memory,
                "commands": [] if found is None else _commands(found, traces, files),
            }
        )
        return 1
    where = f"the ends differ: {_ends(traces)}" if at_end else f"they differ at {differs:,}"
    _print((f"the registers are equal at {count} checkpoints, up to instruction {agreed:,}, and {where}",))
    if found is None:
        remedy = "it was input that --record did not write down, or what was compiled when"
        _print((f"run again they do not differ: {remedy}",))
    else:
        _print(_difference_lines(found, exact is not None))
        _print(("open this moment of each in gdb:", *(f"  {line}" for line in _commands(found, traces, files))))
    return 1


def _difference_lines(found: Difference, is_exact: bool) -> Iterable[str]:
    yield describe_first(found.insn, found.before, is_exact)
    mine, theirs = (dict(machine.cpu.describe()) for machine in found.after)
    for name in mine:
        if mine[name] != theirs[name]:
            yield f"  {name:>4}  {mine[name]:08x}  {theirs[name]:08x}"
    for gpa, one, two in found.memory[:16]:
        yield f"  [{gpa:#010x}]  {one:08x}  {two:08x}"


def _commands(found: Difference, traces: Iterable[Trace], files: str | None) -> list[str]:
    """Return the commands that let gdb connect in front of the instruction, to each of the runs."""
    from dbt.trace.moment import debugger_command

    return [
        debugger_command(trace.path, found.insn - 1, files if trace.header["command"].get("files") else None)
        for trace in traces
    ]


def _ends(traces: Iterable[Trace]) -> str:
    return "; ".join(
        "not recorded"
        if end is None
        else f"{end['reason']} with {end['exit_code']} after {end['icount']:,} instructions"
        for end in (trace.end for trace in traces)
    )
