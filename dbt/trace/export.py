"""Export of a trace in the formats of other tools: Chrome and Perfetto, drcov, speedscope, and folded stacks."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from dbt.trace.log import EventKind, Note
from dbt.trace.model import Trace

_EVENT_NAMES = {
    EventKind.DEVICE_READ: "device read",
    EventKind.DEVICE_WRITE: "device write",
}
# Threads of the Chrome trace.
_GUEST, _WORKER = 1, 2


def chrome(trace: Trace) -> bytes:
    """Return the trace in Trace Event Format (JSON), which chrome://tracing and ui.perfetto.dev read. Times are in
    microseconds.
    """
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": f"dbt: {trace.title}"}},
        {"ph": "M", "pid": 1, "tid": _GUEST, "name": "thread_name", "args": {"name": "guest"}},
        {"ph": "M", "pid": 1, "tid": _WORKER, "name": "thread_name", "args": {"name": "compiler"}},
    ]
    return json.dumps({"traceEvents": [*events, *_chrome_events(trace)], "displayTimeUnit": "ms"}).encode()


def _chrome_events(trace: Trace) -> Iterator[dict[str, Any]]:
    for region in trace.regions:
        name = f"#{region.number} {trace.describe(region.gva)}"
        seconds = trace.compile_record(region).get("seconds", {})
        at = region.time / 1000 - sum(seconds.values()) * 1e6
        for phase, length in {} if region.kept else seconds.items():
            args = {"region": name, "insns": region.insns}
            what = {"name": phase, "ts": at, "dur": length * 1e6, "args": args}
            yield {"ph": "X", "pid": 1, "tid": _WORKER, "cat": "compile", **what}
            at += length * 1e6
        how = "region from disk" if region.kept else "region installed"
        yield _instant(region.time, f"{how}: {name}", {"identity": region.identity, "icount": region.icount})
    for note in trace.notes:
        if note["what"] in (Note.REFUSED, Note.DROPPED):
            yield _instant(note["time"], f"region {note['what']}: {note['why']}", {"icount": note["icount"]})
    for event in trace.events:
        if event.kind in (EventKind.EXIT, EventKind.INTERRUPT):
            yield _instant(
                event.time, trace.names.get(event.name, "?"), {"pc": trace.describe(event.pc), "icount": event.icount}
            )
        elif event.kind in _EVENT_NAMES:
            args = {"pc": trace.describe(event.pc), "gpa": f"{event.first:#x}", "value": f"{event.second:#x}"}
            yield _instant(event.time, _EVENT_NAMES[EventKind(event.kind)], args)
    names = trace.header["counts"]
    for before, after in zip(trace.counts, trace.counts[1:], strict=False):
        for group in ("insns", "exit", "exception", "callout", "mmu"):
            numbers = {
                name.partition(" ")[2]: now - then
                for name, then, now in zip(names, before.numbers, after.numbers, strict=True)
                if name.startswith(group + " ") and now
            }
            if numbers:
                yield {"ph": "C", "pid": 1, "name": group, "ts": after.time / 1000, "args": numbers}


def _instant(time: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "i", "pid": 1, "tid": _GUEST, "s": "t", "ts": time / 1000, "name": name, "args": args}


def drcov(trace: Trace) -> bytes:
    """Return the coverage in the format of DynamoRIO's drcov, version 2. Each run of executed instructions is a block.

    The module is the guest's physical memory.
    """
    blocks = list(_executed_runs(trace))
    columns = "Columns: id, base, end, entry, checksum, timestamp, path"
    module = f"  0, 0x0, {trace.header['memory']:#x}, {trace.header['entry']:#x}, 0x0, 0x0, {_path(trace)}"
    head = ["DRCOV VERSION: 2", "DRCOV FLAVOR: dbt", "Module Table: version 2, count 1", columns, module]
    text = "\n".join([*head, f"BB Table: {len(blocks)} bbs", ""])
    return text.encode() + b"".join(struct.pack("<IHH", gpa, size, 0) for gpa, size in blocks)


def _path(trace: Trace) -> str:
    return next(iter(trace.header["files"]), trace.title)


def _executed_runs(trace: Trace) -> Iterator[tuple[int, int]]:
    """Yield GPA and size in bytes of each run of executed instructions within a page."""
    for page, bitmap in trace.executed.items():
        bits = int.from_bytes(bitmap, "little")
        first = None
        for place in range(1025):
            if bits >> place & 1 and place < 1024:
                first = place if first is None else first
            elif first is not None:
                yield (page << 12) + 4 * first, 4 * (place - first)
                first = None


def folded(trace: Trace) -> bytes:
    """Return folded stacks for flame graphs: a line for each tier, region and symbol, with its instructions by
    samples.
    """
    lines = [f"{_frames(trace, place)} {place.insns}" for place in trace.hot_places if place.insns]
    return ("\n".join(lines) + "\n").encode()


def _frames(trace: Trace, place: Any) -> str:
    inside = "in regions" if place.region is not None else "outside regions"
    region = [] if place.region is None else [f"#{place.region.number}"]
    return ";".join([trace.title, inside, place.name.replace(";", ":"), *region])


def speedscope(trace: Trace) -> bytes:
    """Return a sampled profile in the format of speedscope.app, by guest symbol, weighted by time."""
    frames: dict[str, int] = {}
    samples, weights = [], []
    for sample in trace.samples:
        region = trace.region_at(sample.pc, sample.time)
        symbol = trace.symbols.find(sample.pc)
        names = [symbol[0] if symbol else f"{sample.pc:#x}", *([f"region #{region.number}"] if region else [])]
        samples.append([frames.setdefault(name, len(frames)) for name in names])
        weights.append(sample.first >> 32)
    profile = {
        "type": "sampled",
        "name": trace.title,
        "unit": "nanoseconds",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
    document = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "shared": {"frames": [{"name": name, **_source(trace, name)} for name in frames]},
        "profiles": [profile],
        "exporter": f"dbt {trace.header['dbt']}",
    }
    return json.dumps(document).encode()


def _source(trace: Trace, name: str) -> dict[str, Any]:
    """Return file and line of a symbol, if the program has line information."""
    address = next((symbol.address for symbol in trace.symbols.symbols if symbol.name == name), None)
    found = None if address is None else trace.source_line(address)
    return {} if found is None else {"file": found[0], "line": found[1]}


#: By the name of the format, the function that makes its bytes, and what it is for.
FORMATS: dict[str, tuple[Callable[[Trace], bytes], str]] = {
    "chrome": (chrome, "chrome://tracing and ui.perfetto.dev"),
    "drcov": (drcov, "coverage viewers: Lighthouse, bncov, Cartographer"),
    "folded": (folded, "flamegraph.pl and others"),
    "speedscope": (speedscope, "speedscope.app"),
}
