"""A trace as it is read: regions, events, counts and samples, and what the reports derive from them.

Every number comes from the records. A number that was sampled is given with the number of samples.
"""

from __future__ import annotations

import json
import struct
import zlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from dbt.abi.addresses import Gpa, Gva, Hva, MappedPage
from dbt.abi.layout import SIDE_EXIT_TEXTS
from dbt.backend.unpack import unpack
from dbt.inspector.disassembly import disassemble_place
from dbt.inspector.symbols import Symbol, SymbolTable
from dbt.trace.log import EVENT, EventKind, Note, RecordKind, TraceError, read_log
from dbt.trace.shape import Each, Fields, check

if TYPE_CHECKING:
    from dbt.trace.stitched import StitchedTrace, TracedBlock

_HEADER = {
    "counts": [str],
    "symbols": [Fields((int, str, int))],
    "command": dict,
    "files": Each(str),
    "tier": str,
    "cpu": str,
    "dbt": str,
    "memory": int,
    "entry": int,
    "directory": str,
}
_NOTE = {"what": str, "time": int, "icount": int}
_NOTES: dict[str, dict[str, Any]] = {
    Note.REQUESTED: {"entry": int, "gva": int},
    Note.REFUSED: {"entry": int, "gva": int, "why": str},
    Note.OUTDATED: {"entry": int, "gva": int, "changed": (int, None)},
    Note.DROPPED: {"region": int, "why": str, "written": (int, None), "pc": int},
    Note.NAME: {"number": int, "text": str},
}
_REGION = {
    **dict.fromkeys(("number", "generation", "entry", "insns", "start", "address", "time", "icount"), int),
    **dict.fromkeys(("strict", "mmu", "kept"), bool),
    "pages": [Fields((int, int))],
    "runs": [Fields((int, str))],
    "others": [int],
    "code": str,
}
_MAPPINGS = [Fields((int, int, int, str))]
_MEMORY = {
    "registers": Each(int),
    "guest": _MAPPINGS,
    "shadow": [{"space": int, "current": bool, "mappings": _MAPPINGS}],
    "executed": Each(str),
    "branches": [Fields((int, int))],
}
_BLOCK_COUNTERS = {name: [Fields((int, int))] for name in ("block", "exit")}
_END = {
    **dict.fromkeys(("time", "icount", "pc"), int),
    "exit_code": (int, None),
    "reason": str,
    "seconds": float,
    "statistics": dict,
    "events": Each(int),
}
_EDGE = {"kind": str, "to": (int, None)}
_BLOCK = {"pc": int, "calls": [int], "insns": [Fields((int, int))], "edges": [_EDGE]}
_COMPILE_RECORD = {"backlog": bool, "seconds": Each(float), "blocks": [_BLOCK]}


class Event(NamedTuple):
    """An event. :class:`dbt.trace.log.EventKind` explains ``first`` and ``second``. ``time`` is in ns since the
    start.
    """

    kind: int
    size: int
    name: int
    pc: Gva
    time: int
    icount: int
    first: int
    second: int


class Counts(NamedTuple):
    """The counts at one time: ``numbers`` by the names in the header, counted since the start of the run."""

    time: int
    icount: int
    numbers: tuple[int, ...]


@dataclass(slots=True)
class TracedRegion:
    """A region that was installed. ``compile_record`` is compressed; empty where it is not known.

    It is named by where its entry is in guest physical memory, the mode of memory that it is for, and how many were
    installed there before.
    """

    number: int
    generation: int
    entry: Gpa
    pages: tuple[MappedPage, ...]  # none where virtual and physical pages are the same
    strict: bool
    mmu: bool
    insns: int
    words: dict[Gpa, int]  # guest words
    code: bytes
    start: int
    address: Hva
    kept: bool
    time: int
    icount: int
    others: tuple[Gpa, ...]
    compile_record: bytes = field(repr=False, default=b"")
    dropped: dict[str, Any] | None = None

    @property
    def identity(self) -> str:
        mode = "mmu" if self.mmu else "flat"
        return f"{self.entry:08x}/{mode}{'-strict' * self.strict}/{self.generation}"

    @property
    def gva(self) -> Gva:
        """The GVA of the entry."""
        return self.to_gva(self.entry)

    def to_gva(self, gpa: Gpa) -> Gva:
        """Return the GVA of a GPA of the region, by the addresses that its code had when it was compiled."""
        page = gpa >> 12
        virtual = next((mapped.virtual for mapped in self.pages if mapped.physical == page), page)
        return Gva(virtual << 12 | gpa & 0xFFF)

    def to_gpa(self, gva: Gva) -> Gpa:
        """Return the GPA of a GVA of the region, by the addresses that its code had when it was compiled."""
        page = gva >> 12
        physical = next((mapped.physical for mapped in self.pages if mapped.virtual == page), page)
        return Gpa(physical << 12 | gva & 0xFFF)

    @property
    def expansion(self) -> float:
        """The bytes of host code for each byte of guest code."""
        return len(self.code) / (4 * self.insns)

    @property
    def is_live(self) -> bool:
        return self.dropped is None


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why control was not in compiled code, or why there was none. ``pc`` is a GVA or None."""

    kind: str
    pc: Gva | None
    count: int
    text: str


def _other_targets(least: int, most: int) -> str:
    if most == 0:
        return ": no target was seen"
    if least < most:
        return f" than the targets, {least} to {most} of them, that were seen"
    return " than the one target that was seen" if most == 1 else f" than any of the {most} targets that were seen"


class Trace:
    """A recorded run. Raises TraceError if ``path`` is not a readable trace."""

    def __init__(self, path: str) -> None:
        self.path = path
        log = read_log(path)
        self.missing = log.missing
        self.header: dict[str, Any] = {}
        self.notes: list[dict[str, Any]] = []
        self.regions: list[TracedRegion] = []
        self.events: list[Event] = []
        self.counts: list[Counts] = []
        self.memory: dict[str, Any] = {}
        #: By page of RAM a bitmap of the words that were executed, as far as they are what they were then.
        self.executed: dict[int, bytes] = {}
        self.block_counters: dict[str, dict[Gpa, int]] = {}
        self.end: dict[str, Any] | None = None
        self.names: dict[int, str] = {}
        self._stitched = b""
        try:
            for kind, content in log.records:
                self._take(kind, content)
        except (ValueError, struct.error, zlib.error, RecursionError) as error:
            raise TraceError(f"{path}: the trace cannot be understood: {error}. Record it again") from None

    def _take(self, kind: RecordKind, content: bytes) -> None:
        match kind:
            case RecordKind.HEADER:
                self.header = check(json.loads(content), _HEADER, "the header")
                wrong = [name for name in self.header["counts"] if not _is_known_count(name)]
                if wrong or not set(_INSNS) <= set(self.header["counts"]):
                    raise ValueError(
                        f"the counts are not those that this dbt knows{f': {wrong[0]!r}' if wrong else ''}"
                    )
            case RecordKind.NOTE:
                self._take_note(check(json.loads(content), _NOTE, "a note"))
            case RecordKind.REGION:
                self._take_region(content)
            case RecordKind.EVENTS:
                self.events += map(Event._make, EVENT.iter_unpack(content))
            case RecordKind.COUNTS:
                time, icount, *numbers = struct.unpack(f"<{len(content) // 8}Q", content)
                if len(numbers) != len(self.header["counts"]):
                    raise ValueError(f"there are {len(numbers)} counts, and {len(self.header['counts'])} names of them")
                self.counts.append(Counts(time, icount, tuple(numbers)))
            case RecordKind.MEMORY:
                self.memory = check(json.loads(unpack(content)), _MEMORY, "the memory")
                executed = self.memory.get("executed", {})
                self.executed = {int(page): bytes.fromhex(text) for page, text in executed.items()}
            case RecordKind.BLOCK_COUNTERS:
                found = check(json.loads(unpack(content)), _BLOCK_COUNTERS, "the block counters")
                self.block_counters = {name: dict(pairs) for name, pairs in found.items()}
            case RecordKind.STITCHED:
                self._stitched = unpack(content)
            case RecordKind.END:
                self.end = check(json.loads(content), _END, "the end")

    def _take_note(self, note: dict[str, Any]) -> None:
        self.notes.append(check(note, _NOTES.get(note["what"], {}), f"a note of what was {note['what']}"))
        if note["what"] == Note.NAME:
            self.names[note["number"]] = note["text"]
        elif note["what"] == Note.DROPPED and note["region"]:
            if note["region"] > len(self.regions):
                raise ValueError(f"region #{note['region']} is dropped and was never installed")
            self.regions[note["region"] - 1].dropped = note

    def _take_region(self, content: bytes) -> None:
        (size,) = struct.unpack_from("<I", content)
        about = check(json.loads(content[4 : 4 + size]), _REGION, "a region")
        if about["number"] != len(self.regions) + 1 or not about["insns"]:
            raise ValueError(f"region #{about['number']} is not the next one, or is empty")
        words = {
            Gpa(gpa + at): int.from_bytes(data[at : at + 4], "little")
            for gpa, data in ((gpa, bytes.fromhex(text)) for gpa, text in about["runs"])
            for at in range(0, len(data), 4)
        }
        self.regions.append(
            TracedRegion(
                about["number"],
                about["generation"],
                about["entry"],
                tuple(MappedPage(*pair) for pair in about["pages"]),
                about["strict"],
                about["mmu"],
                about["insns"],
                words,
                bytes.fromhex(about["code"]),
                about["start"],
                about["address"],
                about["kept"],
                about["time"],
                about["icount"],
                tuple(about["others"]),
                content[4 + size :],
            )
        )

    # -- the run as a whole --------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        return self.end is not None

    @cached_property
    def symbols(self) -> SymbolTable:
        return SymbolTable.of(Symbol(*symbol) for symbol in self.header["symbols"])

    @property
    def icount(self) -> int:
        """The instructions retired up to the end of the trace."""
        if self.end is not None:
            return int(self.end["icount"])
        return max((icount for _, icount in self._latest), default=0)

    @property
    def nanoseconds(self) -> int:
        """The time from the first record to the last, in nanoseconds."""
        if self.end is not None:
            return int(self.end["time"])
        return max((time for time, _ in self._latest), default=0)

    @property
    def _latest(self) -> Iterator[tuple[int, int]]:
        """Return time and icount of the last record of each kind."""
        yield from ((last[-1].time, last[-1].icount) for last in (self.counts, self.events, self.regions) if last)
        if self.notes:
            yield self.notes[-1]["time"], self.notes[-1]["icount"]

    @property
    def totals(self) -> dict[str, int]:
        """The counts at the end of the trace, by name."""
        if not self.counts:
            return dict.fromkeys(self.header["counts"], 0)
        return dict(zip(self.header["counts"], self.counts[-1].numbers, strict=True))

    @property
    def title(self) -> str:
        command = self.header["command"]
        return str(command.get("program") or command.get("kernel") or command.get("restore") or "?").rpartition("/")[2]

    @cached_property
    def branch_targets(self) -> dict[Gpa, list[Gva]]:
        """Where indirect branches were seen to go to, by the place of the branch, as far as that was noted."""
        found: dict[Gpa, list[Gva]] = defaultdict(list)
        for gpa, gva in self.memory.get("branches", ()):
            found[gpa].append(gva)
        return found

    def source_line(self, pc: Gva) -> tuple[str, int] | None:
        """File and line of an address, if the program has debug information and is still where it was, and the same."""
        found = nearest(self._lines, pc)
        return (found[0], found[1]) if found is not None and found[1] else None

    @cached_property
    def _lines(self) -> list[tuple[Gva, tuple[str, int]]]:
        from dbt.trace.lines import line_table

        path, checksum = next(iter(self.header["files"].items()), ("", ""))
        return line_table(path, checksum)

    def describe(self, pc: Gva) -> str:
        """Return an address for people."""
        return self.symbols.describe(pc)

    def describe_line(self, pc: Gva) -> str:
        """Return an address such as ``main+0x12 (hello.c:7)``, with the source line if the program has it."""
        line = self.source_line(pc)
        return self.describe(pc) if line is None else f"{self.describe(pc)} ({line[0]}:{line[1]})"

    # -- where the time went -------------------------------------------------------------------

    @cached_property
    def samples(self) -> list[Event]:
        return [event for event in self.events if event.kind == EventKind.SAMPLE]

    @cached_property
    def sampled_insns(self) -> int:
        return sum(event.second & _LOW for event in self.samples)

    def region_at(self, pc: Gva, time: int) -> TracedRegion | None:
        """Return the region with the code at a GVA, the latest of those that were installed at that time."""
        found = None
        for region in self._by_gva.get(pc, ()):
            if region.time <= time and (region.dropped is None or time < region.dropped["time"]):
                found = region
        return found

    def sampled_in(self, region: TracedRegion) -> Counter[Gva]:
        """Return the instructions of the samples that fell into a region, by GVA."""
        return self._sampled.get(region.number, Counter())

    @cached_property
    def _sampled(self) -> dict[int, Counter[Gva]]:
        found: dict[int, Counter[Gva]] = defaultdict(Counter)
        for sample in self.samples:
            region = self.region_at(sample.pc, sample.time)
            if region is not None:
                found[region.number][sample.pc] += sample.second & _LOW
        return found

    @cached_property
    def _by_gva(self) -> dict[Gva, list[TracedRegion]]:
        found: dict[Gva, list[TracedRegion]] = defaultdict(list)
        for region in self.regions:
            for gpa in region.words:
                found[region.to_gva(gpa)].append(region)
        return found

    @cached_property
    def hot_places(self) -> list[HotPlace]:
        """Return regions, and symbols outside them by tier, by their share of the instructions, largest first.

        The instructions of a sample that were retired in regions belong to the region where the sample fell, or else to
        the region of the sample before. The others belong to a symbol outside in the same way, and there to stitched
        code or to what else the tier has.
        """
        found: dict[tuple[int, str, str], HotPlace] = {}
        inside: TracedRegion | None = None
        outside: Gva | None = None
        for sample in self.samples:
            retired = sample.second & _LOW
            in_regions = min(sample.first & _LOW, retired)
            in_stitched = min(sample.second >> 32, retired - in_regions)
            region = self.region_at(sample.pc, sample.time) if in_regions else None
            if region is None:
                outside = sample.pc
            elif in_regions:
                inside = region
            if in_regions and inside is None:
                inside = next((region for region in self.regions if region.time <= sample.time), None)
            pc = sample.pc if outside is None else outside
            for where, tier, insns in (
                (inside, "region", in_regions),
                (None, "stitched", in_stitched),
                (None, self.lowest_tier, retired - in_regions - in_stitched),
            ):
                if not insns:
                    continue
                place = self._place(found, where, tier, pc)
                place.insns += insns
                place.nanoseconds += (sample.first >> 32) * insns // max(retired, 1)
                place.samples += 1
        for region in self.regions:
            self._place(found, region, "region", region.gva)
        total = max(self.sampled_insns, 1)
        for place in found.values():
            place.share = place.insns / total
        return sorted(found.values(), key=lambda place: (-place.insns, place.name, place.tier))

    @property
    def lowest_tier(self) -> str:
        """The tier that executes what is neither in a region nor in stitched code."""
        return "reference" if self.header["tier"] == "reference" else "threaded"

    def _place(
        self, found: dict[tuple[int, str, str], HotPlace], region: TracedRegion | None, tier: str, pc: Gva
    ) -> HotPlace:
        symbol = self.symbols.find(pc if region is None else region.gva)
        address = pc & ~0xFFF if region is None else region.gva
        name = symbol[0] if symbol else f"{address:#010x}"
        key = (region.number, "", "") if region is not None else (0, name, tier)
        return found.setdefault(key, HotPlace(name, region, tier))

    # -- why -----------------------------------------------------------------------------------

    @cached_property
    def reasons(self) -> list[Reason]:
        """Return why control left compiled code, or why there was none. The largest counts of each kind come first."""
        return [*self._exit_reasons(), *self._note_reasons(), *self._edge_reasons(), *self._event_reasons()]

    def _exit_reasons(self) -> Iterator[Reason]:
        for name, count in sorted(self.totals.items(), key=lambda item: -item[1]):
            group, _, what = name.partition(" ")
            if group == "exit" and count:
                yield Reason("side exit", None, count, SIDE_EXIT_TEXTS[what])
        exits = sorted(self.block_counters.get("exit", {}).items(), key=lambda item: -item[1])
        for gpa, count in exits[:_MOST]:
            pc = self.gva_of(gpa)
            why = "; ".join(sorted(self._edges_left_out.get(pc, ()))) or self._slow_access(gpa)
            yield Reason("exit at", pc, count, why)

    def _slow_access(self, gpa: Gpa) -> str:
        word = next((region.words[gpa] for region in self._by_gpa.get(gpa, ())), 0)
        if _exit_reason(word, ()) == "store":
            return "the store took the slow path: there was code, a device, or no entry in the shadow page table"
        return "the load took the slow path: there was a device, or no entry in the shadow page table"

    @cached_property
    def _edges_left_out(self) -> dict[Gva, set[str]]:
        """Return where control goes that is not in the region, and why, by the GVA of the last instruction in it."""
        found: dict[Gva, set[str]] = defaultdict(set)
        seen: dict[tuple[Gva, str], set[int]] = defaultdict(set)  # how many targets each region knows
        for region in self.regions:
            for block in self.compile_record(region).get("blocks", ()):
                pc = block["insns"][-1][0]
                known: Counter[str] = Counter()
                for edge in block["edges"]:
                    kind = edge["kind"]
                    if edge["to"] is not None:
                        known[kind] += 1
                    elif edge["pc"] is None:
                        seen[pc, kind].add(0)
                    else:
                        found[pc].add(f"{kind} to {self.describe(edge['pc'])}: {edge['why']}")
                for kind, count in known.items():
                    if count > 1 or kind in ("indirect", "return", "table"):
                        seen[pc, kind].add(count)
        for (pc, kind), counts in seen.items():
            found[pc].add(f"{kind} to elsewhere{_other_targets(min(counts), max(counts))} when it was compiled")
        return found

    def _note_reasons(self) -> Iterator[Reason]:
        found: Counter[tuple[str, Gva | None, str]] = Counter()
        for note in self.notes:
            match note["what"]:
                case Note.REFUSED:
                    found["not compiled", note["gva"], note["why"]] += 1
                case Note.OUTDATED:
                    found["outdated", note["gva"], f"{self._changed(note)} had changed when it was compiled"] += 1
                case Note.DROPPED if note["region"]:
                    written = note["written"]
                    region = self.regions[note["region"] - 1]
                    where = "" if written is None else f": {self.describe(region.to_gva(written))}"
                    found["dropped", note["pc"], f"{note['why']}{where}"] += 1
        for (kind, pc, text), count in sorted(found.items(), key=lambda item: (item[0][0], -item[1])):
            yield Reason(kind, pc, count, text)

    def _changed(self, note: dict[str, Any]) -> str:
        """Return what a region was outdated by. Of its pages, only the mapping of the first is known."""
        entry, gva, changed = Gpa(note["entry"]), Gva(note["gva"]), note["changed"]
        if changed is None:
            return "the mode of memory"
        if int(entry) == int(gva) or entry >> 12 == changed >> 12:
            return self.describe(Gva(gva + changed - entry))
        return f"the word at the physical address {changed:#010x}"

    def _edge_reasons(self) -> Iterator[Reason]:
        """Yield the reasons why regions end, as the compiler knew them. Only exits are counted."""
        found: Counter[tuple[Gva | None, str]] = Counter()
        for region in self.regions:
            for block in self.compile_record(region).get("blocks", ()):
                for edge in block["edges"]:
                    if edge["to"] is None:
                        found[block["insns"][-1][0], edge["why"]] += 1
        for (pc, text), count in found.most_common(_MOST):
            yield Reason("edge left out", pc, count, text)

    def _event_reasons(self) -> Iterator[Reason]:
        exits: Counter[tuple[Gva, str]] = Counter()
        devices: Counter[tuple[Gva, str]] = Counter()
        for event in self.events:
            if event.kind == EventKind.EXIT:
                exits[event.pc, self.names.get(event.name, "?")] += 1
            elif event.kind in (EventKind.DEVICE_READ, EventKind.DEVICE_WRITE):
                how = "read" if event.kind == EventKind.DEVICE_READ else "write"
                devices[event.pc, f"{how} of {event.size} bytes at {event.first:#010x}"] += 1
        for (pc, text), count in exits.most_common(_MOST):
            yield Reason("exit to the machine", pc, count, text)
        for (pc, text), count in devices.most_common(_MOST):
            yield Reason("device access", pc, count, text)
        for place in (self.end or {}).get("statistics", {}).get("callout_places", ())[:_MOST]:
            gva = self.gva_of(Gpa(int(place["address"], 16)))
            yield Reason("callout", gva, place["count"], disassemble_place(place))

    # -- regions -------------------------------------------------------------------------------

    def compile_record(self, region: TracedRegion) -> dict[str, Any]:
        """Return how it was made, without the stages (:mod:`dbt.backend.compile_record`); empty where that is not
        known.
        """
        from dbt.backend.compile_record import read_compile_record

        if not region.compile_record:
            return {}
        if region.number not in self._compile_records:
            try:
                found = check(read_compile_record(region.compile_record), _COMPILE_RECORD, "a compile record")
                targets = [edge["to"] for block in found["blocks"] for edge in block["edges"] if edge["to"] is not None]
                for edge in (e for block in found["blocks"] for e in block["edges"] if e["to"] is None):
                    check(edge, {"pc": (int, None), "why": str}, "an edge")
                if max(targets, default=-1) >= len(found["blocks"]) or not all(b["insns"] for b in found["blocks"]):
                    raise ValueError("a block is empty, or an edge leads to a block that is not there")
            except (ValueError, struct.error, zlib.error, RecursionError) as error:
                message = f"{self.path}: region #{region.number} cannot be understood: {error}. Record it again"
                raise TraceError(message) from None
            self._compile_records[region.number] = found
        return self._compile_records[region.number]

    @cached_property
    def _compile_records(self) -> dict[int, dict[str, Any]]:
        return {}

    def exits_of(self, region: TracedRegion) -> Counter[str]:
        """Return how often regions were left at the instructions of this one, by reason, if exits were counted."""
        found: Counter[str] = Counter()
        counts = self.block_counters.get("exit", {})
        reasons: dict[Gva, str] = {}
        for block in self.compile_record(region).get("blocks", ()):
            for pc, word in block["insns"]:
                reasons[pc] = _exit_reason(word, block["edges"] if pc == block["insns"][-1][0] else ())
        for pc, reason in reasons.items():
            if count := counts.get(region.to_gpa(pc), 0):
                found[SIDE_EXIT_TEXTS[reason]] += count
        return found

    # -- stitched code -------------------------------------------------------------------------

    @cached_property
    def stitched(self) -> StitchedTrace | None:
        """What was stitched, as it was at the end of the run; None where that is not known. Raises TraceError."""
        from dbt.trace.stitched import StitchedTrace

        if not self._stitched:
            return None
        try:
            return StitchedTrace(self._stitched)
        except (ValueError, struct.error, RecursionError) as error:
            message = f"{self.path}: its stitched code cannot be understood: {error}. Record it again"
            raise TraceError(message) from None

    def find_stitched(self, name: str) -> list[TracedBlock]:
        """Return the stitched blocks of a place outside regions, such as a symbol, or of the instruction at an address,
        in their order in memory. Of blocks that begin at the same place, only the latest is there.
        """
        address = _number(name)
        if name not in self._stitched_places and address is not None and self.stitched is not None:
            blocks = self.stitched.blocks_at(self.gpa_of(Gva(address & ~3)))
        else:
            blocks = self._stitched_places.get(name, [])
        found = {block.gpa: block for block in blocks}
        return [found[gpa] for gpa in sorted(found)]

    @cached_property
    def _stitched_places(self) -> dict[str, list[TracedBlock]]:
        """The stitched blocks by the names that :attr:`hot_places` gives to where they begin."""
        found: dict[str, list[TracedBlock]] = defaultdict(list)
        for block in () if self.stitched is None else self.stitched.blocks:
            gva = self.gva_of(block.gpa)
            symbol = self.symbols.find(gva)
            found[symbol[0] if symbol else f"{gva & ~0xFFF:#010x}"].append(block)
        return found

    def was_executed(self, gpa: Gpa) -> bool:
        """Return True if the word is known to have been executed, and is what it was then."""
        byte, bit = divmod((gpa & 0xFFF) >> 2, 8)
        page = self.executed.get(gpa >> 12, b"")
        return byte < len(page) and bool(page[byte] >> bit & 1)

    def gpa_of(self, gva: Gva) -> Gpa:
        """Return the GPA of code: as a region has it, or else as the guest's page tables map it at the end."""
        for region in self._by_gva.get(gva, ()):
            return region.to_gpa(gva)
        for first, gpa, size, rights in self.memory.get("guest", ()):
            if first <= gva < first + size and "x" in rights.lower():
                return Gpa(gpa + gva - first)
        return Gpa(gva)

    def gva_of(self, gpa: Gpa) -> Gva:
        """Return the GVA of code: as a region has it, or else as the guest's page tables map it at the end.

        If neither has it, the GVA is the same number, as it is with the MMU off.
        """
        for region in self._by_gpa.get(gpa, ()):
            return region.to_gva(gpa)
        for gva, first, size, rights in self.memory.get("guest", ()):
            if first <= gpa < first + size and "x" in rights.lower():
                return Gva(gva + gpa - first)
        return Gva(gpa)

    @cached_property
    def _by_gpa(self) -> dict[Gpa, list[TracedRegion]]:
        found: dict[Gpa, list[TracedRegion]] = defaultdict(list)
        for region in self.regions:
            for gpa in region.words:
                found[gpa].append(region)
        return found

    @cached_property
    def checkpoints(self) -> list[tuple[int, int]]:
        """The checkpoints: icount and CRC-32 of the registers."""
        return [(event.icount, event.first) for event in self.events if event.kind == EventKind.CHECKPOINT]

    def find_region(self, name: str) -> TracedRegion | None:
        """Return the latest region with a number (``#3`` or ``3``), an identity, a symbol, or an address that it was
        made from.
        """
        found, address = None, _number(name)
        for region in self.regions:
            symbol = self.symbols.find(region.gva)
            names = {f"#{region.number}", str(region.number), region.identity, symbol[0] if symbol else ""}
            if name in names or (address is not None and region.to_gpa(Gva(address)) in region.words):
                found = region
        return found


@dataclass(slots=True)
class HotPlace:
    """A region, or a symbol outside regions. ``insns`` and ``nanoseconds`` are those of the samples that fell there.

    ``tier`` is "region", "stitched", "threaded" or "reference".
    """

    name: str
    region: TracedRegion | None
    tier: str = "region"
    insns: int = 0
    nanoseconds: int = 0
    samples: int = 0
    share: float = 0.0


_MOST = 100
_INSNS = ("insns region", "insns stitched", "insns threaded", "insns reference", "insns machine")
_LOW = (1 << 32) - 1


def _is_known_count(name: str) -> bool:
    group, _, what = name.partition(" ")
    return group != "exit" or what in SIDE_EXIT_TEXTS


def _exit_reason(word: int, edges: Iterable[dict[str, Any]]) -> str:
    """Return why a region is left at an instruction, as a name of :class:`dbt.abi.layout.SideExit`."""
    kinds = Counter(edge["kind"] for edge in edges)
    if kinds["return"]:
        return "return"
    if kinds["indirect"] or kinds["table"] or kinds["call"] > 1:
        return "indirect"
    if kinds - Counter(next=kinds["next"]):
        return "edge"
    from isa.arm.a32 import DECODER
    from isa.ir.queries import walk

    insn = DECODER.decode(word)
    operations = {uop.op for uop in walk(insn.record_word(word))} if insn is not None else set()
    return "store" if "store" in operations else "load" if "load" in operations else "edge"


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def nearest(lines: list[tuple[Gva, Any]], address: Gva) -> Any:
    """Return what belongs to the last address that is not beyond ``address``, in sorted pairs of an address and it."""
    index = bisect_right(lines, address, key=lambda line: line[0]) - 1
    return lines[index][1] if index >= 0 else None
