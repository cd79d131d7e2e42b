"""``dbt replay``: the state at an instruction of a recorded run, and gdb there."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import COMMAND, dbt, environment, json_of, paragraph
from tests.gdb.sessions import gdb_says, needs_gdb, values
from tests.trace.recordings import program
from tests.vm.programs import BASE, EXIT

#: Sums up its input. After five instructions for each byte, and two before, R4 has the sum.
SUM = f"""
    mov r4, #0
    loop: mov r0, #7 ; call: svc #0x123456 ; cmn r0, #1 ; addne r4, r4, r0 ; bne loop
    mov r2, r4 ; {EXIT}
"""
CALL = BASE + 8


@pytest.fixture
def summed(tmp_path: Path, only_handlers: Path) -> Path:
    """The directory of a recording ``input`` of a run with three bytes of input, and of its trace ``trace``."""
    (tmp_path / "guest.elf").write_bytes(program(SUM, {"call": (CALL, 4)}))
    recorded: list[str | Path] = ["--record", tmp_path / "input", "--record-trace", tmp_path / "trace"]
    assert dbt("run", *recorded, tmp_path / "guest.elf", stdin=b"abc").returncode == sum(b"abc") & 0xFF
    return tmp_path


@pytest.mark.parametrize("file", ["input", "trace"])
def test_the_state_at_an_instruction_is_that_of_a_run_of_so_many(summed: Path, file: str) -> None:
    for icount, total in ((0, 0), (5, ord("a")), (12, ord("a") + ord("b")), (17, sum(b"abc"))):
        done = dbt("replay", summed / file, "--at", str(icount), "--json")
        found = json_of(done)
        assert (done.returncode, found["icount"], found["registers"]["r4"]) == (0, icount, total)
        run = dbt("run", "--json", "--fuel", str(icount), summed / "guest.elf", stdin=b"abc")
        assert found["registers"] == json_of(run)["registers"] and found["nanoseconds"] == 10 * icount
    text = dbt("replay", "--at", "12", summed / file).stderr.decode()
    assert text.startswith("dbt: at instruction 12, 0.000000120 s, in supervisor mode, 0x00008008 (call: svc")
    assert "r4 000000c3" in text


def test_what_cannot_be_replayed_is_said(summed: Path) -> None:
    def refused(*arguments: str | Path, status: int = 121) -> str:
        return paragraph(dbt("replay", *arguments), status)

    assert "ends before, after 28 instructions: exited" in refused(summed / "input", "--at", "99", status=120)
    assert "--at ICOUNT is missing" in refused(summed / "input", status=120)
    assert "--at x" in refused(summed / "input", "--at", "x", status=120)
    assert "--gdb 1:2:3" in refused(summed / "input", "--at", "1", "--gdb", "1:2:3", status=120)
    assert "No such file" in refused(summed / "missing", "--at", "1")
    assert "neither a recording nor a translation trace" in refused(summed / "guest.elf", "--at", "1")
    assert "neither a recording nor a translation trace" in refused("/dev/null", "--at", "1")
    (summed / "guest.elf").write_bytes(b"something else")
    assert "guest.elf: it has changed since" in refused(summed / "input", "--at", "1")


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        (None, "does not say how its run was made"),
        ([], "does not say"),
        ({"command": {}, "directory": 1, "files": {}}, "does not say"),
        ({"command": {"program": "/etc/passwd"}, "directory": "/", "files": {}}, "no checksum of /etc/passwd"),
        ({"command": {"program": 5}, "directory": "/", "files": {}}, "program in its command"),
        ({"command": {"program": "a\0b"}, "directory": "/", "files": {"/a\0b": "0"}}, "null"),
        ({"command": {}, "directory": "/", "files": {}}, "PROGRAM is missing"),
        ({"command": {"drive": ["file=x"]}, "directory": "/", "files": {}}, "disks"),
        ({"command": {"net": "user"}, "directory": "/", "files": {}}, "value of net in its command"),
        ({"command": {"net": [1]}, "directory": "/", "files": {}}, "value of net in its command"),
        ({"command": {"net": ["x"]}, "directory": "/", "files": {}}, "PROGRAM is missing"),
        ({"command": {"files": "/etc"}, "directory": "/", "files": {}}, "--files DIR"),
    ],
)
def test_a_forged_origin_is_refused(summed: Path, origin: Any, says: str) -> None:
    first, _, rest = (summed / "input").read_bytes().partition(b"\n")
    header = json.loads(first) | {"origin": origin}
    (summed / "input").write_bytes(json.dumps(header).encode() + b"\n" + rest)
    done = dbt("replay", summed / "input", "--at", "1")
    assert done.returncode in (120, 121)
    assert says in paragraph(done, done.returncode)


def test_a_restored_run_is_replayed_from_its_snapshot_on(summed: Path) -> None:
    dbt("run", "--fuel", "2", "--save", summed / "state", summed / "guest.elf", stdin=b"")
    dbt("run", "--restore", summed / "state", "--record", summed / "later", stdin=b"bc")
    found = json_of(dbt("replay", summed / "later", "--at", "7", "--json"))
    assert found["registers"]["r4"] == ord("b") and found["icount"] == 7
    assert "begins at instruction 2" in paragraph(dbt("replay", summed / "later", "--at", "1"), 120)


def _serving(command: list[str]) -> tuple[subprocess.Popen[str], str, list[str]]:
    """Start a command that lets gdb connect. Return it, the place, and what it said before."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    said: list[str] = []
    assert process.stderr is not None
    while not (found := re.search(r"target remote (\S+)", line := process.stderr.readline())):
        assert line, said
        said.append(line)
    return process, found[1], said


@needs_gdb
def test_gdb_begins_at_the_instruction_and_goes_both_ways(summed: Path) -> None:
    process, place, said = _serving([*COMMAND, "replay", "--at", "12", "--gdb", "0", str(summed / "input")])
    with process:
        commands = ["p $r4", "p/x $pc", "reverse-stepi", "p/x $pc", "monitor when", "monitor seek 5"]
        commands += ["maintenance flush register-cache", "p $r4", "continue", "stepi 5", "p $r4", "continue"]
        text = gdb_says(place, commands)
        assert process.wait(20) == sum(b"abc") & 0xFF
    assert said[-1].startswith("dbt: at instruction 12, 0x00008008 (call")
    assert values(text) == [ord("a") + ord("b"), CALL, CALL - 4, ord("a"), sum(b"abc")], text
    assert "in a history from 0 to 12 instructions" in text


@needs_gdb
def test_the_commands_that_a_comparison_prints_work_when_they_are_typed(summed: Path) -> None:
    """Both lead in front of the instruction that differs, where the registers are the same."""
    other: list[str | Path] = ["--record", summed / "input 2", "--record-trace", summed / "trace 2"]
    dbt("run", *other, summed / "guest.elf", stdin=b"abd")
    traces = str(summed / "trace"), str(summed / "trace 2")
    text = dbt("trace", "diff", *traces).stdout.decode()
    assert "instruction 13 at" in text
    lines = [line.strip() for line in text.partition("open this moment of each in gdb:\n")[2].splitlines()]
    assert lines == json.loads(dbt("trace", "diff", "--json", *traces).stdout)["commands"]
    last = []
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "dbt" and len(lines) == 2
        process, place, _ = _serving([*COMMAND, *words[1:]])
        with process:
            found = values(gdb_says(place, ["p/x $pc", "p $r4", "stepi", "p $r0", "kill"]))
            assert process.wait(20) == 130
        assert found[:2] == [CALL, ord("a") + ord("b")]
        last.append(found[2])
    assert last == [ord("c"), ord("d")]


def test_ctrl_c_ends_a_replay(summed: Path) -> None:
    """On its way to a moment that is far away."""
    code = "sub r1, sp, #4 ; mov r2, #88 ; strb r2, [r1] ; mov r0, #3 ; svc #0x123456 ; loop: b loop"
    (summed / "loop.elf").write_bytes(program(code, {}))
    dbt("run", "--fuel", "100", "--record-trace", summed / "trace", summed / "loop.elf")
    command = [*COMMAND, "replay", "--at", "1" + 15 * "0", str(summed / "trace")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    with process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(1) == b"X"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == b"dbt: interrupted\n"
