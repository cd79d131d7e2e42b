"""Compile records: the blocks of a region, its text at each stage, and the instruction that each line is for.

LLVM carries the attribution. Every line of the lowered IR has a debug location with its own line number. After the
passes an instruction still has the location of the line that it came from, and the object's line table has it for each
address. The lowering says which uop a line is for. Debug locations do not change the code.

A compile record is kept on disk and in traces, so it is JSON. It has two compressed parts, because most readers need
only the first, which has::

    blocks     [{pc, calls, insns: [[pc, word]], edges: [{kind, to, why}], constants: [[address, word]]}]
    entries    addresses at which control may enter from outside
    backlog    whether the region was made small in backlog mode
    seconds    {form, lower, optimise, generate}

The second part has::

    ir         LLVM text as lowered
    origins    [[line of ir, block, instruction in it, uop in that or -1]]
    optimised  LLVM text after the passes, with debug locations
    object     the relocatable object, as base64; its line table names lines of ir
"""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from dbt.backend.region_exits import Origin
from dbt.backend.unpack import unpack
from dbt.frontend.forming import Block, Place, Region
from isa.ir.queries import walk
from isa.ir.uop import BranchKind, Uop

_LENGTH = struct.Struct("<I")
#: Numbers of metadata nodes, above those that modules have: the subprogram, and the location of line 0.
_UNIT, _FLAG, _FILE, _TYPE, _FUNCTION, _LINES = 100, 101, 102, 103, 104, 1000
_DEBUG_INFORMATION = f"""!llvm.dbg.cu = !{{!{_UNIT}}}
!llvm.module.flags = !{{!{_FLAG}}}
!{_UNIT} = distinct !DICompileUnit(language: DW_LANG_C99, file: !{_FILE}, producer: "dbt", isOptimized: true, \
runtimeVersion: 0, emissionKind: LineTablesOnly)
!{_FLAG} = !{{i32 2, !"Debug Info Version", i32 3}}
!{_FILE} = !DIFile(filename: "region.ll", directory: "/")
!{_TYPE} = !DISubroutineType(types: !2)
!{_FUNCTION} = distinct !DISubprogram(name: "region0", file: !{_FILE}, line: 1, type: !{_TYPE}, unit: !{_UNIT}, \
spFlags: DISPFlagDefinition | DISPFlagOptimized)
"""


def with_locations(text: str) -> str:
    """Return the LLVM text of one function with debug locations: each instruction has its own line number, from 1."""
    lines, locations, inside = [], [], False
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("define"):
            inside = True
            lines.append(f"{line.removesuffix('{')}!dbg !{_FUNCTION} {{")
        elif line == "}":
            inside = False
            lines.append(line)
        elif inside and line.startswith("  "):
            lines.append(f"{line}, !dbg !{_LINES + number}")
            locations.append(f"!{_LINES + number} = !DILocation(line: {number}, scope: !{_FUNCTION})\n")
        else:
            lines.append(line)
    return "\n".join([*lines, _DEBUG_INFORMATION, "".join(locations)])


class CompileRecorder:
    """Collects the compile record of one region while it is compiled, since the time ``started``."""

    def __init__(self, region: Region, backlog: bool, started: float) -> None:
        self._region = region
        self._now = started
        self._seconds: dict[str, float] = {}
        self._summary: dict[str, Any] = {
            "backlog": backlog,
            "entries": list(region.entries),
            "seconds": self._seconds,
        }
        self._stages: dict[str, Any] = {}
        self._pass("form")

    def _pass(self, phase: str) -> None:
        before, self._now = self._now, time.perf_counter()
        self._seconds[phase] = round(self._now - before, 7)

    def lowered(self, text: str, origins: list[object]) -> None:
        """Take the lowered ``text`` and the ``origins`` of the lines of its one function."""
        self._pass("lower")
        first = text[: text.index("\ndefine ")].count("\n") + 2
        places = list(self._region.blocks.values())
        numbers: dict[tuple[int, int], dict[Uop, int]] = {}
        found = []
        for line, origin in enumerate(origins, first):
            if not isinstance(origin, Origin):
                continue
            here = origin.block, origin.insn
            if here not in numbers:
                uops = walk(places[origin.block].insns[origin.insn].uops)
                numbers[here] = {uop: number for number, uop in enumerate(uops)}
            found.append([line, *here, -1 if origin.uop is None else numbers[here].get(origin.uop, -1)])
        self._stages |= {"ir": text, "origins": found}
        self._now = time.perf_counter()

    def show(self, stage: str, make: Callable[[], str | bytes]) -> None:
        """Take a stage: see :data:`dbt.backend.llvm.Show`."""
        if stage == "region.opt.ll":
            self._pass("optimise")
            self._stages["optimised"] = make()
            self._now = time.perf_counter()

    def finish(self, object_bytes: bytes) -> bytes:
        """Return the compile record."""
        self._pass("generate")
        self._stages["object"] = base64.b64encode(object_bytes).decode()
        numbers = {place: number for number, place in enumerate(self._region.blocks)}
        self._summary["blocks"] = [self._block(block, numbers) for block in self._region.blocks.values()]
        first, second = (
            zlib.compress(json.dumps(part, separators=(",", ":")).encode(), 1) for part in (self._summary, self._stages)
        )
        return _LENGTH.pack(len(first)) + first + second

    def _block(self, block: Block, numbers: dict[Place, int]) -> dict[str, Any]:
        return {
            "pc": block.place.pc,
            "calls": list(block.place.calls),
            "insns": [[insn.pc, insn.word] for insn in block.insns],
            "edges": list(self._edges(block, numbers)),
            "constants": sorted(map(list, block.words.items())),
        }

    def _edges(self, block: Block, numbers: dict[Place, int]) -> Iterator[dict[str, Any]]:
        """Yield the edges of a block. ``to`` is a block's number, or an address and the reason why it is left out, or
        null.
        """

        def edge(kind: str, place: Place) -> dict[str, Any]:
            if place in numbers:
                return {"kind": kind, "to": numbers[place]}
            why = self._region.left_out.get(place, "this call is not followed")
            return {"kind": kind, "to": None, "pc": place.pc, "why": why}

        for uop, places in block.branches.items():
            kind = uop.attr.value if isinstance(uop.attr, Enum) else str(uop.attr)
            for place in dict.fromkeys(places):
                yield edge(str(kind), place)
            if uop.attr is BranchKind.CALL:
                for gva, why in block.calls_out.items():
                    yield {"kind": str(kind), "to": None, "pc": gva, "why": why}
            if not places and not block.calls_out:
                yield {
                    "kind": str(kind),
                    "to": None,
                    "pc": None,
                    "why": "no target was seen",
                }
        for table in block.tables.values():
            for place in dict.fromkeys(table.places.values()):
                yield edge("table", place)
        if block.next is not None:
            yield edge("next", block.next)
        if block.back is not None:
            yield edge("back", block.back)


def read_compile_record(compile_record: bytes) -> dict[str, Any]:
    """Return the first part of a compile record that :class:`CompileRecorder` made."""
    (size,) = _LENGTH.unpack_from(compile_record)
    found: dict[str, Any] = json.loads(unpack(compile_record[_LENGTH.size : _LENGTH.size + size]))
    return found


def read_stages(compile_record: bytes) -> dict[str, Any]:
    """Return the second part of a compile record: the stages."""
    (size,) = _LENGTH.unpack_from(compile_record)
    found: dict[str, Any] = json.loads(unpack(compile_record[_LENGTH.size + size :]))
    return found
