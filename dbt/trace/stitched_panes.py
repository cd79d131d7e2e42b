"""The linked panes of stitched blocks: guest assembly with stencils and links, uops, and x86-64.

An origin is as in :mod:`dbt.trace.panes`, where the blocks are numbered from 0 in the order in which they are given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.backend.dump import uop_lines
from dbt.engine.stitch_log import BlockState
from dbt.inspector.disassembly import disassembler
from dbt.trace.log import TraceError
from dbt.trace.model import HotPlace, Trace
from dbt.trace.panes import PANES, Panes, Row
from dbt.trace.stitched import BlockLink, Piece, StitchedTrace, TracedBlock
from isa.arm.a32 import DECODER

_STATES = {
    BlockState.ENTERED: "",
    BlockState.REPLACED: "; stitched again since",
    BlockState.LEFT_TO_REGION: "; a region has taken its place",
    BlockState.DROPPED: "; dropped, because its page was written over",
}
_JUMP = 0xE9


def stitched_panes(trace: Trace, blocks: Sequence[TracedBlock]) -> Panes:
    """Return the panes of some blocks of a trace's stitched code. Those of LLVM's IR are empty. Raises TraceError."""
    stitched = trace.stitched
    assert stitched is not None
    rows: dict[str, list[Row]] = {name: [] for name in PANES}
    with checked(trace):
        for number, block in enumerate(blocks):
            rows["guest"] += _guest_rows(trace, stitched, number, block)
            rows["uops"] += _uop_rows(trace, number, block)
            rows["host"] += _host_rows(stitched, number, block)
    host = [row for row in rows["host"] if not row.text.startswith(";")]
    return Panes(rows, sum(row.origin is not None for row in host), len(host))


@contextmanager
def checked(trace: Trace) -> Iterator[None]:
    """Raise TraceError for what the block finds wrong in the trace's stitched code."""
    try:
        yield
    except (ValueError, struct.error, IndexError) as error:
        if isinstance(error, TraceError):
            raise
        message = f"{trace.path}: its stitched code cannot be understood: {error}. Record it again"
        raise TraceError(message) from None


def stitched_blocks(trace: Trace, place: HotPlace) -> list[TracedBlock]:
    """Return the blocks of a place outside regions, if its instructions were executed in stitched code."""
    return trace.find_stitched(place.name) if place.tier == "stitched" else []


def describe_block(trace: Trace, block: TracedBlock) -> str:
    """Return where a block begins, why it was stitched, and what became of it."""
    root, where = (trace.describe(trace.gva_of(gpa)) for gpa in (block.root, block.gpa))
    return f"{where} (stitched after {block.arrivals:,} arrivals at {root}{_STATES[block.state]})"


def _guest_rows(trace: Trace, stitched: StitchedTrace, number: int, block: TracedBlock) -> Iterator[Row]:
    disassemble, gva = disassembler(), trace.gva_of(block.gpa)
    pieces, links = stitched.pieces(block), list(stitched.links(block))
    diverted = stitched.code[block.offset] == _JUMP
    yield Row(f"{number}: {describe_block(trace, block)}", (number, -1, -1))
    yield Row(f"; {_names(pieces, -1)}", (number, -1, -1))
    if diverted:
        yield Row("; its first instruction is now a jump to the region", (number, -1, -1))
    yield from _link_rows(trace, block, number, -1, links if not diverted else ())
    for index, word in enumerate(block.words):
        pc = Gva(gva + 4 * index)
        yield Row(f"{disassemble(word, pc):<32} ; {_names(pieces, index)}", (number, index, -1), label=f"{pc:08x}")
        yield from _link_rows(trace, block, number, index, links)
    yield from _rest_row(trace, stitched, number, block)


def stencil_of(stitched: StitchedTrace, block: TracedBlock, insn: int) -> str:
    """Return the names of the stencils of an instruction of a block."""
    return _names(stitched.pieces(block), insn)


def _names(pieces: Iterable[Piece], insn: int) -> str:
    return ", ".join(piece.name for piece in pieces if piece.insn == insn)


def _link_rows(
    trace: Trace, block: TracedBlock, number: int, insn: int, links: Iterable[tuple[int, BlockLink]]
) -> Iterator[Row]:
    for text in dict.fromkeys(_link_text(trace, block, link, insn) for of, link in links if of == insn):
        yield Row(f"; {text}", (number, insn, -1))


def _link_text(trace: Trace, block: TracedBlock, link: BlockLink, insn: int) -> str:
    gva = Gva((trace.gva_of(block.gpa) & ~0xFFF) + link.distance) if link.to is None else trace.gva_of(link.to)
    to = trace.describe(gva)
    match link.kind:
        case "bail":
            if insn < 0:
                return f"with less of the budget left, goes to the handler of {to}"
            return "bails to its handler, for what is not plain"
        case "hot":
            return f"when it is hot, asks for a region at {to}"
        case "edge":
            return f"not linked: goes to {to} by its op, and counts arrivals"
        case "enter":
            return f"linked to what is entered at {to}, a region"
    return f"linked to {to}" if link.to is not None else f"linked to {to}, in another page, by the code table"


def _rest_row(trace: Trace, stitched: StitchedTrace, number: int, block: TracedBlock) -> Iterator[Row]:
    """Say why the block ends where the next instruction is not stitched."""
    after = Gpa(block.gpa + 4 * len(block.words))
    why = stitched.why_not(after)
    if why is not None:
        yield Row(f"; {trace.describe(trace.gva_of(after))} is not stitched: {why}", (number, len(block.words) - 1, -1))


def _uop_rows(trace: Trace, number: int, block: TracedBlock) -> Iterator[Row]:
    disassemble, gva = disassembler(), trace.gva_of(block.gpa)
    for index, word in enumerate(block.words):
        pc = Gva(gva + 4 * index)
        yield Row(disassemble(word, pc), (number, index, -1), label=f"{pc:08x}")
        insn = DECODER.decode(word)
        lines = () if insn is None else uop_lines(insn.record_word(word), "  ", {})
        yield from (Row(line, (number, index, uop)) for uop, line in enumerate(lines))


def _host_rows(stitched: StitchedTrace, number: int, block: TracedBlock) -> Iterator[Row]:
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for piece in stitched.pieces(block):
        origin = (number, piece.insn, -1)
        yield Row(f"; {piece.name}", origin)
        code = stitched.code[piece.offset : piece.offset + piece.size]
        for at, _, mnemonic, operands in engine.disasm_lite(code, Hva(stitched.address + piece.offset)):
            label = f"{at - stitched.address:5x}"
            yield Row(f"{mnemonic} {operands}".rstrip(), origin, label=label)
