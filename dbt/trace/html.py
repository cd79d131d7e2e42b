"""The report: one page that opens offline and shows everything that a trace has."""

from __future__ import annotations

import base64
import json
import os
import zlib
from bisect import bisect_left
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from dbt.trace.control_flow import control_flow
from dbt.trace.log import EventKind, Note
from dbt.trace.model import HotPlace, Trace, TracedRegion
from dbt.trace.moment import debugger_command
from dbt.trace.panes import PANES, TITLES, Panes, panes_of
from dbt.trace.stitched_panes import stitched_blocks, stitched_panes

TABS = (
    ("hot", "hot code"),
    ("why", "why"),
    ("timeline", "timeline"),
    ("graph", "graph"),
    ("memory", "memory"),
    ("stats", "statistics"),
)
#: Regions in the graph, instructions that are named for one of its edges, and samples of the counts in the timeline, at
#: most.
_NODES = 150
_SITES = 8
_SERIES = 8000
#: The panes are made for this many regions unless told otherwise; to make those of one takes some tens of milliseconds.
PANED_REGIONS = 500


def report(trace: Trace, stats: Iterable[str], paned: int = PANED_REGIONS) -> str:
    """Return the page's text. ``stats`` are the lines of the statistics. The ``paned`` hottest regions have panes."""
    from jinja2 import Environment

    page = files("dbt.trace") / "page"
    template = Environment(autoescape=True).from_string((page / "report.html.j2").read_text(encoding="utf-8"))
    # Within a script element both "</script" and "<!--" mean something to HTML, so no "<" is left.
    data = json.dumps(_data(trace, paned), separators=(",", ":")).replace("<", "\\u003c")
    return template.render(
        title=trace.title,
        summary=_summary(trace),
        notice="" if trace.is_complete else "The run did not end in an orderly way: this is what was recorded.",
        tabs=TABS,
        stats="\n".join(stats),
        style=_verbatim((page / "report.css").read_text(encoding="utf-8")),
        script=_verbatim((page / "report.js").read_text(encoding="utf-8")),
        graph=_verbatim((page / "graph.js").read_text(encoding="utf-8")),
        dagre=_verbatim((page / "vendor" / "dagre.min.js").read_text(encoding="utf-8")),
        data=_verbatim(data),
    )


def _verbatim(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # only our own files, and JSON in which every "<" is escaped


def _summary(trace: Trace) -> str:
    header, totals = trace.header, trace.totals
    inside, stitched = (100 * totals[f"insns {name}"] / max(trace.icount, 1) for name in ("region", "stitched"))
    return (
        f"{trace.icount:,} instructions in {trace.nanoseconds / 1e9:.3f} s, {inside:.1f} % of them in regions, "
        f"{stitched:.1f} % in stitched code; "
        f"{len(trace.regions)} regions installed; tier {header['tier']}, cpu {header['cpu']}, dbt {header['dbt']}"
    )


def _data(trace: Trace, count: int) -> dict[str, Any]:
    places = trace.hot_places
    order = dict.fromkeys(place.region.number for place in places if place.region is not None)
    paned = [trace.regions[number - 1] for number in order][:count]
    names, blocks = _blocks(trace)
    return {
        "places": [_place(trace, place, number < count) for number, place in enumerate(places)],
        "regions": [_region(trace, region) for region in trace.regions],
        "names": names,
        "blocks": blocks,
        "panes": {region.number: _panes(panes_of(trace, region)) for region in paned},
        "why": [_reason(trace, reason) for reason in trace.reasons],
        "timeline": _timeline(trace),
        "graph": _graph(trace),
        "memory": {**trace.memory, "ram": trace.header["memory"]},
    }


def _place(trace: Trace, place: HotPlace, has_panes: bool) -> dict[str, Any]:
    region = place.region
    blocks = stitched_blocks(trace, place) if has_panes else []
    found: dict[str, Any] = {
        "name": place.name,
        "share": round(place.share, 6),
        "samples": place.samples,
        "insns": place.insns,
        "tier": place.tier,
        "panes": _panes(stitched_panes(trace, blocks)) if blocks else None,
        "size": 0,
        "expansion": 0,
        "ms": 0,
    }
    if region is None:
        return found
    seconds = sum(trace.compile_record(region).get("seconds", {}).values())
    found |= {
        "region": region.number,
        "size": region.insns,
        "expansion": round(region.expansion, 2),
        "ms": round(1000 * seconds, 2),
        "dropped": "" if region.dropped is None else region.dropped["why"],
    }
    if trace.block_counters:
        found["executions"] = trace.block_counters["block"].get(region.entry, 0)
        found["exits"] = trace.exits_of(region).total()
    return found


def _region(trace: Trace, region: TracedRegion) -> dict[str, Any]:
    compile_record = trace.compile_record(region)
    about = [f"{region.insns} guest instructions, {len(region.code)} bytes of host code"]
    about += [f"{name} {1000 * seconds:.1f} ms" for name, seconds in compile_record.get("seconds", {}).items()]
    about += ["made in backlog mode"] if compile_record.get("backlog") else []
    about += ["from disk"] if region.kept else []
    exits = trace.exits_of(region)
    if exits:
        about.append("left: " + "; ".join(f"{count:,} by {reason}" for reason, count in exits.most_common()))
    if region.dropped is not None:
        by = trace.describe(region.dropped["pc"])
        about.append(f"dropped at {region.dropped['time'] / 1e6:.1f} ms, {region.dropped['why']}, by {by}")
    return {
        "number": region.number,
        "identity": region.identity,
        "symbol": trace.describe(region.gva),
        "about": ", ".join(about),
        "command": debugger_command(os.path.abspath(trace.path), region.icount),
        "heat": _heat(trace, region),
    }


def _heat(trace: Trace, region: TracedRegion) -> dict[str, float]:
    """Return the share of each address among the samples in the region, by its label in the guest's pane."""
    found = trace.sampled_in(region)
    total = sum(found.values()) or 1
    return {f"{pc:08x}": round(insns / total, 4) for pc, insns in found.items()}


def _blocks(trace: Trace) -> tuple[list[str], list[list[Any]]]:
    """Return names, and rows of region, block, address, instructions, executions or null, number of the name, and
    offset.
    """
    numbers: dict[str, int] = {}
    rows = []
    counts = trace.block_counters.get("block")
    for region in trace.regions:
        for number, block in enumerate(trace.compile_record(region).get("blocks", ())):
            pc = block["pc"]
            symbol = trace.symbols.find(pc) or (f"{pc:#x}", 0)
            name = numbers.setdefault(symbol[0], len(numbers))
            executions = None if counts is None else counts.get(region.to_gpa(pc), 0)
            rows.append([region.number, number, pc, len(block["insns"]), executions, name, symbol[1]])
    return list(numbers), rows


def _panes(panes: Panes) -> str:
    content = [
        {
            "name": name,
            "title": title + (f": {panes.attributed} of {panes.host_insns} attributed" if name == "host" else ""),
            "rows": [
                [
                    row.label,
                    row.text,
                    row.origin[:2] if row.origin else None,
                    row.origin[2] if row.origin else -1,
                    row.line,
                ]
                for row in panes.rows[name]
            ],
        }
        for name, title in zip(PANES, TITLES, strict=True)
    ]
    return base64.b64encode(zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 6)).decode()


def _reason(trace: Trace, reason: Any) -> dict[str, Any]:
    region = None if reason.pc is None else trace.region_at(reason.pc, trace.nanoseconds)
    where = "" if reason.pc is None else f"{reason.pc:#010x} {trace.describe_line(reason.pc)}"
    found = {"kind": reason.kind, "count": reason.count, "where": where, "text": reason.text}
    return found if region is None else {**found, "region": region.number}


def _timeline(trace: Trace) -> dict[str, Any]:
    counts = trace.counts[:: max(1, len(trace.counts) // _SERIES)]
    names = trace.header["counts"]
    places = {name: number for number, name in enumerate(names)}

    def series(*wanted: str) -> list[int]:
        at = [places[name] for name in wanted]
        return [0, *(sum(count.numbers[place] for place in at) for count in counts)]

    def group(prefix: str) -> list[int]:
        return series(*(name for name in names if name.startswith(prefix)))

    interrupts = sorted(event.time for event in trace.events if event.kind == EventKind.INTERRUPT)
    exceptions = group("exception ")
    exceptions = [
        number + bisect_left(interrupts, time)
        for number, time in zip(exceptions, [0, *(count.time for count in counts)], strict=True)
    ]
    asked = {note["entry"]: note["time"] for note in trace.notes if note["what"] == Note.REQUESTED}
    compiled = []
    for region in trace.regions:
        seconds = sum(trace.compile_record(region).get("seconds", {}).values())
        if not region.kept:
            begun = max(0, region.time - round(1e9 * seconds))
            name = f"#{region.number} {trace.describe(region.gva)}"
            compiled.append([min(asked.get(region.entry, begun), begun), begun, region.time, name])
    devices = [e.time for e in trace.events if e.kind in (EventKind.DEVICE_READ, EventKind.DEVICE_WRITE)]
    marks = [[region.time, "kept" if region.kept else "installed"] for region in trace.regions]
    marks += [[region.dropped["time"], "dropped"] for region in trace.regions if region.dropped is not None]
    return {
        "end": max(trace.nanoseconds, 1),
        "times": [0, *(count.time for count in counts)],
        "tiers": {name: series(f"insns {name}") for name in ("region", "stitched", "threaded", "reference", "machine")},
        "exceptions": exceptions,
        "callouts": group("callout "),
        "exits": group("exit "),
        "compiled": compiled,
        "devices": devices[:: max(1, len(devices) // _SERIES)],
        "marks": marks,
    }


def _graph(trace: Trace) -> dict[str, Any]:
    """Return nodes, and edges between their numbers: source, target, count or null, whether it is exact, and sites."""
    flow = control_flow(trace, _NODES)
    numbers = {key: number for number, key in enumerate(flow.nodes)}
    return {
        "nodes": [
            {"label": node.name, "region": node.region, "share": round(node.share, 4)} for node in flow.nodes.values()
        ],
        "edges": [
            [numbers[source], numbers[target], way.count, way.is_exact, sorted(way.sites)[:_SITES]]
            for (source, target), way in flow.ways.items()
        ],
        "counted": bool(trace.block_counters),
        "left": flow.left,
    }
