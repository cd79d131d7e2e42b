"""The recorder of translation traces (``dbt run --record-trace``).

What happens in Python is recorded as events. What native code does by itself, such as exceptions, callouts and fills of
shadow page tables, it counts anyway, and the counts are read between slices. Nothing is emitted into native code for
it. The place where a slice ended is a sample of the program counter, because slices end by instruction count.
"""

from __future__ import annotations

import json
import os
import platform
import struct
import time
import zlib
from typing import TYPE_CHECKING, Any

from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.abi.cpu import NATIVE
from dbt.abi.exits import Budget, VmExit
from dbt.abi.layout import SideExit
from dbt.backend.compiled import CompiledRegion
from dbt.engine.observer import Observer
from dbt.trace.log import EVENT, EventKind, LogWriter, Note, RecordKind
from dbt.trace.memory import executed_words, memory_maps, places_of
from dbt.vm.result import RunResult
from isa.arm.architecture import CALLOUT_NUMBERS
from isa.arm.vectors import VECTORS

if TYPE_CHECKING:
    from dbt.vm.machine import Machine

#: Seconds between samples of the counts, at least; and between events being written, about.
_COUNT_INTERVAL = 0.01
_WRITE_INTERVAL = 0.1
#: Nanoseconds between samples of the program counter, at least.
_SAMPLE_INTERVAL = 500_000
#: Nanoseconds between looks at the table of branch targets, at least; and how many pairs are kept, at most.
_TARGETS_INTERVAL = 500_000_000
_MOST_TARGETS = 1 << 16
_BATCH = 1 << 16
_LOW = (1 << 32) - 1

_NATIVE_COUNTS = (
    *(("exit", reason.name.lower(), "region_exits", int(reason)) for reason in SideExit),
    *(("exception", kind.value, "exceptions", vector.offset >> 2) for kind, vector in VECTORS.items()),
    *(("callout", name, "callout_counts", number) for name, number in CALLOUT_NUMBERS.items()),
    ("mmu", "fills", "fills", 0),
    ("device", "accesses answered by native code", "device_answers", 0),
)
_MEANS = ("region", "stitched", "threaded", "reference", "machine")
COUNTS = (
    *(f"insns {name}" for name in _MEANS),
    *(f"{group} {name}" for group, name, _, _ in _NATIVE_COUNTS),
)


class TraceRecorder(Observer):
    """Writes a trace to ``path``. Raises OSError if that is impossible.

    :meth:`begin` is called with a loaded machine before its run, and :meth:`end` after it.
    """

    wants_compile_records = True
    wants_stitched_insns = True
    wants_stitch_log = True
    checkpoint_interval = 1 << 22

    def __init__(self, path: str, block_counters: bool = False) -> None:
        """With ``block_counters``, regions count their blocks and exits."""
        self.wants_block_counters = block_counters
        self.path = path
        self._log = LogWriter(path)
        self._events = bytearray()
        self._names: dict[str, int] = {}
        self._generations: dict[Gpa, int] = {}
        self._numbers: dict[Gpa, int] = {}  # by entry, for the region that is installed
        self._installed = 0
        self._machine: Machine
        self._places = [NATIVE[slot].offset // 8 + element for _, _, slot, element in _NATIVE_COUNTS]
        self._pages: set[int] = set()
        self._targets: set[tuple[Gpa, Gva]] = set()
        self._error = ""

    # -- the ends of a run ---------------------------------------------------------------------

    def begin(self, machine: Machine, version: str, command: dict[str, Any], files: dict[str, str]) -> None:
        """``version`` is dbt's, ``command`` the options of the run, ``files`` SHA-256 by the path of what it reads."""
        self._machine = machine
        self._start = self._left = self._written = self._sampled = self._looked = time.perf_counter_ns()
        self._counted = 0  # the first slice's are written at once
        self._sampled_at = machine.icount
        self._inside, self._stitched = self._retired_inside()
        header = {
            "dbt": version,
            "time": time.time(),
            "host": f"{platform.machine()}, Python {platform.python_version()}",
            "tier": machine.tier_name,
            "jit": machine.jit if machine.tier_name == "auto" else None,
            "optimizations": machine.optimizations.describe(),
            "cpu": machine.cpu_model,
            "memory": machine.ram.size,
            "entry": machine.pc,
            "command": command,
            "directory": os.getcwd(),
            "files": files,
            "counts": COUNTS,
            "symbols": [list(symbol) for symbol in machine.symbols.symbols],
        }
        self._append(RecordKind.HEADER, json.dumps(header).encode())

    def end(self, result: RunResult, seconds: float, statistics: dict[str, Any]) -> None:
        """End the trace, after the run. ``statistics`` are those of ``--stats``."""
        self._sample(self._left, result.pc)
        self._checkpoint(result.pc)
        self._write_counts(self._left)
        self._flush()
        self._note_targets(self._left)
        executed = executed_words(self._machine)
        memory = {
            **memory_maps(self._machine),
            "executed": executed,
            "branches": sorted(self._targets),
        }
        self._append(RecordKind.MEMORY, zlib.compress(json.dumps(memory).encode(), 1))
        self._write_block_counters()
        self._write_stitched(executed)
        end = {
            "time": self._left - self._start,
            "reason": result.reason.value,
            "exit_code": result.exit_code,
            "icount": result.icount,
            "pc": result.pc,
            "message": result.message,
            "seconds": seconds,
            "statistics": statistics,
            "events": dict(self._machine.event_counts),
        }
        self._append(RecordKind.END, json.dumps(end).encode())
        self._log.close()

    def _write_block_counters(self) -> None:
        activity = self._machine.tier.regions
        if activity is None or activity.block_counts is None:
            return
        found = {
            what.name.lower(): sorted((gpa, count) for gpa, count in counts.items() if count)
            for what, counts in activity.block_counts().items()
        }
        self._append(RecordKind.BLOCK_COUNTERS, zlib.compress(json.dumps(found).encode(), 1))

    def _write_stitched(self, executed: dict[int, str]) -> None:
        log = self._machine.tier.stitch_log
        if log is None:
            return
        image, ram = log.image(), self._machine.ram.bytes
        inside = {block.gpa + 4 * number for block, _ in image.blocks for number in range(block.insns)}
        others = [(gpa, ram[gpa : gpa + 4]) for gpa in places_of(executed) if gpa not in inside]
        about = {
            "address": image.address,
            "size": len(image.code),
            "blocks": [
                [*block._replace(address=Hva(block.address - image.address)), int(state)]
                for block, state in image.blocks
            ],
            "words": [bytes(ram[block.gpa : block.gpa + 4 * block.insns]).hex() for block, _ in image.blocks],
            "lost": image.lost,
            "stencils": image.stencils.hex(),
            "patches": image.patches.hex(),
            "names": list(image.names.items()),
            "others": [(gpa, int.from_bytes(word, "little")) for gpa, word in others],
        }
        text = json.dumps(about).encode()
        content = struct.pack("<I", len(text)) + text + image.code + image.starts
        self._append(RecordKind.STITCHED, zlib.compress(content, 1))

    @property
    def error(self) -> str:
        """Why the trace is not complete, in words. It is empty if the trace is complete."""
        return self._error

    # -- regions -------------------------------------------------------------------------------

    def region_requested(self, entry: Gpa, gva: Gva) -> None:
        self._note(Note.REQUESTED, entry=entry, gva=gva)

    def region_refused(self, entry: Gpa, gva: Gva, reason: str) -> None:
        self._note(Note.REFUSED, entry=entry, gva=gva, why=reason)

    def region_outdated(self, entry: Gpa, gva: Gva, changed: Gpa | None) -> None:
        self._note(Note.OUTDATED, entry=entry, gva=gva, changed=changed)

    def region_installed(self, region: CompiledRegion, address: Hva, kept: bool) -> None:
        generation = self._generations[region.entry] = self._generations.get(region.entry, 0) + 1
        self._installed += 1
        self._numbers[region.entry] = self._installed
        about = {
            "time": self._time(),
            "icount": self._machine.progress,
            "number": self._installed,
            "generation": generation,
            "entry": region.entry,
            "others": region.others,
            "strict": region.context.checks_alignment,
            "mmu": region.context.has_mmu,
            "pages": region.pages,
            "insns": region.insns,
            "runs": [(gpa, data.hex()) for gpa, data in region.runs],
            "code": region.code.hex(),
            "start": region.start,
            "address": address,
            "kept": kept,
        }
        text = json.dumps(about).encode()
        self._append(RecordKind.REGION, struct.pack("<I", len(text)) + text + region.compile_record)

    def region_dropped(self, entry: Gpa, why: str, written: Gpa | None) -> None:
        pc = self._machine.cpu.pc
        self._note(Note.DROPPED, region=self._numbers.pop(entry, 0), why=why, written=written, pc=pc)

    # -- what happens often --------------------------------------------------------------------

    def device_accessed(self, gpa: Gpa, size: int, value: int, write: bool) -> None:
        kind = EventKind.DEVICE_WRITE if write else EventKind.DEVICE_READ
        self._event(kind, size, 0, self._machine.cpu.pc, gpa, value & 0xFFFFFFFF)

    def left_guest(self, exit_: VmExit) -> None:
        self._left = now = time.perf_counter_ns()
        if not isinstance(exit_, Budget):
            self._event(EventKind.EXIT, 0, self._name(type(exit_).__name__), exit_.pc, 0, 0)
        elif now - self._sampled >= _SAMPLE_INTERVAL:
            self._sample(now, exit_.pc)
        if not self._machine.icount % self.checkpoint_interval:
            self._checkpoint(exit_.pc)
        if now - self._counted >= _COUNT_INTERVAL * 1e9:
            self._write_counts(now)
        if now - self._looked >= _TARGETS_INTERVAL:
            self._note_targets(now)
        if len(self._events) >= _BATCH or now - self._written >= _WRITE_INTERVAL * 1e9:
            self._flush()

    def _sample(self, now: int, pc: Gva) -> None:
        icount, (inside, stitched) = self._machine.icount, self._retired_inside()
        passed, retired = now - self._sampled, icount - self._sampled_at
        in_regions, in_stitched = inside - self._inside, stitched - self._stitched
        self._sampled, self._sampled_at, self._inside, self._stitched = now, icount, inside, stitched
        self._event(EventKind.SAMPLE, 0, 0, pc, _pair(passed, in_regions), _pair(in_stitched, retired))

    def _retired_inside(self) -> tuple[int, int]:
        """Return the instructions that were retired in regions, and in stitched code."""
        cpu = self._machine.cpu
        return cpu.native("region_insns"), cpu.native("stitched_insns")

    def _checkpoint(self, pc: Gva) -> None:
        self._event(EventKind.CHECKPOINT, 0, 0, pc, zlib.crc32(self._machine.cpu.snapshot()), 0)

    def _note_targets(self, now: int) -> None:
        """Note the targets of indirect branches, because the tier's table drops them when others take the entry."""
        self._looked = now
        if len(self._targets) < _MOST_TARGETS:
            self._targets.update(self._machine.tier.branch_targets())

    def interrupted(self, kind: str) -> None:
        self._event(EventKind.INTERRUPT, 0, self._name(kind), self._machine.cpu.pc, 0, 0)

    # -- writing -------------------------------------------------------------------------------

    def _time(self) -> int:
        return time.perf_counter_ns() - self._start

    def _event(self, kind: EventKind, size: int, name: int, pc: Gva, first: int, second: int) -> None:
        self._events += EVENT.pack(kind, size, name, pc, self._time(), self._machine.progress, first, second)

    def _name(self, text: str) -> int:
        number = self._names.get(text)
        if number is None:
            number = self._names[text] = len(self._names) + 1
            self._note(Note.NAME, number=number, text=text)
        return number

    def _note(self, what: Note, **fields: Any) -> None:
        note = {"what": what, "time": self._time(), "icount": self._machine.progress, **fields}
        self._append(RecordKind.NOTE, json.dumps(note).encode())

    def _write_counts(self, now: int) -> None:
        self._counted = now
        machine = self._machine
        retired = machine.retired
        words = machine.cpu.native64
        numbers = [retired.get(name, 0) for name in _MEANS] + [words[place] for place in self._places]
        self._append(
            RecordKind.COUNTS, struct.pack(f"<{2 + len(numbers)}Q", now - self._start, machine.icount, *numbers)
        )
        pages = set(machine.ram.pages_with_code())
        if pages != self._pages:
            new = sorted(pages - self._pages)
            self._pages = pages
            self._note(Note.PREDECODED, pages=new)

    def _flush(self) -> None:
        self._written = time.perf_counter_ns()
        if self._events:
            events, self._events = bytes(self._events), bytearray()
            self._append(RecordKind.EVENTS, events)

    def _append(self, kind: RecordKind, content: bytes) -> None:
        """Append a record. If the disk is full, recording stops and the run continues."""
        if self._error:
            return
        try:
            self._log.append(kind, content)
        except OSError as error:
            self._error = f"{self.path}: {error.strerror or os.strerror(error.errno or 0)}"


def _pair(high: int, low: int) -> int:
    """Return two numbers as the halves of a u64."""
    return min(high, _LOW) << 32 | min(low, _LOW)
