"""What each row of the panes is for, by what LLVM and the lowering say, and not by its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dbt.backend.compile_record import read_stages
from dbt.trace.model import Trace, TracedRegion
from dbt.trace.panes import PANES, Panes, panes_of
from tests.guests import GUESTS
from tests.trace.recordings import program, record
from tests.vm.programs import BASE, EXIT

#: Each instruction has an operation of its own, which is to be found again at every stage.
CODE = f"""
    movw r4, #40000 ; movw r5, #77 ; sub r6, sp, #64
    loop: mul r1, r5, r4
    eor r2, r1, #0x5a
    ldr r3, [r6, #8]
    clz r0, r2
    str r0, [r6, #12]
    subs r4, r4, #1
    bne loop
    mov r2, #0 ; {EXIT}
"""
#: Instruction of the loop's block, what its uops, its IR and its host code have.
FOUND = {
    0: ("mul", r"mul i32", "imul"),
    1: ("xor", r"xor i32 .*, 90", "xor .*0x5a"),
    2: ("load.32", r"load i32, ptr %t\d+, align 1", "mov"),
    3: ("clz", r"llvm\.ctlz\.i32", "lzcnt"),
    4: ("store.32", r"store i32 %\w+, ptr %\w+, align 1", "mov dword ptr"),
}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, TracedRegion, Panes]:
    from pytest import MonkeyPatch

    from tests.codecache.samples import use_only_handlers

    folder = tmp_path_factory.mktemp("panes")
    with MonkeyPatch.context() as patch:
        use_only_handlers(folder / "cache", patch)
        _, _, trace = record(folder / "t", program(CODE, {"loop": (BASE + 12, 28)}))
    region = trace.find_region("loop")
    assert region is not None
    return trace, region, panes_of(trace, region)


def texts(panes: Panes, pane: str, insn: int) -> list[str]:
    return [row.text for row in panes.rows[pane] if row.origin is not None and row.origin[:2] == (0, insn)]


@pytest.mark.parametrize("insn", FOUND)
def test_each_instruction_is_found_at_every_stage(insn: int, traced: Any) -> None:
    _, _, panes = traced
    uop, ir, host = FOUND[insn]
    assert any(f" {uop} " in f"{text} " for text in texts(panes, "uops", insn))
    assert any(re.search(ir, text) for text in texts(panes, "ir", insn))
    for other in FOUND.keys() - {insn, 2, 4}:
        assert not any(re.search(ir, text) for text in texts(panes, "ir", other))
    assert any(
        re.search(ir.replace("i32 .*", "i32"), text) or insn in (1, 2, 4) for text in texts(panes, "optimised", insn)
    )
    assert any(re.search(host, text) for text in texts(panes, "host", insn)), texts(panes, "host", insn)


def test_most_of_the_host_code_is_attributed_and_the_rest_is_shown_as_such(traced: Any) -> None:
    _, region, panes = traced
    host = [row for row in panes.rows["host"] if not row.text.startswith(";")]
    assert panes.host_insns == len(host) and panes.attributed == sum(row.origin is not None for row in host)
    assert 0.3 < panes.attributed / panes.host_insns < 1
    assert panes.rows["host"][0].origin is None, "entering a region is for no instruction"
    assert len(region.code) > 100


def test_lines_of_ir_link_the_stages_too(traced: Any) -> None:
    _, region, panes = traced
    written = {row.line: row for row in panes.rows["ir"]}
    source = read_stages(region.compile_record)["ir"].split("\n")
    for pane in ("optimised", "host"):
        rows = [row for row in panes.rows[pane] if row.line]
        assert rows
        for row in rows:
            assert written[row.line].origin == row.origin
    for line, row in written.items():
        assert source[line - 1] == row.text


def test_without_a_compile_record_there_is_the_host_code(traced: Any) -> None:
    trace, region, _ = traced
    from dataclasses import replace

    panes = panes_of(trace, replace(region, number=999, compile_record=b""))
    assert [bool(panes.rows[name]) for name in PANES] == [False, False, False, False, True]


def test_every_region_of_a_large_program_can_be_shown(only_handlers: Path, tmp_path: Path) -> None:
    _, _, trace = record(tmp_path / "t", GUESTS / "bench" / "images" / "objects.elf", fuel=10_000_000)
    shares = []
    for region in trace.regions:
        panes = panes_of(trace, region)
        assert all(panes.rows[name] for name in PANES)
        shares.append(panes.attributed / panes.host_insns)
    assert sum(shares) / len(shares) > 0.5
