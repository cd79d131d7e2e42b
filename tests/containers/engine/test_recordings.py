"""Containers that are recorded because a client asks for it by a label, and replayed without an engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine.asking import create, demultiplexed
from tests.containers.engine.engines import TIMEOUT, TestEngine, engine_in
from tests.containers.engine.images import add_images
from tests.programs.running import ROOT, environment


def replayed(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``dbt container replay`` to its end."""
    variables = {**environment(), "DBT_CONTAINER_DIR": str(folder)}
    command = [sys.executable, "-m", "dbt", "container", "replay", *words]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, timeout=TIMEOUT, check=False)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestEngine]:
    folder = tmp_path_factory.mktemp("r") / "c"
    folder.mkdir(0o700)
    add_images(folder)
    with engine_in(folder) as made:
        yield made


def run(engine: TestEngine, name: str, *words: str, **more: object) -> None:
    """Run a recorded container to its end."""
    create(engine, name, *words, Labels={"dbt.record": name}, **more)
    assert engine.ask("POST", f"/containers/{name}/start").status == 204
    assert engine.ask("POST", f"/containers/{name}/wait").status == 200


def test_a_container_is_replayed_when_the_engine_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir(0o700)
    add_images(folder)
    with engine_in(folder) as engine:
        run(engine, "box", "words", "random", "complain", "err", "status", "3")
        log = b"".join(data for _, data in demultiplexed(engine.ask("GET", "/containers/box/logs?stdout=1").body))
    done = replayed(folder, "box")
    assert (done.returncode, done.stdout) == (3, log)
    assert done.stderr.startswith(b"err\n") and done.stderr.endswith(
        b" instructions, to the recorded end, and the state is the recorded one\n"
    )
    assert replayed(folder, str(folder / "recordings" / "box"), "--tier", "threaded").stdout == log
    for layer in (folder / "images" / "layers").glob("*.erofs"):
        layer.unlink()
    done = replayed(folder, "box")
    assert done.returncode == 121 and b"is not in the store any more: get an image that has it" in done.stderr


def test_each_start_is_a_recording(engine: TestEngine) -> None:
    """The second one begins with the disk that the first one has left."""
    run(engine, "twice", "words", "write", "/mark", "x", "file", "/mark")
    assert engine.ask("POST", "/containers/twice/start").status == 204
    assert engine.ask("POST", "/containers/twice/wait").status == 200
    assert sorted(path.name for path in (engine.folder / "recordings").glob("twice*")) == ["twice", "twice-2"]
    for name in ("twice", "twice-2"):
        assert b"is the recorded one" in replayed(engine.folder, name).stderr


@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")
def test_what_comes_by_the_network_is_in_it(engine: TestEngine) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bindings = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    create(
        engine, "net", "words", "copy", OpenStdin=True, Labels={"dbt.record": "net"},
        HostConfig={"PortBindings": bindings}, ExposedPorts={"80/tcp": {}},
    )  # fmt: skip
    assert engine.ask("POST", "/containers/net/start").status == 204
    for _ in range(20):  # which nobody answers in the container, but with packets
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(b"x")
    assert engine.ask("POST", "/containers/net/kill").status == 204
    lines = (engine.folder / "recordings" / "net" / "input").read_text().splitlines()
    assert sum("net" in line.split('"')[3] for line in lines if line.startswith('["arrival"')) > 10
    done = replayed(engine.folder, "net")
    assert b"is the recorded one" in done.stderr, done.stderr
    assert done.returncode == 137


def test_what_cannot_be_recorded(engine: TestEngine) -> None:
    body = {"Image": "words", "Labels": {"dbt.record": "../etc/x"}}
    said = engine.ask("POST", "/containers/create", body)
    assert said.status == 400 and "invalid name of a recording" in said.message
    run(engine, "taken", "words", "say", "x")
    said = engine.ask("POST", "/containers/create", {"Image": "words", "Labels": {"dbt.record": "taken"}})
    assert said.status == 409 and "there is a recording taken already" in said.message


def test_an_image_cannot_ask_for_a_recording(engine: TestEngine) -> None:
    create(engine, "labelled", "words", "say", "x")
    said = engine.ask("POST", "/commit?container=labelled&repo=labelled&changes=LABEL%20dbt.record=by-image")
    assert said.status == 201
    create(engine, "made", "words", "say", "x", Image="labelled")
    engine.ask("POST", "/containers/made/start")
    assert engine.ask("POST", "/containers/made/wait").status == 200
    assert not (engine.folder / "recordings" / "by-image").exists()


def test_it_stays_here_and_begins_at_its_beginning(engine: TestEngine) -> None:
    create(engine, "stays", "words", "copy", OpenStdin=True, Labels={"dbt.record": "stays"})
    engine.ask("POST", "/containers/stays/start")
    said = engine.ask("POST", "/dbt/containers/stays/migrate?destination=unix:///nowhere")
    assert said.status == 409 and "a recording stays on its host" in said.message
    assert engine.ask("POST", "/containers/stays/checkpoints", {"CheckpointID": "one", "Exit": True}).status == 201
    assert engine.ask("POST", "/containers/stays/wait").status == 200
    assert engine.ask("POST", "/containers/stays/start?checkpoint=one").status == 400
    assert b"is the recorded one" in replayed(engine.folder, "stays").stderr


def test_a_recording_goes_on_when_the_engine_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir(0o700)
    add_images(folder)
    with engine_in(folder) as engine:
        create(engine, "box", "words", "say", "x", "copy", OpenStdin=True, Labels={"dbt.record": "box"})
        engine.ask("POST", "/containers/box/start")
        engine.end(signal.SIGKILL)
        engine.start()
        assert engine.ask("GET", "/containers/box/json").json["State"]["Status"] == "running"
        assert engine.ask("POST", "/containers/box/kill").status == 204
    done = replayed(folder, "box")
    assert (done.returncode, done.stdout) == (137, b"x\n")
    assert b"is the recorded one" in done.stderr


def test_a_moment_of_it_is_shown(engine: TestEngine) -> None:
    run(engine, "moment", "words", "compute", "1000000")
    head = json.loads((engine.folder / "recordings" / "moment" / "input").read_bytes().splitlines()[0])
    assert head["origin"]["dbt-container-recording"] == 1
    shown = [replayed(engine.folder, "moment", "--at", "160000000", "--json").stderr.splitlines()[-1] for _ in range(2)]
    assert shown[0] == shown[1] and json.loads(shown[0])["icount"] == 160_000_000
    assert replayed(engine.folder, "moment", "--at", "1").returncode == 120
    assert replayed(engine.folder, "nobody").returncode == 121
    assert os.listdir(engine.folder / "recordings" / "moment")
