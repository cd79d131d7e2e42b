"""``dbt trace``: what it prints, writes for other tools, and finds when it compares."""

from __future__ import annotations

import json
import struct
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dbt.backend.lower import LOWER
from dbt.cli.app import run_app
from dbt.trace.export import FORMATS
from dbt.trace.model import Trace
from tests.cli.command import dbt, json_of, paragraph
from tests.guests import GUESTS
from tests.trace.recordings import program, record, region_tier
from tests.vm.programs import BASE, EXIT

SLOW = GUESTS / "slow" / "images"


@pytest.fixture
def recorded(tmp_path: Path, only_handlers: Path) -> Path:
    (tmp_path / "guest.elf").write_bytes(program())
    done = dbt("run", "--jit", "sync", "--json", "--record-trace", tmp_path / "t", tmp_path / "guest.elf")
    assert done.returncode == 0, done.stderr
    (tmp_path / "json").write_text(json.dumps(json_of(done)))
    return tmp_path / "t"


def printed(*arguments: str | Path) -> str:
    done = dbt("trace", *arguments)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.decode()


def test_stats_are_those_of_the_run(recorded: Path) -> None:
    answer = json.loads((recorded.parent / "json").read_text())
    found = json.loads(printed("stats", "--json", recorded))
    assert found["statistics"] == answer["statistics"] and found["icount"] == answer["icount"]
    done = dbt("run", "--stats", recorded.parent / "guest.elf")
    names = [line[:30] for line in done.stderr.decode().splitlines()[1:]]
    lines = printed("stats", recorded).splitlines()
    often = ("  in regions", "  threaded", "instructions", "host time", "rate", "regions compiled", "region exits")
    for name in often:
        assert any(line.startswith(name) for line in lines) and any(other.startswith(name) for other in names)


def test_top_block_and_why(recorded: Path) -> None:
    top = printed("top", recorded)
    assert "loop" in top and "region" in top
    first = json.loads(printed("top", "--json", "-n", "1", recorded))
    assert len(first) == 1 and first[0]["region"]["symbol"] == "loop" and first[0]["share"] > 0.5
    for name in ("#1", "loop", hex(BASE + 8), first[0]["region"]["identity"]):
        assert "-- x86-64" in printed("block", recorded, name)
    panes = json.loads(printed("block", "--json", "--pane", "uops", recorded, "loop"))["panes"]
    assert list(panes) == ["uops"] and any("load.32" in row[1] for row in panes["uops"])
    assert "side exit" in printed("why", recorded)
    assert all(
        {"kind", "pc", "count", "reason"} <= line.keys() for line in json.loads(printed("why", "--json", recorded))
    )


def test_why_fits_the_terminal_and_names_each_reason_once(tmp_path: Path, only_handlers: Path) -> None:
    guest = SLOW / "dispatching.elf"
    options = ("--trace-counts", "--jit", "sync", "--fuel", "100000000")
    assert dbt("run", "--record-trace", tmp_path / "t", *options, guest).returncode == 123
    whole = dbt("trace", "why", tmp_path / "t", COLUMNS="1000").stdout.decode().splitlines()
    (call,) = (line for line in whole if "run_events+0x1c" in line and "call to elsewhere" in line)
    assert call.count("that were seen when it was compiled") == 1
    lines = dbt("trace", "why", tmp_path / "t", COLUMNS="80").stdout.decode().splitlines()
    assert len(lines) > len(whole) and max(map(len, lines)) <= 80
    assert " ".join("".join(lines).split()) == " ".join("".join(whole).split())


@pytest.mark.parametrize(
    ("command", "package"), [("block", "elftools"), ("html", "jinja2"), ("html", "elftools"), ("view", "textual")]
)
def test_a_library_that_is_missing_is_named(
    recorded: Path, command: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "dbt.trace.view", raising=False)
    more = ["loop"] if command == "block" else []
    assert run_app(["trace", command, str(recorded), *more]) == 125
    text = capsys.readouterr().err
    assert f"this takes the Python package {package}: " in text and "pip install -e '.[trace]'" in text


def test_addresses_do_without_lines(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elftools", None)
    monkeypatch.setitem(sys.modules, "elftools.common.exceptions", None)
    assert run_app(["trace", "why", str(recorded)]) == 0


def test_a_region_that_is_not_there_is_named(recorded: Path) -> None:
    text = paragraph(dbt("trace", "block", recorded, "nowhere"), 120)
    assert "no region has nowhere" in text and "#2 loop" in text


def test_counts_are_for_a_recording(tmp_path: Path) -> None:
    (tmp_path / "guest.elf").write_bytes(program())
    assert "give it with --record-trace" in paragraph(dbt("run", "--trace-counts", tmp_path / "guest.elf"), 120)


# -- for other tools -------------------------------------------------------------------------------


def test_chrome_trace(recorded: Path) -> None:
    events = json.loads(printed("export", "--format", "chrome", recorded))["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["name"] for event in spans} == {"form", "lower", "optimise", "generate"}
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in spans)
    assert any(event["name"].startswith("region installed: #1") for event in events)
    counted = [event for event in events if event["ph"] == "C" and event["name"] == "insns"]
    assert sum(sum(event["args"].values()) for event in counted) > 0


def test_drcov_has_what_was_executed_and_nothing_else(recorded: Path) -> None:
    done = dbt("trace", "export", "--format", "drcov", recorded)
    head, _, table = done.stdout.partition(b" bbs\n")
    lines = head.decode().splitlines()
    assert lines[0] == "DRCOV VERSION: 2" and lines[2] == "Module Table: version 2, count 1"
    blocks = list(struct.iter_unpack("<IHH", table))
    assert lines[-1] == f"BB Table: {len(blocks)}"
    executed = {gpa + at for gpa, size, _ in blocks for at in range(0, size, 4)}
    # The program runs off no edge: all of it but the literal, and the literal of the exit call.
    assert set(range(BASE, BASE + 28, 4)) <= executed and BASE + 68 not in executed


def test_folded_and_speedscope_agree_with_top(recorded: Path) -> None:
    trace = Trace(str(recorded))
    lines = printed("export", "--format", "folded", recorded).splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == trace.icount
    document = json.loads(printed("export", "--format", "speedscope", recorded))
    [profile] = document["profiles"]
    assert sum(profile["weights"]) == profile["endValue"] and len(profile["samples"]) == len(trace.samples)
    names = [frame["name"] for frame in document["shared"]["frames"]]
    assert all(0 <= number < len(names) for sample in profile["samples"] for number in sample)


def test_an_unknown_format_lists_the_others(recorded: Path) -> None:
    text = paragraph(dbt("trace", "export", "--format", "pdf", recorded), 120)
    assert all(name in text for name in FORMATS)


# -- two runs ----------------------------------------------------------------------------------------


def test_two_tiers_have_no_difference(tmp_path: Path, only_handlers: Path) -> None:
    guest = GUESTS / "bench" / "images" / "crc32.elf"
    for tier in ("threaded", "auto"):
        dbt("run", "--tier", tier, "--fuel", "10000000", "--record-trace", tmp_path / tier, guest)
    text = printed("diff", tmp_path / "threaded", tmp_path / "auto")
    assert "equal at 3 checkpoints, up to instruction 10,000,000" in text and "the runs end alike" in text


def test_the_first_different_instruction_is_found(tmp_path: Path, only_handlers: Path) -> None:
    """The second program is as the first but for an immediate that it comes to after five million instructions."""
    code = f"""
        movw r4, #0 ; movt r4, #40
        loop: subs r4, r4, #1 ; bne loop
        sub r6, sp, #64
        culprit: mov r5, #IMMEDIATE
        str r5, [r6]
        movt r4, #40
        again: subs r4, r4, #1 ; bne again
        mov r2, #0 ; {EXIT}
    """
    for name, immediate in (("a", "1"), ("b", "2")):
        (tmp_path / f"{name}.elf").write_bytes(
            program(code.replace("IMMEDIATE", immediate), {"culprit": (BASE + 20, 4)})
        )
        done = dbt("run", "--tier", "threaded", "--record-trace", tmp_path / name, tmp_path / f"{name}.elf")
        assert done.returncode == 0
    done = dbt("trace", "diff", tmp_path / "a", tmp_path / "b")
    text = done.stdout.decode()
    assert done.returncode == 1 and "(culprit: mov r5, #1)" in text, text
    assert "r5  00000001  00000002" in text
    found = json.loads(dbt("trace", "diff", "--json", tmp_path / "a", tmp_path / "b").stdout)
    assert found["differs"] == 2 + 2 * (40 << 16) + 1 + 1 and found["pc"] == BASE + 20
    (tmp_path / "b.elf").write_bytes(b"something else")
    assert "has changed since" in paragraph(dbt("trace", "diff", tmp_path / "a", tmp_path / "b"), 121)


def test_short_runs_that_end_differently_are_compared(tmp_path: Path, only_handlers: Path) -> None:
    code = f"mov r0, #1 ; culprit: mov r2, #IMMEDIATE ; cmp r2, #1 ; beq end ; nop ; end: {EXIT}"
    for name in ("1", "2"):
        image = program(code.replace("IMMEDIATE", name), {"culprit": (BASE + 4, 4)})
        (tmp_path / f"{name}.elf").write_bytes(image)
        assert dbt("run", "--record-trace", tmp_path / name, tmp_path / f"{name}.elf").returncode == int(name)
    done = dbt("trace", "diff", tmp_path / "1", tmp_path / "2")
    text = done.stdout.decode()
    assert done.returncode == 1 and "the ends differ: exited with 1" in text and "exited with 2 after" in text
    assert "instruction 2 at" in text and "(culprit: mov r2, #1)" in text
    fuel = dbt("run", "--fuel", "2", "--record-trace", tmp_path / "fuel", tmp_path / "1.elf")
    assert fuel.returncode == 123
    done = dbt("trace", "diff", tmp_path / "1", tmp_path / "fuel")
    assert done.returncode == 1 and b"the ends are not alike: exited with 1" in done.stdout
    (tmp_path / "killed").write_bytes((tmp_path / "1").read_bytes()[:-20])
    done = dbt("trace", "diff", tmp_path / "1", tmp_path / "killed")
    assert done.returncode == 0 and b"not recorded" in done.stdout and b"did not end in an orderly way" in done.stderr


def test_runs_are_made_again_with_the_input_they_had(tmp_path: Path, only_handlers: Path) -> None:
    """It sums up its input; the third character differs."""
    code = f"""
        mov r4, #0 ; loop: mov r0, #7 ; culprit: svc #0x123456
        cmn r0, #1 ; addne r4, r4, r0 ; bne loop
        mov r2, r4 ; {EXIT}
    """
    (tmp_path / "guest.elf").write_bytes(program(code, {"culprit": (BASE + 8, 4)}))
    for name, keys in (("a", b"same"), ("b", b"sale")):
        where: list[str | Path] = ["--record", tmp_path / f"{name}.in", "--record-trace", tmp_path / name]
        assert dbt("run", *where, tmp_path / "guest.elf", stdin=keys).returncode == sum(keys) & 0xFF
    text = dbt("trace", "diff", tmp_path / "a", tmp_path / "b").stdout.decode()
    assert f"instruction {2 + 2 * 5 + 1} at" in text and "(culprit: svc #0x123456)" in text, text
    again: list[str | Path] = ["--replay", tmp_path / "a.in", "--tier", "threaded", "--record-trace", tmp_path / "c"]
    dbt("run", *again, tmp_path / "guest.elf")
    assert "the runs end alike" in printed("diff", tmp_path / "a", tmp_path / "c")
    assert f"instruction {2 + 2 * 5 + 1} at" in dbt("trace", "diff", tmp_path / "c", tmp_path / "b").stdout.decode()


def test_the_instruction_that_a_tier_does_wrong_is_found(
    tmp_path: Path, only_handlers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop comes to MLALT in its round 800,002; before, its condition fails."""
    monkeypatch.setitem(LOWER, "mul", LOWER["add"])
    code = f"""
        movw r1, #1500 ; movw r3, #1000 ; mul r1, r3, r1 ; movw r3, #700 ; movw r4, #1000 ; mul r3, r4, r3
        loop: add r0, r0, #3 ; cmp r1, r3
        culprit: mlalt r2, r0, r1, r2
        movhs r4, r0 ; subs r1, r1, #1 ; bne loop
        mov r2, #0 ; {EXIT}
    """
    (tmp_path / "guest.elf").write_bytes(program(code, {"culprit": (BASE + 32, 4)}))
    traces = [str(tmp_path / tier) for tier in ("threaded", "auto")]
    for trace in traces:
        jit = ["--jit", "sync"] if trace.endswith("auto") else []
        run_app(["run", "--tier", Path(trace).name, *jit, "--record-trace", trace, str(tmp_path / "guest.elf")])
    capsys.readouterr()
    assert run_app(["trace", "diff", *traces]) == 1
    text = capsys.readouterr().out
    assert f"instruction {6 + 6 * 800_001 + 3:,} at" in text and "(culprit: mlalt r2, r0, r1, r2)\n" in text, text


# -- the prepared guests of the tutorial -----------------------------------------------------------


def test_the_cause_is_found_where_code_is_written_over(tmp_path: Path, only_handlers: Path) -> None:
    _, _, trace = record(tmp_path / "t", SLOW / "patching.elf", fuel=5_000_000)
    dropped = max((r for r in trace.reasons if r.kind == "dropped"), key=lambda reason: reason.count)
    assert dropped.text == "code written over: gain_instruction" and dropped.count > 2
    assert dropped.pc is not None and trace.describe(dropped.pc).startswith("tune")
    assert any("left to the threaded tier" in reason.text for reason in trace.reasons if reason.kind == "not compiled")
    assert trace.hot_places[0].region is None


def test_the_cause_is_found_where_jumps_miss(tmp_path: Path, only_handlers: Path) -> None:
    _, _, trace = record(tmp_path / "t", SLOW / "dispatching.elf", block_counters=True, fuel=20_000_000)
    exits = {reason.text: reason.count for reason in trace.reasons if reason.kind == "side exit"}
    most = max(exits, key=exits.__getitem__)
    assert most == "indirect branch to elsewhere" and exits[most] > 100_000
    site = next(reason for reason in trace.reasons if reason.kind == "exit at")
    assert site.pc is not None and trace.describe(site.pc).startswith("run_events")
    assert "call to elsewhere than any of the" in site.text


def test_source_lines_where_the_program_has_them(tmp_path: Path, only_handlers: Path) -> None:
    done = dbt("run", "--fuel", "5000000", "--jit", "sync", "--record-trace", tmp_path / "t", SLOW / "patching.elf")
    assert done.returncode
    trace: Any = Trace(str(tmp_path / "t"))
    address = next(symbol.address for symbol in trace.symbols.symbols if symbol.name == "tune")
    name, line = trace.source_line(address)
    source = (GUESTS / "slow" / "patching.c").read_text().splitlines()
    assert name == "patching.c" and "tune(uint32_t gain)" in "\n".join(source[line - 5 : line])


# -- perf ------------------------------------------------------------------------------------------


def test_a_map_for_perf(tmp_path: Path, only_handlers: Path) -> None:
    from dbt import Machine
    from dbt.engine.observer import Several
    from dbt.host.console import CaptureConsole
    from dbt.trace.perfmap import PerfMap
    from dbt.trace.recorder import TraceRecorder

    perf_map, recorder = PerfMap(str(tmp_path)), TraceRecorder(str(tmp_path / "t"))
    machine = Machine(8 << 20, jit="sync", console=CaptureConsole(), observer=Several(perf_map, recorder))
    machine.load_bytes(program())
    perf_map.begin(machine)
    recorder.begin(machine, "test", {}, {})
    recorder.end(machine.run(), 1.0, {})
    perf_map.end()
    lines = [line.split(" ", 2) for line in Path(perf_map.path).read_text().splitlines()]
    ranges = sorted((int(start, 16), int(size, 16), name) for start, size, name in lines)
    assert all(start + size <= after for (start, size, _), (after, _, _) in pairwise(ranges))
    names = {name for _, _, name in ranges}
    assert {"guest: loop", "stitched: loop", "stitched: loop+0x4"} <= names
    assert machine.tier.stitch_log is not None
    blocks = {(block.address, block.size) for block in machine.tier.stitch_log.blocks()}
    assert blocks == {(start, size) for start, size, name in ranges if name.startswith("stitched: ")}
    assert any(name.startswith("dbt: MUL {") for name in names)
    for found in region_tier(machine).cache.installed.values():
        assert (found.address, len(found.region.code)) in {(start, size) for start, size, _ in ranges}
    assert Trace(str(tmp_path / "t")).regions
