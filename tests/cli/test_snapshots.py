"""``--save``, ``--save-at``, ``--restore`` and ``dbt snapshot``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from dbt.snapshot.info import SnapshotInfo
from dbt.snapshot.snapshots import write_snapshot
from tests.assembler import assemble
from tests.cli.command import COMMAND, ROOT, dbt, environment, json_of, paragraph
from tests.snapshot.subjects import SUBJECTS
from tests.vm.programs import EXIT
from tests.waiting import BOUND_S

SUDOKU = ROOT / "guests/images/sudoku-armv7-a-O2.elf"
MINIOS = ROOT / "guests/images/minios-armv5te-O2.elf"
TIER = ("--tier", "threaded")


def icount_of(path: Path) -> object:
    return SnapshotInfo.read(path).value("icount")


def test_a_run_in_pieces_prints_what_a_whole_run_does(tmp_path: Path) -> None:
    whole = dbt("run", *TIER, SUDOKU)
    first = dbt("run", *TIER, "--fuel", "20000", "--save", tmp_path / "a", SUDOKU)
    assert first.returncode == 123
    assert b"saved to " in first.stderr
    second = dbt("run", "--restore", tmp_path / "a", "--fuel", "200000", "--save", tmp_path / "b", "--increment", *TIER)
    assert second.returncode == 123, second.stderr
    assert icount_of(tmp_path / "b") == 220_000
    third = dbt("run", "--restore", tmp_path / "b")
    assert (third.returncode, third.stderr) == (whole.returncode, b"")
    assert first.stdout + second.stdout + third.stdout == whole.stdout
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_save_at_is_exact_and_the_guest_goes_on(tmp_path: Path) -> None:
    whole = dbt("run", *TIER, MINIOS)
    saved = dbt("run", *TIER, "--save-at", "700001", "--save", tmp_path / "a", MINIOS)
    assert (saved.returncode, saved.stdout) == (whole.returncode, whole.stdout)
    assert icount_of(tmp_path / "a") == 700_001
    assert dbt("run", *TIER, "--restore", tmp_path / "a").returncode == whole.returncode
    again = dbt(
        "run", *TIER, "--restore", tmp_path / "a", "--save-at", "700001", "--save", tmp_path / "b", "--fuel", "9"
    )
    assert again.returncode == 123
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_where_a_run_was_saved_and_restored_leaves_no_trace_in_the_state(tmp_path: Path) -> None:
    dbt("run", *TIER, "--fuel", "800000", "--save", tmp_path / "whole", MINIOS)
    dbt("run", *TIER, "--fuel", "800000", "--save-at", "700001", "--save", tmp_path / "first", MINIOS)
    dbt("run", "--restore", tmp_path / "first", "--fuel", "99999", "--save", tmp_path / "pieces")
    done = dbt("snapshot", "diff", tmp_path / "whole", tmp_path / "pieces")
    assert (done.returncode, done.stdout) == (0, b"they are the same\n")


def test_statistics_are_of_what_has_been_executed_since(tmp_path: Path) -> None:
    dbt("run", *TIER, "--fuel", "700000", "--save", tmp_path / "a", MINIOS)
    text = dbt("run", *TIER, "--restore", tmp_path / "a", "--fuel", "1000", "--stats").stderr.decode()
    lines = {" ".join(line.split()[:-1]): line.split()[-1] for line in text.splitlines() if line.split()}
    assert lines["instructions"] == "1,000"
    assert lines["before it was restored"] == "700,000"


def test_a_restored_run_is_traced_and_its_traces_are_compared(tmp_path: Path) -> None:
    dbt("run", *TIER, "--fuel", "700000", "--save", tmp_path / "a", MINIOS)
    for name in ("t", "u"):
        done = dbt("run", "--restore", tmp_path / "a", "--record-trace", tmp_path / name)
        assert done.returncode == 0, done.stderr
    top = dbt("trace", "top", tmp_path / "t").stdout.decode()
    assert top.startswith("a: ")
    assert dbt("trace", "diff", tmp_path / "t", tmp_path / "u").returncode == 0


def test_nothing_is_saved_of_a_guest_that_has_ended(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    for more in ((), ("--save-at", "1000000000")):
        done = dbt("run", *TIER, "--save", tmp_path / "a", *more, SUDOKU)
        assert done.returncode == 0
        assert b"nothing was saved" in done.stderr
        assert (tmp_path / "a").read_bytes() == b"old"


def test_json_says_what_was_saved(tmp_path: Path) -> None:
    answer = json_of(dbt("run", *TIER, "--fuel", "100", "--save", tmp_path / "a", "--json", SUDOKU))
    assert answer["saved"] == {"path": str(tmp_path / "a"), "digest": SnapshotInfo.read(tmp_path / "a").file.digest}
    assert json_of(dbt("run", *TIER, "--fuel", "100", "--json", SUDOKU))["saved"] is None


def test_ctrl_c_saves(tmp_path: Path) -> None:
    (tmp_path / "loop.bin").write_bytes(assemble("mov r0, #3 ; adr r1, word ; svc 0x123456 ; b . ; word: .word 0x5b"))
    command = [*COMMAND, "run", *TIER, "--save", str(tmp_path / "a"), str(tmp_path / "loop.bin")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"["
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=BOUND_S)
    assert process.returncode == 130
    assert b"saved to" in errors
    assert dbt("run", *TIER, "--restore", tmp_path / "a", "--fuel", "10").returncode == 123


def test_input_goes_on_where_it_was(tmp_path: Path) -> None:
    echo = (
        f"loop: mov r0, #7 ; svc 0x123456 ; sub r1, sp, #16 ; str r0, [r1] ; mov r5, r0 ; mov r0, #3 ; svc 0x123456"
        f" ; cmp r5, #0x71 ; bne loop ; mov r2, #7 ; {EXIT}"
    )
    (tmp_path / "echo.bin").write_bytes(assemble(echo))
    first = dbt("run", *TIER, "--fuel", "36", "--save", tmp_path / "a", tmp_path / "echo.bin", stdin=b"abcdefgh")
    assert first.stdout == b"abcd"
    second = dbt("run", *TIER, "--restore", tmp_path / "a", stdin=b"xyq")
    assert (second.stdout, second.returncode) == (b"xyq", 7)


def test_a_restored_run_can_be_recorded_and_replayed(tmp_path: Path) -> None:
    dbt("run", *TIER, "--fuel", "700000", "--save", tmp_path / "a", MINIOS)
    recorded = dbt("run", *TIER, "--restore", tmp_path / "a", "--record", tmp_path / "r")
    assert recorded.returncode == 0, recorded.stderr
    replayed = dbt("run", "--tier", "stitched", "--restore", tmp_path / "a", "--replay", tmp_path / "r")
    assert replayed.returncode == 0
    assert replayed.stdout == recorded.stdout
    other = paragraph(dbt("run", *TIER, "--replay", tmp_path / "r", MINIOS), 121)
    assert "it is another program" in other


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *(("--kernel", "x"), ("--initrd", "x"), ("--dtb", "x"), ("--append", "x"), ("--atags",), ("--memory", "1M")),
        *(("--base", "0"), ("--entry", "0"), ("--cpu", "any"), ("--semihosting", "on"), ("--epoch", "now")),
        ("--insn-ns", "10"),
    ],
)
def test_what_belongs_to_the_state_cannot_be_chosen_again(tmp_path: Path, options: tuple[str, ...]) -> None:
    text = paragraph(dbt("run", "--restore", tmp_path / "a", *options), 120)
    assert options[0] in text
    assert "belongs to the state" in text


def test_a_program_beside_a_snapshot_is_refused(tmp_path: Path) -> None:
    assert "has the program already" in paragraph(dbt("run", "--restore", tmp_path / "a", SUDOKU), 120)


def test_options_that_need_another(tmp_path: Path) -> None:
    assert "--save FILE" in paragraph(dbt("run", "--save-at", "1", SUDOKU), 120)
    assert "--restore" in paragraph(dbt("run", "--increment", "--save", tmp_path / "a", SUDOKU), 120)
    dbt("run", *TIER, "--fuel", "100", "--save", tmp_path / "a", SUDOKU)
    text = paragraph(dbt("run", "--restore", tmp_path / "a", "--save", tmp_path / "b", "--save-at", "99"), 120)
    assert "is at instruction 100 already" in text


def test_places_that_cannot_be_written_are_refused_before_the_run(tmp_path: Path) -> None:
    done = dbt("run", *TIER, "--save", tmp_path, SUDOKU)
    assert "Is a directory" in paragraph(done, 120)
    assert not done.stdout
    dbt("run", *TIER, "--fuel", "100", "--save", tmp_path / "a", SUDOKU)
    text = paragraph(dbt("run", "--restore", tmp_path / "a", "--save", tmp_path / "a", "--increment"), 120)
    assert "a file that it needs" in text
    assert "this is the program" in paragraph(dbt("run", "--save", SUDOKU, SUDOKU), 120)
    assert dbt("run", *TIER, "--restore", tmp_path / "a", "--save", tmp_path / "a", "--fuel", "1").returncode == 123
    assert icount_of(tmp_path / "a") == 101


def test_files_that_are_no_snapshots(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    dbt("run", *TIER, "--fuel", "100", "--save", tmp_path / "a", SUDOKU)
    (tmp_path / "cut").write_bytes((tmp_path / "a").read_bytes()[:-1])
    for path in (tmp_path / "missing", tmp_path, tmp_path / "fifo", SUDOKU, tmp_path / "cut"):
        for command in (("run", "--restore"), ("snapshot", "info"), ("snapshot", "verify")):
            assert str(path) in paragraph(dbt(*command, path), 121)
        assert str(path) in paragraph(dbt("snapshot", "diff", tmp_path / "a", path), 121)


# -- dbt snapshot ----------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    one, other = tmp_path / "a", tmp_path / "b"
    dbt("run", *TIER, "--fuel", "700000", "--save", one, MINIOS)
    dbt("run", *TIER, "--restore", one, "--fuel", "100000", "--save", other, "--increment")
    return one, other


def test_info(pair: tuple[Path, Path]) -> None:
    text = dbt("snapshot", "info", pair[1]).stdout.decode()
    for part in ("800,000", str(pair[0]), "a program on any", "format", "digest"):
        assert part in text
    answer = json.loads(dbt("snapshot", "info", "--json", pair[1]).stdout)
    assert answer["schema"] == 1
    assert answer["icount"] == 800_000
    assert answer["parents"][0]["path"] == str(pair[0])
    assert answer["registers"]["r15"] % 4 == 0


def test_verify(pair: tuple[Path, Path]) -> None:
    done = dbt("snapshot", "verify", pair[1])
    assert done.returncode == 0
    assert done.stdout.decode().count(": good, ") == 2
    assert json.loads(dbt("snapshot", "verify", "--json", pair[1]).stdout)["restored"] is True
    data = bytearray(pair[0].read_bytes())
    data[-1] ^= 1
    pair[0].write_bytes(data)
    assert str(pair[0]) in paragraph(dbt("snapshot", "verify", pair[1]), 121)


def test_diff(pair: tuple[Path, Path]) -> None:
    same = dbt("snapshot", "diff", pair[0], pair[0])
    assert (same.returncode, same.stdout) == (0, b"they are the same\n")
    done = dbt("snapshot", "diff", *pair)
    text = done.stdout.decode()
    assert done.returncode == 1
    for part in ("registers (", "  r2 ", "devices (", "timers 0 and 1.timers[0].", "  icount", "700000 -> 800000"):
        assert part in text
    assert "pages (" in text
    answer = json.loads(dbt("snapshot", "diff", "--json", *pair).stdout)
    assert {one["name"]: one["values"] for one in answer["others"]}["icount"] == [700_000, 800_000]
    assert "ticks" in {name.partition("+")[0] for page in answer["pages"] for name in page["symbols"]}


def test_a_file_that_a_guest_has_open_is_needed(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/name").write_bytes(b"0123456789")
    opens = (
        f"mov r0, #1 ; adr r1, block ; svc 0x123456 ; mov r5, r0 ; mov r2, #0 ; {EXIT}"
        ' ; block: .word name, 0, 4 ; name: .asciz "name"'
    )
    (tmp_path / "p.bin").write_bytes(assemble(opens))
    files = ("--files", tmp_path / "files")
    done = dbt("run", *TIER, *files, "--fuel", "4", "--save", tmp_path / "a", tmp_path / "p.bin")
    assert done.returncode == 123, done.stderr
    assert dbt("run", *TIER, *files, "--restore", tmp_path / "a").returncode == 0
    assert b"name" in dbt("snapshot", "verify", tmp_path / "a").stdout
    assert json.loads(dbt("snapshot", "verify", "--json", *files, tmp_path / "a").stdout)["restored"] is True
    assert str(tmp_path / "a") in paragraph(dbt("run", *TIER, "--restore", tmp_path / "a"), 121)
    (tmp_path / "files/name").unlink()
    assert "name" in paragraph(dbt("run", *TIER, *files, "--restore", tmp_path / "a"), 121)


def test_what_is_attached_to_a_machine_is_said(tmp_path: Path) -> None:
    """A machine with disks is not restored to be verified, because the snapshot alone does not have them."""
    with SUBJECTS["disk"].start(tmp_path) as machine, machine.save() as state:
        write_snapshot(state, tmp_path / "a")
    needs = "2 disks, 1 network card, 1 shared directory"
    done = dbt("snapshot", "verify", tmp_path / "a")
    assert done.returncode == 0 and f"no machine was restored, because this one has {needs}" in done.stdout.decode()
    found = json.loads(dbt("snapshot", "verify", "--json", tmp_path / "a").stdout)
    assert found["restored"] is False
    assert needs in " ".join(dbt("snapshot", "info", tmp_path / "a").stdout.decode().split())
