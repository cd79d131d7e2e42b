"""An engine that is killed loses nothing: the next one finds its containers, and knows of those that have ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from dbt.hypervisor.process.lease import leases
from tests.containers.engine.asking import create, demultiplexed, hijack, running
from tests.containers.engine.engines import TIMEOUT, TestEngine, engine_in
from tests.containers.engine.images import add_images
from tests.containers.images.archives import archive, member
from tests.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "c"
    made.mkdir(mode=0o700)
    add_images(made)
    return made


def _states(engine: TestEngine) -> dict[str, tuple[str, int]]:
    names = [one["Names"][0][1:] for one in engine.ask("GET", "/containers/json?all=1").json]
    states = {name: engine.ask("GET", f"/containers/{name}/json").json["State"] for name in names}
    return {name: (state["Status"], state["ExitCode"]) for name, state in states.items()}


def test_an_engine_that_is_killed(folder: Path) -> None:
    with engine_in(folder) as engine:
        for name in ("goes", "stands", "ends"):
            running(engine, name)
        create(engine, "new", "words", "say", "x")
        create(engine, "done", "words", "status", "3")
        engine.ask("POST", "/containers/done/start")
        engine.ask("POST", "/containers/done/wait")
        engine.ask("POST", "/containers/stands/pause")
        connection, _ = hijack(engine, "/containers/goes/attach?stream=1&stdin=1&stdout=1")
        connection.sendall(b"before\n")
        assert connection.recv(100)[8:] == b"before\n"
        engine.end(signal.SIGKILL)
        connection.close()
        engine.start()
        found = _states(engine)
        running_, exited = ("running", 0), ("exited", 3)
        assert found == {
            **{"goes": running_, "ends": running_, "stands": ("paused", 0)},
            **{"new": ("created", 0), "done": exited},
        }
        connection, _ = hijack(engine, "/containers/goes/attach?stream=1&stdin=1&stdout=1")
        connection.sendall(b"after\n")
        assert connection.recv(100)[8:] == b"after\n"
        connection.close()
        assert b"before" in engine.ask("GET", "/containers/goes/logs?stdout=1").body
        assert engine.ask("POST", "/containers/stands/unpause").status == 204
        connection, _ = hijack(engine, "/containers/stands/attach?stream=1&stdin=1&stdout=1")
        connection.sendall(b"still here\n")
        assert connection.recv(100)[8:] == b"still here\n"
        connection.close()
        assert engine.ask("POST", "/containers/new/start").status == 204
        assert engine.ask("POST", "/containers/new/wait").json["StatusCode"] == 0


def test_nothing_of_a_log_is_lost_and_nothing_twice_when_an_engine_is_killed(folder: Path) -> None:
    """A container goes on, ends while there is no engine, and its log has all that it has written, in its order."""
    lines = [str(number) for number in range(60)]
    words = [word for line in lines for word in ("say", line, "compute", "10")]
    with engine_in(folder) as engine:
        create(engine, "box", "words", *words)
        assert engine.ask("POST", "/containers/box/start").status == 204

        def log() -> list[str]:
            said = demultiplexed(engine.ask("GET", "/containers/box/logs?stdout=1").body)
            return b"".join(data for _, data in said).decode().split()

        wait_until(log, "the first line")
        engine.end(signal.SIGKILL)
        assert 0 < len(log_file(folder)) < len(lines)
        for _ in range(2):
            engine.start()
            engine.end(signal.SIGKILL)
        engine.start()
        assert engine.ask("POST", "/containers/box/wait").json == {"StatusCode": 0}
        assert log() == lines


def log_file(folder: Path) -> list[str]:
    """Return what is in the log of the only container."""
    (path,) = folder.glob("containers/*/*-json.log")
    return [json.loads(line)["log"] for line in path.read_text().splitlines()]


def test_one_that_is_always_started_again_is_removed(folder: Path) -> None:
    """Also while it is being started."""
    with engine_in(folder) as engine:
        for number in range(3):
            policy = {"RestartPolicy": {"Name": "always"}, "NetworkMode": "none"}
            create(engine, "box", "words", "say", "x", HostConfig=policy)
            assert engine.ask("POST", "/containers/box/start").status == 204
            time.sleep(0.15 * number)
            assert engine.ask("DELETE", "/containers/box?force=1").status == 204
        deadline = time.monotonic() + TIMEOUT
        while list(leases(str(folder / "machines"))):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_engine_that_ends(folder: Path) -> None:
    """Its containers end with it. Those that are always to run do so again, and others do not."""
    with engine_in(folder) as engine:
        running(engine, "once")
        running(engine, "always", HostConfig={"RestartPolicy": {"Name": "always"}, "NetworkMode": "none"})
        running(engine, "passing", HostConfig={"AutoRemove": True})
        engine.ask("POST", "/containers/once/update", {"RestartPolicy": {"Name": "no"}})
        assert engine.end() == 0
        engine.start()
        connection, _ = hijack(engine, "/containers/always/attach?stream=1&stdin=1&stdout=1")
        connection.sendall(b"again\n")
        assert connection.recv(100)[8:] == b"again\n"
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert {name: state[0] for name, state in _states(engine).items()} == {"once": "exited", "always": "running"}


def test_restarts(folder: Path) -> None:
    """A program that fails is started again as often as its policy says, and each end is an event."""
    with engine_in(folder) as engine:
        policy = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
        create(engine, "box", "words", "status", "4", HostConfig=policy)
        assert engine.ask("POST", "/containers/box/start").status == 204
        while engine.ask("GET", "/containers/box/json").json["State"]["Running"]:
            time.sleep(0.05)
        found = engine.ask("GET", "/containers/box/json").json
        assert (found["RestartCount"], found["State"]["ExitCode"]) == (2, 4)
        wanted = quote('{"event":["die"]}')
        said = engine.ask("GET", f"/events?filters={wanted}&since=1&until={int(time.time()) + 1}").body
        told = [json.loads(line) for line in said.splitlines()]
        assert [one["Actor"]["Attributes"]["exitCode"] for one in told] == ["4"] * 3


def test_an_engine_that_is_killed_leaves_no_vm_of_a_build(folder: Path) -> None:
    context = archive([member("Dockerfile", data=b'FROM words\nRUN ["words", "say", "here", "wait"]\n')])
    with engine_in(folder) as engine:
        asking = threading.Thread(target=_build, args=(engine, context))
        asking.start()
        machines = folder / "machines"
        _until(lambda: bool(list(machines.glob("*.lease"))))
        (lease,) = machines.glob("*.lease")
        process = Path(f"/proc/{json.loads(lease.read_text())['pid']}")
        engine.end(signal.SIGKILL)
        asking.join()
        assert process.exists()
        engine.start()
        _until(lambda: not process.exists() or process.joinpath("stat").read_text().split()[2] == "Z")
        assert not any(path.name.startswith("build-") for path in (folder / "spool").iterdir())
        assert engine.ask("GET", "/containers/json?all=1").json == []


def _build(engine: TestEngine, context: bytes) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # the engine is killed
        engine.ask("POST", "/build?version=1", context, {"Content-Type": "application/x-tar"})


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)
