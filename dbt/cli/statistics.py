"""The statistics of a run, as numbers for ``--json`` and as lines for people (``--stats``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dbt.abi.addresses import Gva
from dbt.abi.layout import SIDE_EXIT_TEXTS
from dbt.board.clock import DEFAULT_INSN_NS, ticks_per_second
from dbt.inspector.disassembly import disassemble_place
from dbt.vm.machine import Machine
from isa.arm.state import SCTLR_M

if TYPE_CHECKING:
    from dbt.engine.region_counts import RegionActivity

#: The means of execution in words, by their names in ``Machine.retired``.
_MEANS = {
    "region": "in regions",
    "stitched": "in stitched code",
    "threaded": "threaded",
    "reference": "reference",
    "machine": "supervisor calls",
}
#: How many addresses of sensitive instructions are shown. ``--json`` has all.
_MOST_PLACES = 10


def statistics(machine: Machine) -> dict[str, Any]:
    """Return the statistics. Some tiers have further groups.

    ``instructions`` add up to the run's icount, or to what has been executed since the machine was restored.
    """
    found: dict[str, Any] = {"instructions": machine.retired, "insn_ns": machine.timeline.insn_ns}
    if callouts := dict(machine.tier.callouts):
        found["callouts"] = callouts
        found["callout_places"] = _callout_places(machine)
    if (stitching := machine.tier.stitching) is not None:
        found["stitching"] = stitching._asdict()
    if (regions := machine.tier.regions) is not None:
        found |= _region_statistics(regions)
    if (hypervisor := machine.board.hypervisor) is not None:
        found["back_ends"] = {one.name: dict(vars(one.counts)) for one in hypervisor.back_ends}
    return found


def _callout_places(machine: Machine) -> list[dict[str, Any]]:
    """Return the sensitive instructions that were executed, by guest physical address, the most frequent first."""
    is_virtual = machine.cpu["sctlr"] & SCTLR_M
    found = []
    for gpa, count in sorted(machine.tier.callout_places.items(), key=lambda place: (-place[1], place[0])):
        place = {
            "address": f"{gpa:#010x}",
            "word": f"{machine.peek_word(gpa) or 0:#010x}",
            "count": count,
        }
        # With an MMU, symbols are about addresses that this one may have many of.
        if not is_virtual and machine.symbols.find(Gva(gpa)):
            place["symbol"] = machine.symbolize(gpa)
        found.append(place)
    return found


def _region_statistics(activity: RegionActivity) -> dict[str, Any]:
    """Return the counts of regions. ``requested`` is the sum of compiled, refused, outdated, lost and pending."""
    counts, worker = activity.counts, activity.worker
    found: dict[str, Any] = {
        "regions": {
            "requested": worker.requests + activity.waiting,
            "compiled": counts.compiled,
            "refused": counts.refused - worker.lost,
            "outdated": counts.outdated,
            "lost": worker.lost,
            "pending": worker.pending + activity.waiting,
            "loaded": counts.loaded,
            "earlier": counts.earlier,
            "left": activity.left,
            "dropped": counts.dropped,
            "insns": counts.insns,
            "code_bytes": counts.code_bytes,
        },
        "compile_seconds": {
            "sum": round(worker.seconds, 6),
            "longest": round(worker.longest, 6),
            "waited": round(counts.seconds, 6),
        },
        "worker_restarts": worker.restarts,
        "invalidations": {"code_writes": counts.code_writes, "literal_writes": counts.literal_writes},
        "code_pages_given_up": counts.pages_given_up,
        "region_exits": {reason.name.lower(): count for reason, count in activity.side_exits.items()},
    }
    kept = activity.store
    if kept is not None:
        found["store"] = {"saved": kept.saved, "evicted": kept.evicted, "failed": kept.failed, "reason": kept.reason}
    dumped = activity.dump
    if dumped is not None:
        found["dump"] = {"written": dumped.written, "failed": dumped.failed, "reason": dumped.reason}
    return found


def statistics_lines(machine: Machine, seconds: float) -> Iterator[str]:
    """Return the statistics as lines; see :func:`lines_of`."""
    return lines_of(
        statistics(machine), machine.event_counts, machine.tier_name, machine.icount, machine.ram.size, seconds
    )


def lines_of(
    found: Mapping[str, Any], events: Mapping[str, int], tier: str, icount: int, ram: int, seconds: float
) -> Iterator[str]:
    """Yield the lines for what :func:`statistics` returned, each below 80 columns.

    Numbers that are zero are omitted, except for those that people look for.
    """
    executed = sum(found["instructions"].values())
    rate = executed / seconds / 1e6 if seconds else 0.0
    yield _line("tier", tier)
    yield _line("instructions", f"{executed:,}")
    for name, count in found["instructions"].items():
        yield _line(f"  {_MEANS[name]}", f"{count:,}", f"{100 * count / max(executed, 1):5.1f} %")
    if executed < icount:
        yield _line("before it was restored", f"{icount - executed:,}")
    yield _line("host time", f"{seconds:,.3f}", "s")
    yield _line("rate", f"{rate:,.1f}", "million instructions/s")
    insn_ns = found.get("insn_ns", DEFAULT_INSN_NS)  # which old traces do not have
    yield _line("virtual time", f"{icount / ticks_per_second(insn_ns):,.3f}", f"s, {insn_ns} ns an instruction")
    yield _line("RAM", f"{ram >> 10:,}", "KiB")
    if "stitching" in found:
        yield from _stitch_lines(found["stitching"])
    if "regions" in found:
        yield from _region_lines(found)
    for name, count in sorted(events.items()):
        yield _line(f"{name} exits", f"{count:,}")
    for name, counts in found.get("back_ends", {}).items():
        rest = f"in {counts['batches']:,} batches, {counts['notifications']:,} events sent"
        yield _line(f"{name} requests", f"{counts['requests']:,}", rest)
    for name, count in sorted(found.get("callouts", {}).items()):
        yield _line(f"callout {name}", f"{count:,}")
    places = found.get("callout_places", [])
    for place in places[:_MOST_PLACES]:
        name = f"  {place['address']} {disassemble_place(place)}"
        yield _line(name if len(name) < 30 else f"{name[:26]}...", f"{place['count']:,}", place.get("symbol", "")[:30])
    if len(places) > _MOST_PLACES:
        yield _line("  at other addresses", f"{sum(place['count'] for place in places[_MOST_PLACES:]):,}")


def _stitch_lines(found: Mapping[str, int]) -> Iterator[str]:
    yield _line("blocks stitched", f"{found['blocks']:,}")
    yield _line("stitched code", f"{found['code_bytes']:,}", f"bytes for {found['insns']:,} instructions")
    yield from _unless_zero("pages written over", found["rewrites"])
    yield from _unless_zero("dropped because it was full", found["resets"])


def _region_lines(found: Mapping[str, Any]) -> Iterator[str]:
    regions, times, written = found["regions"], found["compile_seconds"], found["invalidations"]
    store = found.get("store")
    exits = {name: count for name, count in found["region_exits"].items() if count}
    others = regions["dropped"] - sum(written.values())
    yield _line("regions compiled", f"{regions['compiled']:,}")
    yield _line("regions from disk", f"{regions['loaded']:,}")
    yield from _unless_zero("requested by earlier runs", regions.get("earlier", 0))
    yield from _unless_zero("of these, not ready yet", regions.get("left", 0))
    yield _line("regions refused", f"{regions['refused']:,}")
    yield from _unless_zero("outdated when compiled", regions["outdated"])
    yield from _unless_zero("not ready at the end", regions["pending"])
    yield from _unless_zero("lost with the compiler", regions["lost"])
    yield _line("regions dropped", f"{regions['dropped']:,}")
    yield from _unless_zero("code written over", written["code_writes"])
    yield from _unless_zero("literal written over", written["literal_writes"])
    yield from _unless_zero("all at once", others)
    yield from _unless_zero("code pages given up", found["code_pages_given_up"])
    yield _line("region code", f"{regions['code_bytes']:,}", f"bytes for {regions['insns']:,} instructions")
    yield _line("compile time", f"{times['sum']:,.3f}", f"s, the longest {1000 * times['longest']:,.1f} ms")
    if times["waited"]:
        yield _line("waited for it", f"{times['waited']:,.3f}", "s")
    if found["worker_restarts"]:
        yield _line("compiler restarts", f"{found['worker_restarts']:,}")
    yield _line("region exits", f"{sum(exits.values()):,}")
    for name, count in exits.items():
        yield _line(f"  {SIDE_EXIT_TEXTS[name]}", f"{count:,}")
    if store is not None:
        yield _line("regions kept", f"{store['saved']:,}")
        if store["evicted"]:
            yield _line("files evicted", f"{store['evicted']:,}")
        if store["failed"]:
            yield _line("regions not kept", f"{store['failed']:,}", f"({store['reason']})")
    if "dump" in found:
        yield _line("regions dumped", f"{found['dump']['written']:,}")


def _line(name: str, number: str, unit: str = "") -> str:
    return f"{name:<30}{number:>16} {unit}".rstrip()


def _unless_zero(name: str, count: int) -> Iterator[str]:
    if count:
        yield _line(f"  {name}", f"{count:,}")
