"""Files that are written: an input is never overwritten, and an error names the file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dbt.abi.addresses import Gva
from dbt.cli.run import _message
from dbt.host.console import CaptureConsole
from dbt.vm.machine import Machine
from dbt.vm.result import RunResult, StopReason
from tests.cli.command import COMMAND, dbt, environment, paragraph


@pytest.mark.parametrize("option", ["--trace", "--record", "--record-trace"])
@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_a_run_does_not_overwrite_its_program(hello: Path, tmp_path: Path, option: str, link: object) -> None:
    before, output = hello.read_bytes(), hello
    if callable(link):
        output = tmp_path / "other name"
        link(hello, output)
    assert f"{option} {output}: this is the program" in paragraph(dbt("run", option, output, hello), 120)
    assert hello.read_bytes() == before


def test_a_run_does_not_overwrite_the_recording_that_it_replays(hello: Path, tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    assert dbt("run", "--record", recording, hello).returncode == 3
    before = recording.read_bytes()
    done = dbt("run", "--replay", recording, "--trace", recording, hello)
    assert "the recording to replay" in paragraph(done, 120)
    assert recording.read_bytes() == before


def test_two_outputs_are_two_files(hello: Path, tmp_path: Path) -> None:
    same = tmp_path / "same"
    done = dbt("run", "--record", same, "--trace", tmp_path / "." / "x" / ".." / "same", hello)
    assert "--trace" in paragraph(done, 120) and b"the file of --record" in done.stderr
    assert not same.exists()
    assert dbt("run", "--record", os.devnull, "--trace", os.devnull, hello).returncode == 3


def test_tools_do_not_overwrite_what_they_read(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("nop\n")
    for command in (("asm",), ("trace", "html"), ("trace", "export")):
        assert f"-o {source}: this is the " in paragraph(dbt(*command, source, "-o", source), 120)
    assert source.read_text() == "nop\n"


@pytest.mark.parametrize("option", ["--trace", "--record", "--record-trace"])
def test_a_file_that_cannot_be_written_is_named(hello: Path, tmp_path: Path, option: str) -> None:
    full = "/dev/full"
    assert f"{option} {full}: it cannot be written: No space left" in paragraph(dbt("run", option, full, hello), 125)
    assert f"{option} /nonexistent/x" in paragraph(dbt("run", option, "/nonexistent/x", hello), 120)
    assert f"{option} -: " in paragraph(dbt("run", option, "-", hello), 120)


def test_the_viewer_needs_a_terminal(hello: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert dbt("run", "--record-trace", trace, hello).returncode == 3
    assert "standard input is not a terminal" in paragraph(dbt("trace", "view", trace), 120)


def test_the_place_of_an_interrupted_run_is_named_once() -> None:
    result = RunResult(StopReason.INTERRUPTED, None, 4, Gva(0xC001F020), "interrupted")
    assert _message(Machine(memory=1 << 20, console=CaptureConsole()), result) == "interrupted, at 0xc001f020"


def test_a_wrong_count_says_what_is_counted() -> None:
    assert "not a number of lines" in paragraph(dbt("trace", "top", "-n", "-3", "x"), 120)
    assert "not a number of regions" in paragraph(dbt("trace", "html", "--regions", "x", "x"), 120)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["trace"]])
def test_a_help_that_cannot_be_written(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False
        )
    assert done.returncode == 125 and b"No space left" in done.stderr
