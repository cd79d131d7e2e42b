"""A container moves to another engine while it runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine.asking import WAITS, create, frames, hijack, running
from tests.containers.engine.engines import TestEngine, engine_in
from tests.containers.engine.images import HAS_BUSYBOX, add_images


class Pair:
    """Two engines, of which the first one has images."""

    def __init__(self, here: TestEngine, there: TestEngine) -> None:
        self.here, self.there = here, there

    def move(self, name: str = "box") -> tuple[int, str]:
        """Move a container. Return the status of the answer, and its text."""
        path = f"/dbt/containers/{name}/migrate?destination=unix://{self.there.socket}"
        said = self.here.ask("POST", path)
        return said.status, said.body.decode()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    (tmp_path / "a").mkdir(0o700)
    add_images(tmp_path / "a")
    with engine_in(tmp_path / "a") as here, engine_in(tmp_path / "b") as there:
        yield Pair(here, there)


def names(engine: TestEngine) -> list[str]:
    return [one["Names"][0] for one in engine.ask("GET", "/containers/json?all=1").json]


def test_a_container_goes_on_at_another_engine(pair: Pair) -> None:
    """The same program has its streams, its files, its name, its id, its log and its image there."""
    id = create(
        pair.here, "box", "words", "write", "/mark", "x", "say", "before", "copy", OpenStdin=True, StdinOnce=True
    )
    pair.here.ask("POST", "/containers/box/start")
    pair.here.ask("POST", "/containers/box/rename?name=moved")
    assert pair.move("moved") == (204, "")
    assert names(pair.here) == [] and names(pair.there) == ["/moved"]
    found = pair.there.ask("GET", "/containers/moved/json").json
    assert (found["Id"], found["State"]["Status"]) == (id, "running")
    connection, _ = hijack(pair.there, "/containers/moved/attach?stream=1&stdin=1&stdout=1")
    connection.sendall(b"typed there")
    connection.shutdown(1)
    assert frames(connection) == [(1, b"typed there")]
    assert pair.there.ask("POST", "/containers/moved/wait").json["StatusCode"] == 0
    log = pair.there.ask("GET", "/containers/moved/logs?stdout=1").body
    assert b"before\n" in log and b"typed there" in log
    assert pair.there.ask("HEAD", "/containers/moved/archive?path=/mark").status == 200
    assert pair.there.ask("POST", "/containers/moved/start").status == 204  # the image is there, too
    assert not list((pair.here.folder / "containers").iterdir())


@pytest.mark.skipif(not HAS_BUSYBOX, reason="DBT_CONTAINER_IMAGES is no directory with busybox-armel.tar")
def test_no_line_is_lost_or_doubled(pair: Pair) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; echo over; sleep 1000"
    create(pair.here, "box", "sh", "-c", script, Image="busybox")
    pair.here.ask("POST", "/containers/box/start")
    assert pair.move() == (204, "")
    end = time.monotonic() + 60
    while b"over" not in (log := pair.there.ask("GET", "/containers/box/logs?stdout=1").body):
        assert time.monotonic() < end
        time.sleep(0.2)
    lines, at = [], 0
    while at < len(log):
        size = int.from_bytes(log[at + 4 : at + 8], "big")
        lines.append(log[at + 8 : at + 8 + size])
        at += 8 + size
    assert b"".join(lines).split() == [str(number).encode() for number in range(3000)] + [b"over"]


def test_what_cannot_move_stays(pair: Pair) -> None:
    running(pair.here, "box", HostConfig={"Binds": ["some:/data"]})
    status, text = pair.move()
    assert status == 409 and "its volume some is in this engine's directory" in text
    running(pair.here, "other")
    assert pair.here.ask("POST", "/images/words/tag?repo=copy").status == 201
    pair.here.ask("POST", "/networks/create", {"Name": "own"})
    running(pair.here, "third", HostConfig={"NetworkMode": "own"})
    status, text = pair.move("third")
    assert status == 409 and "network own not found" in text
    create(pair.here, "stopped", *WAITS)
    assert pair.move("stopped")[0] == 409
    assert pair.move("other") == (204, "")
    assert pair.move("other")[0] == 404
    running(pair.here, "other")
    status, text = pair.move("other")
    assert status == 409 and "already in use" in json.loads(text)["message"]
    path = f"/dbt/containers/other/migrate?destination=unix://{pair.there.folder}/nobody"
    assert pair.here.ask("POST", path).status == 409
    assert sorted(names(pair.here)) == ["/box", "/other", "/stopped", "/third"]
    for name in ("box", "other", "third"):
        assert pair.here.ask("GET", f"/containers/{name}/json").json["State"]["Status"] == "running"


@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")
def test_ports_come_along(pair: Pair) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    bindings = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}
    running(pair.here, HostConfig={"PortBindings": bindings}, ExposedPorts={"80/tcp": {}})
    assert pair.move() == (204, "")
    found = pair.there.ask("GET", "/containers/box/json").json["NetworkSettings"]["Ports"]
    assert found == bindings
    socket.create_connection(("127.0.0.1", int(port)), 10).close()


def test_a_shared_directory_comes_along(pair: Pair, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    running(pair.here, HostConfig={"Binds": [f"{shared}:/data"]})
    assert pair.move() == (204, "")
    id = pair.there.ask("POST", "/containers/box/exec", {"Cmd": ["words", "write", "/data/file", "x"]}).json["Id"]
    connection, _ = hijack(pair.there, f"/exec/{id}/start", {"Detach": False})
    frames(connection)
    assert (shared / "file").read_bytes()


def test_engines_that_are_killed_afterwards_agree(pair: Pair) -> None:
    running(pair.here)
    assert pair.move() == (204, "")
    for engine in (pair.here, pair.there):
        engine.end(signal.SIGKILL)
        engine.start()
    assert names(pair.here) == [] and names(pair.there) == ["/box"]
    assert pair.there.ask("GET", "/containers/box/json").json["State"]["Status"] == "running"
    assert os.listdir(pair.here.folder / "containers") == []
