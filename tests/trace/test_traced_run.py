"""What ``dbt trace diff`` takes from the command in a trace, which somebody else may have written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbt.cli.app import run_app
from dbt.cli.origin import Origin, options_of, start_again
from dbt.cli.status import CommandError
from dbt.trace.log import LogWriter, RecordKind, read_log
from dbt.trace.model import Trace
from tests.trace.recordings import program
from tests.vm.programs import EXIT

Forge = Callable[..., Trace]


@pytest.fixture
def forge(tmp_path: Path, only_handlers: Path) -> Forge:
    """Records a run of a program, whose end differs by ``code``, and changes the command in the trace."""

    def make(name: str = "trace", code: str = "mov r2, #1", **command: Any) -> Trace:
        (tmp_path / f"{name}.elf").write_bytes(program(f"{code} ; {EXIT}", {}))
        run_app(["run", "--tier", "threaded", "--record-trace", str(tmp_path / name), str(tmp_path / f"{name}.elf")])
        log = LogWriter(str(tmp_path / f"{name}.forged"))
        (_, first), *others = read_log(str(tmp_path / name)).records
        header = json.loads(first)
        header["directory"] = command.pop("directory", header["directory"])
        header["command"] |= command
        log.append(RecordKind.HEADER, json.dumps(header).encode())
        for kind, content in others:
            log.append(kind, content)
        log.close()
        return Trace(str(tmp_path / f"{name}.forged"))

    return make


def test_what_a_command_writes_is_left_out(forge: Forge, tmp_path: Path) -> None:
    outputs = ("dump", "trace", "record_trace")
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    trace = forge(**dict.fromkeys(outputs, str(target)), perf_map=True, stats=True, console="raw", realtime="on", x=[1])
    options = options_of(Origin.of_trace(trace), None)
    assert not any(getattr(options, name) for name in (*outputs, "perf_map", "stats", "console", "record"))
    with start_again(trace, None) as machine:
        assert machine.run().exit_code == 1
    assert target.read_bytes() == b"precious"


def test_a_recording_is_read_and_not_written(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"precious")
    options = options_of(Origin.of_trace(forge(record=str(tmp_path / "input"))), None)
    assert options.record is None and options.replay == str(tmp_path / "input")


def test_a_directory_comes_from_the_user(forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    traces = [forge(name, f"mov r2, #{number}", files="/etc\x1b[2J") for number, name in ((1, "a"), (2, "b"))]
    paths = [trace.path for trace in traces]
    assert run_app(["trace", "diff", *paths]) == 120
    told = " ".join(capsys.readouterr().err.split())
    assert "files in /etc?[2J, which a recording cannot allow" in told and "--files DIR" in told
    assert run_app(["trace", "diff", "--files", str(mine), *paths]) == 1
    assert "instruction 1 at" in capsys.readouterr().out
    assert options_of(Origin.of_trace(traces[0]), str(mine)).files == str(mine)
    assert options_of(Origin.of_trace(forge()), str(mine)).files is None, "the run had none"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ({"program": "/etc/passwd"}, "no checksum of /etc/passwd"),
        ({"initrd": "../../etc/passwd", "directory": "/a/b"}, "no checksum of /etc/passwd"),
        ({"program": 5}, "program in its command"),
        ({"program": ["x"]}, "program in its command"),
        ({"args": "text"}, "args in its command"),
        ({"args": [1]}, "args in its command"),
        ({"memory": 1 << 60}, "memory in its command"),
        ({"atags": "yes"}, "atags in its command"),
        ({"replay": {}}, "replay in its command"),
        ({"tier": None, "cpu": {}}, "cpu in its command"),
    ],
)
def test_a_forged_command_is_refused(forge: Forge, command: dict[str, Any], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        options_of(Origin.of_trace(forge(**command)), None)


def test_options_that_mean_nothing_are_said_to_be_wrong(forge: Forge, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ({"tier": "\x1b[2J"}, {"memory": "1T"}, {"kernel": None, "program": None}, {"without": "all"}):
        first, second = forge("a", "mov r2, #1", **wrong), forge("b", "mov r2, #2")
        assert run_app(["trace", "diff", first.path, second.path]) in (120, 121)
        told = capsys.readouterr()
        assert "internal error" not in told.err and "\x1b" not in told.err + told.out


def test_relative_names_are_of_the_directory_of_the_run(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    options = options_of(Origin.of_trace(forge(program="trace.elf", directory=str(tmp_path))), None)
    assert options.program == str(tmp_path / "trace.elf")
    assert Path.cwd() == Path("/")
