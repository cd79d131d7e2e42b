"""Stitched code in a trace: blocks, their stencils and links, and why code was stitched or not."""

from __future__ import annotations

import json
from pathlib import Path

import capstone
import pytest

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.layout import STITCH_ARRIVALS
from dbt.engine.stitch_log import BlockState
from dbt.trace.html import report
from dbt.trace.model import Trace
from dbt.trace.stitched import StitchedTrace, TracedBlock
from dbt.trace.stitched_panes import stitched_panes
from dbt.trace.why import tiers_of
from tests.cli.command import dbt, paragraph
from tests.guests import GUESTS
from tests.trace.recordings import program, record
from tests.vm.programs import BASE, EXIT

CODE = f"""
    mov r4, #400
    loop: add r1, r1, r4
    ldrne r0, [sp, #-8]
    mrs r2, spsr
    bl leaf
    subs r4, r4, #1
    bne loop
    mov r2, #0
    {EXIT}
    leaf: add r3, pc, r1
    bx lr
"""
LOOP, MRS = BASE + 4, BASE + 12
SYMBOLS = {"main": (BASE, 4), "loop": (LOOP, 24)}


def stitched_of(trace: Trace) -> StitchedTrace:
    assert trace.stitched is not None
    return trace.stitched


@pytest.fixture
def trace(tmp_path: Path, only_handlers: Path) -> Trace:
    return record(tmp_path / "t", program(CODE, SYMBOLS), tier="stitched")[2]


def block_at(trace: Trace, gpa: int) -> TracedBlock:
    return next(block for block in stitched_of(trace).blocks if block.gpa == gpa)


def test_a_block_has_its_words_its_stencils_and_why_it_was_stitched(trace: Trace) -> None:
    block = block_at(trace, LOOP)
    assert (len(block.words), block.root, block.arrivals) == (2, LOOP, STITCH_ARRIVALS)
    assert block.state is BlockState.ENTERED
    pieces = stitched_of(trace).pieces(block)
    assert [(piece.name.partition(" {")[0], piece.insn) for piece in pieces[:4]] == [
        ("head", -1), ("ADD (register)", 0), ("condition ne", 1), ("LDR (immediate, offset)", 1),
    ]  # fmt: skip
    assert pieces[0].offset == block.offset and sum(piece.size for piece in pieces) == block.size


def test_the_pieces_of_every_block_are_its_code(tmp_path: Path, only_handlers: Path) -> None:
    """Each instruction has one stencil of its form, the code disassembles to its end, and each jump leads somewhere."""
    _, _, trace = record(tmp_path / "t", GUESTS / "bench" / "images" / "tokenizer.elf", fuel=5_000_000, jit="off")
    stitched = stitched_of(trace)
    assert len(stitched.blocks) > 50 and not stitched.lost
    kinds = set()
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for block in stitched.blocks:
        pieces = stitched.pieces(block)
        assert {piece.insn for piece in pieces} == {-1, *range(len(block.words))}
        assert sum(size for _, size, _, _ in engine.disasm_lite(stitched.code_of(block), 0)) == block.size
        kinds |= {link.kind for _, link in stitched.links(block)}
    assert {"block", "bail", "edge"} <= kinds


def test_links_lead_to_what_the_guest_jumps_to(trace: Trace, tmp_path: Path) -> None:
    _, _, other = record(tmp_path / "other", program(), tier="stitched")
    back = block_at(other, BASE + 12)  # ldr, str, subs, bne
    assert [(insn, link.to) for insn, link in stitched_of(other).links(back) if link.kind == "block"] == [(3, BASE + 8)]
    stitched = stitched_of(trace)
    assert {link.to for _, link in stitched.links(block_at(trace, LOOP)) if link.kind == "bail"} == {LOOP, LOOP + 4}


def test_an_instruction_without_a_stencil_says_why(trace: Trace) -> None:
    assert stitched_of(trace).why_not(Gpa(MRS)) == "it makes callouts"
    assert stitched_of(trace).why_not(Gpa(BASE)) == f"no op with {STITCH_ARRIVALS} arrivals leads to it"
    assert stitched_of(trace).why_not(Gpa(BASE + 0x800)) == "it was not executed, or was written over since"
    rows = stitched_panes(trace, trace.find_stitched("loop")).rows["guest"]
    assert any(row.text == "; loop+0x8 is not stitched: it makes callouts" for row in rows)


def test_panes_link_each_host_instruction_to_a_guest_instruction(trace: Trace) -> None:
    panes = stitched_panes(trace, trace.find_stitched("loop"))
    assert panes.attributed == panes.host_insns > 20
    guest = {row.origin for row in panes.rows["guest"]}
    assert {row.origin for row in panes.rows["host"]} <= guest and panes.rows["uops"]
    assert "stitched after 16 arrivals at loop" in panes.rows["guest"][0].text
    assert "<script>" in report(trace, ["instructions 1"])


def test_what_became_of_a_block(tmp_path: Path, only_handlers: Path) -> None:
    """A region takes the place of one block, and a store to its page drops another."""
    regions = record(tmp_path / "r", program())[2]
    assert BlockState.LEFT_TO_REGION in {block.state for block in stitched_of(regions).blocks}
    code = f"""
        mov r4, #40 ; adr r5, word
        loop: subs r4, r4, #1 ; bne loop
        ldr r0, [r5] ; str r0, [pc, #-20] ; mov r2, #0 ; {EXIT}
        word: .word 0xe2544001
    """
    written = record(tmp_path / "w", program(code, {}), tier="stitched")[2]
    [block] = stitched_of(written).blocks
    assert block.state is BlockState.DROPPED


def test_why_an_address_is_in_which_tier(tmp_path: Path, only_handlers: Path) -> None:
    trace = record(tmp_path / "t", program())[2]
    answers = {answer.tier: answer for answer in tiers_of(trace, Gva(BASE + 8))}
    assert set(answers) == {"threaded", "stitched", "region"} and all(answer.is_there for answer in answers.values())
    assert answers["region"].text.startswith("#") and "entered there, compiled" in answers["region"].text
    first = {answer.tier: answer for answer in tiers_of(trace, Gva(BASE))}
    assert first["threaded"].is_there and not first["stitched"].is_there and not first["region"].is_there
    for tier in ("reference", "threaded"):
        [answer] = tiers_of(record(tmp_path / tier, program(), tier=tier, fuel=900)[2], Gva(BASE))
        assert answer.tier == tier and answer.is_there


def test_the_command_line_shows_it(trace: Trace) -> None:
    shown = dbt("trace", "block", trace.path, "stitched:loop").stdout.decode()
    assert "LDR (immediate, offset)" in shown and "x86-64" in shown and "LLVM" not in shown
    by_address = json.loads(dbt("trace", "block", trace.path, hex(LOOP), "--json").stdout)
    assert by_address["stitched"][0]["gpa"] == LOOP and by_address["stitched"][0]["state"] == "entered"
    why = dbt("trace", "why", trace.path, hex(MRS)).stdout.decode()
    assert "stitched  not: it makes callouts" in why and f"{MRS:#010x}" in why
    found = json.loads(dbt("trace", "why", trace.path, "loop", "--json").stdout)
    assert found["pc"] == LOOP and [tier["tier"] for tier in found["tiers"]] == ["threaded", "stitched"]
    assert "neither an address nor a symbol" in paragraph(dbt("trace", "why", trace.path, "nowhere"), 120)
