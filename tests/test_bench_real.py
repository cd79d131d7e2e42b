"""``make bench-real``: how it judges and times what it runs, its tables, and the options that it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tools"


def bench_real(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "bench_real.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


# -- tables ----------------------------------------------------------------------------------------


def runs(*walls: float) -> list[dict[str, float]]:
    """Runs that take so long in wall time, and half of it each as user and system time."""
    return [{"wall": wall, "user": wall / 2, "system": wall / 2} for wall in walls]


def program(name: str, tiers: dict[str, int], **times: list[dict[str, float]]) -> dict[str, Any]:
    renamed = {engine.replace("_", " "): taken for engine, taken in times.items()}
    known = {"part": "programs", "name": name, "version": "1.0-1", "failure": None}
    return {**known, "times": renamed, "tiers": {engine: tiers for engine in renamed if engine != "QEMU"}}


def show(folder: Path, *programs: dict[str, Any]) -> tuple[str, list[list[str]]]:
    """What is printed for these results, and the words of its lines."""
    machine = {"cpu": "a processor", "qemu": None}
    report = folder / "report.json"
    report.write_text(json.dumps({"machine": machine, "options": {}, "results": programs}))
    shown = bench_real("--show", str(report))
    assert shown.returncode == 0, shown.stderr
    return shown.stdout, [line.split() for line in shown.stdout.splitlines()]


def test_the_table_has_medians_their_ratios_geometric_means_and_the_worst(tmp_path: Path) -> None:
    tiers = {"region": 200_000_000, "threaded": 49_000_000, "machine": 1_000_000}
    one = program("one", tiers, QEMU=runs(2.0, 9.0, 1.0), first=runs(8.0, 8.0, 0.1), second=runs(1.0, 1.0, 5.0))
    two = program(
        "two",
        {"region": 100_000, "other": 300_000, "threaded": 600_000},
        QEMU=runs(0.5),
        first=runs(0.5),
        second=runs(1.0),
    )
    text, lines = show(tmp_path, one, two)
    assert ["one", "250", "2.00", "4.00", "0.50", "2.00", "4.00", "0.50", "80", "80"] in lines
    assert ["two", "1", "0.50", "1.00", "2.00", "0.50", "1.00", "2.00", "10+30", "10+30"] in lines
    assert ["geom.", "mean", "2.00", "1.00", "2.00", "1.00"] in lines
    assert "worst in wall, and how many of 2 are slower than QEMU: first one 4.00 (1 slower), " in text
    assert "second two 2.00 (1 slower)" in text
    assert "cpu: a processor, qemu: none" in text


def test_without_the_peer_the_table_has_seconds(tmp_path: Path) -> None:
    _, lines = show(tmp_path, program("one", {"region": 250_000_000}, first=runs(8.0), second=runs(1.5)))
    assert ["one", "250", "8.00", "1.50", "8.00", "1.50", "100", "100"] in lines


def test_another_checkout_has_a_table_and_is_compared_with_this_one(tmp_path: Path) -> None:
    tiers = {"region": 1_000_000}
    one = program("one", tiers, QEMU=runs(1.0), first=runs(2.0), old_first=runs(4.0))
    two = program("two", tiers, QEMU=runs(1.0), first=runs(3.0), old_first=runs(3.0 / 2))
    text, lines = show(tmp_path, one, two)
    assert ["one", "1", "1.00", "2.00", "1.00", "2.00", "100"] in lines
    assert ["one", "1", "1.00", "4.00", "1.00", "4.00", "100"] in lines
    assert "first run relative to the old one's: wall 1.00, cpu 1.00" in text


def test_a_program_that_failed_is_named_and_not_counted(tmp_path: Path) -> None:
    good = program("good", {"region": 1_000_000}, QEMU=runs(1.0), first=runs(3.0))
    bad = program("bad", {}, QEMU=runs(1.0)) | {"failure": "first printed other results"}
    text, lines = show(tmp_path, good, bad)
    assert "FAILED bad: first printed other results" in text
    assert ["geom.", "mean", "3.00", "3.00"] in lines
    assert not [line for line in lines if line and line[0] == "bad"]


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"results": 3}')
    shown = bench_real("--show", str(tmp_path / "other.json"))
    assert shown.returncode == 1
    assert "other.json is not a report of this benchmark" in shown.stderr


# -- options ---------------------------------------------------------------------------------------


def test_a_program_that_does_not_exist_is_refused() -> None:
    shown = bench_real("--programs", "lua,nothing")
    assert shown.returncode == 2
    assert "there is no program nothing" in shown.stderr


def test_every_program_is_listed_once() -> None:
    names = [line.split()[0] for line in bench_real("--list").stdout.splitlines()]
    assert "lua" in names
    assert "linux-gzip" in names
    assert len(names) == len(set(names))


# -- running ---------------------------------------------------------------------------------------


def in_tools(code: str, *arguments: str) -> Any:
    """What a program that imports the tools prints as JSON. It adopts orphans, which a test's process should not."""
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TIMED = """
import json, os, sys, time
from pathlib import Path
from real_programs.processes import adopt_orphans, run_timed
adopt_orphans()
started = time.monotonic()
ended = run_timed(["sh", "-c", sys.argv[1]], Path(sys.argv[3]), os.environ, float(sys.argv[2]))
print(json.dumps([ended.times.wall, ended.times.clock("cpu"), ended.status, time.monotonic() - started]))
"""
WORK = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.3: pass'"


def test_a_process_that_outlives_its_parent_is_waited_for_and_its_cpu_time_counts(tmp_path: Path) -> None:
    wall, cpu, status, whole = in_tools(TIMED, f"({WORK}) & exit 3", "30", str(tmp_path))
    assert status == 3
    assert cpu >= 0.3
    assert wall < whole - 0.2


@pytest.mark.parametrize(("command", "status"), [("exec sleep 60", None), ("sleep 60 & exit 3", 3)])
def test_what_takes_too_long_is_killed(command: str, status: int | None, tmp_path: Path) -> None:
    assert in_tools(TIMED, command, "0.5", str(tmp_path))[2] == status


JUDGED = """
import json, sys
from pathlib import Path
from real_programs.results import Result
from real_programs.turns import Bench, Case, Translator
folder = Path(sys.argv[1])
(folder / "handlers").mkdir()
report = '{"statistics": {"instructions": {"region": 5, "threaded": 2}}}'
peer, dbt, compared = sys.argv[2:]
dbt = f"count=$(ls $DBT_CACHE_DIR | wc -l); touch $DBT_CACHE_DIR/$count; {dbt}; echo '{report}' >&2"
case = Case("case", {"QEMU": ["sh", "-c", peer]}, ["sh", "-c", dbt], ["sh", "-c", dbt], compared=compared)
result = Result("programs", "case", "1")
Bench([Translator("", folder, folder / "handlers")], folder, 2).measure(case, result, lambda line: None)
print(json.dumps([result.failure, {engine: len(times) for engine, times in result.times.items()}]))
"""


def judged(folder: Path, peer: str, dbt: str, compared: str = "") -> tuple[str | None, dict[str, int]]:
    """The failure and the numbers of runs of a case with these commands. ``$count`` is the number of runs before."""
    failure, times = in_tools(JUDGED, str(folder), peer, dbt, compared)
    return failure, times


def test_every_turn_has_a_run_of_the_peer_and_three_of_dbt(tmp_path: Path) -> None:
    failure, times = judged(tmp_path, "echo 1 > left", "echo 1 > left")
    assert failure is None
    assert times == {"QEMU": 2, "first": 2, "second": 2, "third": 2}


def test_the_second_run_has_the_cache_that_the_first_has_left(tmp_path: Path) -> None:
    failure, times = judged(tmp_path, "echo 0", "echo $count")
    assert failure is not None
    assert "second (sh) printed other results: 1" in failure
    assert times == {"QEMU": 1, "first": 1}


@pytest.mark.parametrize(
    ("peer", "dbt", "said"),
    [
        ("echo a", "echo b", "first (sh) printed other results: b"),
        ("echo a > file", "echo b > file", "first (sh) left other files"),
        ("echo a", "echo a; exit 7", "ended with status 7"),
        ("exit 1", "echo a", "ended with status 1"),
        ("echo a", """echo a; test $count = 0 || exec >&2 echo '{"statistics": {"instructions": {"region": 8}}}'""",
         "second: other numbers of instructions than in its first run"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_like_the_peers_is_a_failure(peer: str, dbt: str, said: str, tmp_path: Path) -> None:
    failure, _ = judged(tmp_path, peer, dbt)
    assert failure is not None
    assert said in failure


def test_only_what_a_pattern_finds_is_compared_and_it_must_find_something(tmp_path: Path) -> None:
    for name in ("same", "none"):
        (tmp_path / name).mkdir()
    assert judged(tmp_path / "same", "echo time 1; echo sum 5", "echo time 2; echo sum 5", "^sum .*?$")[0] is None
    failure, _ = judged(tmp_path / "none", "echo time 1", "echo time 1", "^sum .*?$")
    assert failure is not None
    assert "printed no results" in failure
