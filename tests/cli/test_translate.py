"""What is hot when a run ends and has not been compiled is compiled by `dbt translate`, or in the next run."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dbt.codecache.contents import Kind
from tests.cli.command import COMMAND, ROOT, children_of, dbt, environment, json_of, paragraph
from tests.codecache.samples import kept
from tests.waiting import BOUND_S, wait_until

GUEST = str(ROOT / "guests/bench/images/interpreter.elf")
#: So many instructions that several places are hot, and that the guest ends before LLVM is even imported.
FUEL = 12_000_000


def run(*options: str, fuel: int = FUEL) -> Mapping[str, Any]:
    return json_of(dbt("run", "--json", "--fuel", str(fuel), *options, GUEST))


def hot_list() -> Path | None:
    found = kept(Kind.HOT_LIST)
    assert len(found) <= 1
    return Path(os.environ["DBT_CACHE_DIR"]) / found[0].name if found else None


@pytest.fixture
def left(only_handlers: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache after a run that has left a list, without the regions that its compiler finished."""
    monkeypatch.setenv("DBT_HOT_AFTER", "2000")  # so that the list is long
    first = run()
    assert first["statistics"]["regions"]["pending"] > 2, "nothing is left: this test tests nothing"
    wait_until(lambda: not children_of(only_handlers), "the compiler ends")
    assert hot_list() is not None
    for entry in kept():
        (only_handlers / entry.name).unlink()
    return only_handlers


def share_in_regions(result: Mapping[str, Any]) -> float:
    return float(result["statistics"]["instructions"]["region"] / result["icount"])


def test_what_a_run_leaves_is_compiled_ahead_and_used_from_the_start(left: Path) -> None:
    without = run("--jit", "off")
    assert share_in_regions(without) == 0
    done = dbt("translate", GUEST)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.decode().startswith("compiled ") and GUEST in done.stdout.decode()
    assert kept() and hot_list() is None
    after = run()
    assert share_in_regions(after) > 0.5
    for same in ("icount", "pc", "registers", "reason"):
        assert after[same] == without[same]
    again = dbt("translate", GUEST)
    assert again.returncode == 0
    assert "nothing is left" in again.stdout.decode() or "compiled" in again.stdout.decode()


def test_what_a_run_leaves_is_compiled_by_the_next_ones(left: Path) -> None:
    """Even if each of them ends before the compiler has answered."""
    for _ in range(4):
        run()
        wait_until(lambda: not children_of(left), "the compiler ends")
        if hot_list() is None:
            break
    assert hot_list() is None
    assert share_in_regions(run()) > 0.5


def test_a_program_is_found_by_what_it_is_and_not_by_its_name_or_arguments(left: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.elf"
    shutil.copy(GUEST, other)
    assert b"compiled" in dbt("translate", other).stdout
    assert b"nothing is left" in dbt("translate", GUEST).stdout


def test_a_program_that_has_left_nothing(only_handlers: Path, hello: Path) -> None:
    done = dbt("translate", hello)
    assert done.returncode == 0
    assert done.stdout.decode() == f"nothing is left to compile for {hello}\n"
    assert paragraph(done, 0).count(" ") > 5
    assert not children_of(only_handlers)


def test_wrong_command_lines(tmp_path: Path) -> None:
    assert "PROGRAM is missing" in paragraph(dbt("translate"), 120)
    assert "no such file" in paragraph(dbt("translate", tmp_path / "none.elf"), 121)
    assert "nothing here" in paragraph(dbt("translate", GUEST, "20"), 120)
    assert "there is no program" in paragraph(dbt("translate", "--kernel", GUEST, GUEST), 120)


def test_ctrl_c_leaves_the_rest_for_another_time(left: Path, tmp_path: Path) -> None:
    before = children_of(left)
    said = tmp_path / "said"
    with said.open("wb") as errors:
        work = subprocess.Popen([*COMMAND, "translate", GUEST], env=environment(), stderr=errors)
    wait_until(lambda: len(children_of(left)) > len(before) + 1, "a compiler runs")
    compilers = set(children_of(left)) - {*before, work.pid}
    for compiler in compilers:
        os.kill(compiler, signal.SIGSTOP)  # so that it does not finish before the signal
    work.send_signal(signal.SIGINT)
    assert work.wait(BOUND_S) == 130 and said.read_text() == "dbt: interrupted\n"
    for compiler in compilers:  # one that was being forked at the signal ends when it sees that its parent is gone
        with suppress(ProcessLookupError):
            os.kill(compiler, signal.SIGCONT)
    wait_until(lambda: not children_of(left), "the compilers end")
    assert hot_list() is not None
    assert b"compiled" in dbt("translate", GUEST).stdout
    assert hot_list() is None


def test_a_killed_translation_loses_nothing_and_leaves_no_compiler(left: Path) -> None:
    work = subprocess.Popen([*COMMAND, "translate", GUEST], env=environment())
    wait_until(lambda: len(children_of(left)) > 1, "a compiler runs")
    work.kill()
    work.wait()
    wait_until(lambda: not children_of(left), "the compilers end")
    assert hot_list() is not None


def test_two_at_once_both_succeed(left: Path) -> None:
    both = [subprocess.Popen([*COMMAND, "translate", GUEST], env=environment()) for _ in range(2)]
    third = run()
    assert [work.wait(BOUND_S) for work in both] == [0, 0]
    assert third["reason"] == "fuel"
    assert share_in_regions(run()) > 0.5


def test_a_person_sees_how_far_it_is(left: Path) -> None:
    master, slave = pty.openpty()
    work = subprocess.Popen([*COMMAND, "translate", GUEST], env=environment(), stderr=slave, stdout=subprocess.PIPE)
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 1000)
        except OSError:  # the other end is closed
            break
        shown += piece
    os.close(master)
    output, _ = work.communicate(timeout=BOUND_S)
    assert work.returncode == 0 and output.startswith(b"compiled ")
    assert b"\r0 of " in shown and shown.endswith(b"\r\x1b[K")


def test_a_damaged_list_is_as_if_it_were_not_there(left: Path) -> None:
    file = hot_list()
    assert file is not None
    data = file.read_bytes()
    file.write_bytes(data[:200] + bytes(50) + data[250:])
    assert b"damaged" in dbt("cache", "verify").stdout
    result = run()
    assert result["reason"] == "fuel" and result["statistics"]["regions"]["left"] == 0
    file.write_bytes(data[: len(data) // 2])
    assert b"nothing is left" in dbt("translate", GUEST).stdout


def test_regions_that_cannot_be_kept_are_said(left: Path) -> None:
    done = dbt("translate", GUEST, DBT_CACHE_SIZE="0")
    assert "cannot be written" in paragraph(done, 125)
    assert hot_list() is not None


def test_a_cache_of_others_is_refused(left: Path) -> None:
    left.chmod(0o770)
    assert "others may write" in paragraph(dbt("translate", GUEST), 125)


def test_the_cache_commands_know_lists(left: Path) -> None:
    assert "hot code" in dbt("cache", "info").stdout.decode()
    assert b"good" in dbt("cache", "verify").stdout
    assert dbt("cache", "clear", "--regions").returncode == 0
    assert hot_list() is None


def test_a_run_leaves_nothing_where_it_must_not(only_handlers: Path, tmp_path: Path) -> None:
    for options in (("--jit", "off"), ("--jit", "sync"), ("--tier", "threaded"), ("--dump", str(tmp_path / "dump"))):
        run(*options)
        time.sleep(0.1)
        wait_until(lambda: not children_of(only_handlers), "the compiler ends")
        assert hot_list() is None, options
