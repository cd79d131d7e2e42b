"""``--qmp``: a run of the command with a monitor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.assembler import assemble
from tests.cli.command import COMMAND, dbt, environment, paragraph
from tests.gdb.remote import RemoteClient
from tests.qmp.client import FOREVER, QmpClient
from tests.vm.programs import make_elf
from tests.waiting import BOUND_S, wait_until


@pytest.fixture(scope="module")
def forever(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qmp") / "forever.elf"
    path.write_bytes(make_elf(assemble(FOREVER)))
    return path


@contextmanager
def running(guest: Path, path: Path, *more: str, line: str = "unix:{}") -> Iterator[subprocess.Popen[bytes]]:
    command = [*COMMAND, "run", "--tier", "threaded", "--qmp", line.format(path), *more, str(guest)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end_of(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The object that --json prints."""
    _, errors = process.communicate(timeout=BOUND_S)
    found = json.loads(errors.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_a_run_is_saved_and_ended_from_outside(forever: Path, tmp_path: Path) -> None:
    monitor, first, last = (tmp_path / name for name in ("monitor", "first.snapshot", "last.snapshot"))
    with running(forever, monitor, "--json", "--save", str(last)) as process:
        with QmpClient(str(monitor)) as client:
            answer = client.ask("x-dbt-save", path=str(first))
            assert client.ask("quit") == {} and client.receive() is None
        end = end_of(process)
    assert process.returncode == 130 and not os.path.lexists(monitor)
    assert end["reason"] == "interrupted" and "client of the monitor" in end["message"]
    assert end["saved"]["path"] == str(last)
    info = dbt("snapshot", "info", first).stdout.decode()
    assert answer["digest"] in info.replace("\n", "")
    assert dbt("run", "--tier", "threaded", "--restore", first, "--fuel", "1000").returncode == 123


def test_a_paused_run_can_be_ended_by_its_user(forever: Path, tmp_path: Path) -> None:
    monitor = tmp_path / "monitor"
    with running(forever, monitor, "--wait", "--json") as process:
        with QmpClient(str(monitor)) as client:
            assert client.ask("query-status")["status"] == "prelaunch"
            assert client.ask("x-dbt-info")["icount"] == 0
            process.send_signal(signal.SIGINT)
            assert client.receive() is None
            assert client.events[-1]["data"] == {"guest": False, "reason": "host-signal"}
        end = end_of(process)
    assert (process.returncode, end["icount"]) == (130, 0)


def test_with_server_the_guest_waits_for_a_client_and_runs_on_without(forever: Path, tmp_path: Path) -> None:
    monitor = tmp_path / "monitor"
    with running(forever, monitor, "--fuel", "30000000", "--json", line="unix:{},server") as process:
        with QmpClient(str(monitor), negotiates=False):
            pass
        assert end_of(process)["icount"] == 30_000_000 and process.returncode == 123


def test_fuel_counts_what_was_executed_before_a_reset(forever: Path, tmp_path: Path) -> None:
    monitor = tmp_path / "monitor"
    with running(forever, monitor, "--fuel", "3000000000", "--json") as process:
        with QmpClient(str(monitor)) as client:
            client.ask("stop")
            before = client.ask("x-dbt-info")["icount"]
            assert client.ask("system_reset") == {}
            client.ask("cont")
            assert client.receive() is None
        assert end_of(process)["icount"] == 3_000_000_000 - before


@pytest.mark.parametrize("option", ["--record", "--save-at"])
def test_a_reset_that_cannot_be_is_refused(option: str, forever: Path, tmp_path: Path) -> None:
    monitor, file = tmp_path / "monitor", str(tmp_path / "file")
    more = (option, file) if option == "--record" else ("--save", file, option, "1000000000000")
    with running(forever, monitor, *more) as process, QmpClient(str(monitor)) as client:
        kind, text = client.ask("system_reset")
        assert kind == "GenericError" and ("recorded" in text or "--save-at" in text)
        client.ask("quit")
        assert process.wait(BOUND_S) == 130


def test_a_recorded_run_that_was_paused_and_ended_can_be_replayed(forever: Path, tmp_path: Path) -> None:
    monitor, recording = tmp_path / "monitor", tmp_path / "recording"
    with running(forever, monitor, "--record", str(recording)) as process, QmpClient(str(monitor)) as client:
        for _ in range(3):
            client.ask("stop")
            client.ask("cont")
        client.ask("quit")
        assert process.wait(BOUND_S) == 130
    done = dbt("run", "--tier", "stitched", "--replay", recording, forever)
    assert done.returncode == 130 and b"as recorded" in done.stderr


def test_a_monitor_beside_a_debugger(forever: Path, tmp_path: Path) -> None:
    monitor, gdb = tmp_path / "monitor", tmp_path / "gdb"
    with running(forever, monitor, "--gdb", f"unix:{gdb}", "--history", "--wait", "--json") as process:
        with QmpClient(str(monitor)) as client:
            assert client.ask("query-status")["status"] == "debug"
            assert client.ask("x-dbt-info")["icount"] == 0
            wait_until(gdb.exists, "the debugger's socket")
            with RemoteClient(str(gdb)) as debugger:
                debugger.send("c")
                wait_until(lambda: client.ask("x-dbt-info")["icount"] > 1000, "a thousand instructions")
                assert client.ask("quit") == {}
                assert debugger.packet() == "X02"
        end = end_of(process)
    assert process.returncode == 130 and "client of the monitor" in end["message"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--qmp", "tcp:localhost:4444"], "a monitor is at a unix socket"),
        (["--qmp", "unix:"], "a unix socket has a path"),
        (["--qmp", "unix:m,server=off"], "a monitor is a server"),
        (["--qmp", "unix:m,zork"], "zork is none of server, wait and nodelay"),
        (["--wait"], "give it with --gdb PORT or --qmp unix:PATH"),
    ],
)
def test_wrong_monitors_are_refused(words: list[str], says: str, forever: Path) -> None:
    assert says in paragraph(dbt("run", *words, forever), 120)


def test_a_socket_in_use_is_refused(forever: Path, tmp_path: Path) -> None:
    monitor = tmp_path / "monitor"
    with running(forever, monitor, "--wait"):
        wait_until(lambda: os.path.lexists(monitor), "the socket")
        assert "cannot listen there" in paragraph(dbt("run", "--qmp", f"unix:{monitor}", forever), 125)
        with QmpClient(str(monitor)) as client:
            assert client.ask("query-status")["status"] == "prelaunch"
