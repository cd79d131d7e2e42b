"""``make bench-real``: the tables that it makes of its figures, and the options that it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "bench_real.py"


def bench_real(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def runs(*walls: float) -> list[dict[str, float]]:
    """Runs that take so long in wall time, and half of it each as user and system time."""
    return [{"wall": wall, "user": wall / 2, "system": wall / 2} for wall in walls]


def program(name: str, instructions: int, **times: list[dict[str, float]]) -> dict[str, object]:
    return {
        "part": "programs",
        "name": name,
        "version": "1.0-1",
        "instructions": instructions,
        "times": times,
        "failure": None,
    }


def write_report(path: Path, programs: list[dict[str, object]]) -> str:
    path.write_text(json.dumps({"machine": {"cpu": "a processor", "qemu": None}, "options": {}, "results": programs}))
    return str(path)


def test_the_table_has_medians_their_ratios_geometric_means_and_the_worst(tmp_path: Path) -> None:
    one = program("one", 250_000_000, QEMU=runs(2.0, 9.0, 1.0), first=runs(8.0, 8.0, 0.1), second=runs(1.0, 1.0, 5.0))
    two = program("two", 1_000_000, QEMU=runs(0.5), first=runs(0.5), second=runs(1.0))
    shown = bench_real("--show", write_report(tmp_path / "report.json", [one, two]))
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line.strip()}
    assert rows["one"] == ["250", "2.00", "4.00", "0.50", "2.00", "4.00", "0.50"]
    assert rows["two"] == ["1", "0.50", "1.00", "2.00", "0.50", "1.00", "2.00"]
    assert rows["geom."] == ["mean", "2.00", "1.00", "2.00", "1.00"]
    assert "worst in wall: first one 4.00, second two 2.00" in shown.stdout
    assert "cpu: a processor, qemu: none" in shown.stdout
    assert shown.returncode == 0


def test_without_the_peer_the_table_has_seconds(tmp_path: Path) -> None:
    one = program("one", 250_000_000, first=runs(8.0), second=runs(1.5))
    shown = bench_real("--show", write_report(tmp_path / "report.json", [one]))
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line.strip()}
    assert rows["one"] == ["250", "8.00", "1.50", "8.00", "1.50"]


def test_a_program_that_failed_is_named_and_not_counted(tmp_path: Path) -> None:
    good = program("good", 1_000_000, QEMU=runs(1.0), first=runs(3.0))
    bad = program("bad", 1_000_000, QEMU=runs(1.0)) | {"failure": "its output in dbt's first run differs"}
    shown = bench_real("--show", write_report(tmp_path / "report.json", [good, bad]))
    assert "FAILED bad: its output in dbt's first run differs" in shown.stdout
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line.strip()}
    assert rows["geom."] == ["mean", "3.00", "3.00"]
    assert "bad" not in rows


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"programs": 3}')
    shown = bench_real("--show", str(tmp_path / "other.json"))
    assert shown.returncode == 1
    assert "other.json is not a report of this benchmark" in shown.stderr


def test_a_program_that_does_not_exist_is_refused() -> None:
    shown = bench_real("--programs", "lua,nothing")
    assert shown.returncode == 2
    assert "there is no program nothing" in shown.stderr


def test_every_program_is_listed_once() -> None:
    names = [line.split()[0] for line in bench_real("--list").stdout.splitlines()]
    assert "lua" in names
    assert len(names) == len(set(names))
