"""The linked panes of a region: guest assembly, uops, LLVM IR as written and as optimised, and x86-64.

A row's ``origin`` is the block, the instruction in it and the uop that it is for, as far as that is known: from what
the lowering noted for each line of IR, and for the later stages from LLVM's debug locations. What LLVM gives no
location, or what serves a region as a whole, has none.
"""

from __future__ import annotations

import base64
import io
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbt.abi.addresses import Hva
from dbt.backend.compile_record import read_stages
from dbt.backend.dump import uop_lines
from dbt.backend.link import link_object
from dbt.inspector.disassembly import disassembler
from dbt.trace.log import TraceError
from dbt.trace.shape import Fields, Negative, check
from isa.arm.a32 import DECODER

if TYPE_CHECKING:
    from dbt.trace.model import Trace, TracedRegion

PANES = ("guest", "uops", "ir", "optimised", "host")
TITLES = ("guest A32", "uops", "LLVM IR as written", "LLVM IR optimised", "x86-64")
_LOCATION = re.compile(r", !dbg !(\d+)")
_LOCATIONS = re.compile(r"^!(\d+) = !DILocation\(line: (\d+)", re.MULTILINE)
_NO_CODE = ("declare ", "attributes ", "target ", "source_filename", "; ModuleID", "!", "; Function Attrs")

_INTEGER = (int, Negative)
_STAGES = {"ir": str, "optimised": str, "object": str, "origins": [Fields((int, int, int, _INTEGER))]}

#: Block, instruction, uop; -1 for all of them.
Origin = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a pane. ``line`` is the line of the IR as written, if it has one. ``bytes`` is the number of bytes of
    host code.
    """

    text: str
    origin: Origin | None = None
    line: int = 0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Panes:
    """The panes of a region. Of ``host_insns`` host instructions, the guest instruction of ``attributed`` is known."""

    rows: dict[str, list[Row]]
    attributed: int
    host_insns: int


def panes_of(trace: Trace, region: TracedRegion) -> Panes:
    """Return the panes of a region. If its compile record is not known, all but the guest's are empty."""
    compile_record = trace.compile_record(region)
    if not compile_record:
        rows = {name: list[Row]() for name in PANES}
        rows["host"] = _host_rows(region.code, region.address, [], {})
        return Panes(rows, 0, len(rows["host"]))
    try:
        stages = check(read_stages(region.compile_record), _STAGES, "the stages")
        table = _line_table(stages["object"])
    except ModuleNotFoundError:
        raise
    except Exception as error:  # The object is read by a library that raises what it comes upon.
        message = f"{trace.path}: the stages of region #{region.number} cannot be understood: {error}. Record it again"
        raise TraceError(message) from None
    origins: dict[int, Origin] = {line: (block, insn, uop) for line, block, insn, uop in stages["origins"]}
    rows = {
        "guest": _guest_rows(trace, region, compile_record),
        "uops": _uop_rows(compile_record),
        "ir": _ir_rows(stages["ir"], origins),
        "optimised": _optimised_rows(stages["optimised"], origins),
        "host": _host_rows(region.code, region.address, table, origins),
    }
    host = [row for row in rows["host"] if not row.text.startswith(";")]
    return Panes(rows, sum(row.origin is not None for row in host), len(host))


def _guest_rows(trace: Trace, region: TracedRegion, compile_record: dict[str, Any]) -> list[Row]:
    disassemble, rows = disassembler(), []
    executed, exits = trace.block_counters.get("block", {}), trace.block_counters.get("exit", {})
    for number, block in enumerate(compile_record["blocks"]):
        ways = ", ".join(
            f"in {gva - 1:#x}" if gva & 1 else f"returns to {trace.describe(gva)}" for gva in block["calls"][::-1]
        )
        count = executed.get(region.to_gpa(block["pc"]))
        counted = "" if count is None else f"  {count:,} times"
        rows.append(
            Row(
                f"{number}: {trace.describe_line(block['pc'])}{f' ({ways})' if ways else ''}{counted}", (number, -1, -1)
            )
        )
        for index, (pc, word) in enumerate(block["insns"]):
            left = exits.get(region.to_gpa(pc))
            note = f"  ; left {left:,} times" if left else ""
            rows.append(Row(f"{disassemble(word, pc)}{note}", (number, index, -1), label=f"{pc:08x}"))
        for edge in block["edges"]:
            if edge["to"] is not None:
                rows.append(Row(f"; {edge['kind']} to {edge['to']}", (number, len(block["insns"]) - 1, -1)))
            else:
                to = "?" if edge["pc"] is None else trace.describe(edge["pc"])
                rows.append(Row(f"; {edge['kind']} to {to}: {edge['why']}", (number, len(block["insns"]) - 1, -1)))
    return rows


def _uop_rows(compile_record: dict[str, Any]) -> list[Row]:
    disassemble, rows = disassembler(), []
    for number, block in enumerate(compile_record["blocks"]):
        for index, (pc, word) in enumerate(block["insns"]):
            rows.append(Row(disassemble(word, pc), (number, index, -1), label=f"{pc:08x}"))
            insn = DECODER.decode(word)
            lines = () if insn is None else uop_lines(insn.record_word(word), "  ", {})
            rows += (Row(line, (number, index, uop)) for uop, line in enumerate(lines))
    return rows


def _ir_rows(text: str, origins: dict[int, Origin]) -> list[Row]:
    return [
        Row(line, origins.get(number), number)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.startswith(_NO_CODE)
    ]


def _optimised_rows(text: str, origins: dict[int, Origin]) -> list[Row]:
    lines = {int(number): int(line) for number, line in _LOCATIONS.findall(text)}
    rows = []
    for written in text.split("\n"):
        if not written.strip() or written.startswith(_NO_CODE):
            continue
        found = _LOCATION.search(written)
        line = lines.get(int(found[1]), 0) if found and not written.startswith("define") else 0
        rows.append(Row(_LOCATION.sub("", written), origins.get(line), line))
    return rows


def _line_table(encoded: str) -> list[tuple[int, int]]:
    """Return offsets in the linked code with their lines of IR, by the object's line table. Line 0 means that there
    is none.
    """
    from elftools.elf.elffile import ELFFile

    data = base64.b64decode(encoded)
    start = link_object(data, [])[1]["region0"]
    dwarf = ELFFile(io.BytesIO(data)).get_dwarf_info()
    rows = []
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        for entry in program.get_entries() if program is not None else ():
            state = entry.state
            if state is not None:
                rows.append((start + state.address, 0 if state.end_sequence else state.line))
    return rows


def _host_rows(code: bytes, address: Hva, table: list[tuple[int, int]], origins: dict[int, Origin]) -> list[Row]:
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    starts = [offset for offset, _ in table]
    end = starts[-1] if starts else len(code)
    rows = []
    for at, size, mnemonic, operands in engine.disasm_lite(code[:end], address):
        offset = at - address
        place = bisect_right(starts, offset) - 1
        line = table[place][1] if place >= 0 else 0
        label = f"{offset:5x}"
        rows.append(Row(f"{mnemonic} {operands}".rstrip(), origins.get(line), line, label))
        last = offset + size
    if rows and last < len(code):
        rows.append(Row(f"; {len(code) - last} bytes of constants"))
    return rows
