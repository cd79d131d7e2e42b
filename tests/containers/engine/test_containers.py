"""Containers by docker's API: their life, their streams, their files, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import socket
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.containers.engine.asking import WAITS, create, frames, hijack, running
from tests.containers.engine.engines import TestEngine
from tests.containers.images.registry.made import tar_of


@pytest.fixture
def ours(engine: TestEngine) -> Iterator[TestEngine]:
    """The engine, without containers afterwards."""
    yield engine
    for one in engine.ask("GET", "/containers/json?all=1").json:
        assert engine.ask("DELETE", f"/containers/{one['Id']}?force=1&v=1").status == 204


def test_a_life(ours: TestEngine) -> None:
    id = create(ours, "box", "words", "say", "hi")
    assert ours.ask("GET", "/containers/box/json").json["State"]["Status"] == "created"
    connection, head = hijack(ours, "/containers/box/attach?stream=1&stdout=1&stderr=1")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"application/vnd.docker.multiplexed-stream" in head
    assert ours.ask("POST", "/containers/box/start").status == 204
    assert frames(connection) == [(1, b"hi\n")]
    assert ours.ask("POST", "/containers/box/wait").json == {"StatusCode": 0}
    found = ours.ask("GET", f"/containers/{id[:12]}/json").json
    assert (found["Name"], found["State"]["Status"], found["State"]["ExitCode"]) == ("/box", "exited", 0)
    assert ours.ask("DELETE", "/containers/box").status == 204
    assert ours.ask("GET", "/containers/box/json").message == "No such container: box"


def test_input_goes_to_the_program(ours: TestEngine) -> None:
    create(ours, "box", *WAITS, OpenStdin=True, StdinOnce=True)
    connection, _ = hijack(ours, "/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1")
    connection.sendall(b"some words")
    connection.shutdown(socket.SHUT_WR)
    assert ours.ask("POST", "/containers/box/start").status == 204
    assert frames(connection) == [(1, b"some words")]


def test_a_program_that_there_is_not(ours: TestEngine) -> None:
    create(ours, "box", "nothing")
    said = ours.ask("POST", "/containers/box/start")
    assert said.status == 400
    assert said.message.endswith('exec: "nothing": executable file not found in $PATH: unknown')
    assert ours.ask("GET", "/containers/box/json").json["State"]["ExitCode"] == 127


def test_a_container_that_removes_itself(ours: TestEngine) -> None:
    create(ours, "box", "words", "say", "x", HostConfig={"AutoRemove": True})
    assert ours.ask("POST", "/containers/box/start").status == 204
    said = ours.ask("POST", "/containers/box/wait?condition=removed")
    assert said.status == 404 or said.json == {"StatusCode": 0}
    assert ours.ask("GET", "/containers/json?all=1").json == []


def test_one_that_removes_itself_is_there_after_a_restart(ours: TestEngine) -> None:
    """As with dockerd: it is removed when it has ended, and that it has to end for a restart is no end."""
    container = running(ours, HostConfig={"AutoRemove": True})
    assert ours.ask("PUT", "/containers/box/archive?path=/", tar_of(kept=b"x")).status == 200
    assert ours.ask("POST", "/containers/box/restart?t=0").status == 204
    assert ours.ask("GET", f"/containers/{container}/json").json["State"]["Running"]
    assert ours.ask("GET", "/containers/box/archive?path=/kept").status == 200
    assert ours.ask("POST", "/containers/box/kill").status == 204
    assert ours.ask("POST", "/containers/box/wait?condition=removed").status in (200, 404)
    assert ours.ask("GET", "/containers/json?all=1").json == []


def test_a_restart_that_fails_does_not_let_another_one_remove_the_container(ours: TestEngine) -> None:
    container = running(ours, HostConfig={"AutoRemove": True})
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ours.ask, "POST", f"/containers/{container}/restart?t=1&signal=SIGCONT")
        time.sleep(0.3)  # it waits for the end of a program that does not end by this signal
        assert ours.ask("POST", f"/containers/{container}/restart?signal=NONE").status == 400
        assert first.result().status == 204
    assert ours.ask("GET", f"/containers/{container}/json").json["State"]["Running"]
    assert ours.ask("DELETE", f"/containers/{container}?force=1").status == 204


def test_what_one_that_removes_itself_writes_to_a_volume_stays(ours: TestEngine, tmp_path: Path) -> None:
    create(
        ours,
        "box",
        *("words", "write", "/volume/said", "x" * 5000),
        HostConfig={"AutoRemove": True, "Binds": [f"{tmp_path}:/volume"]},
    )
    assert ours.ask("POST", "/containers/box/start").status == 204
    assert ours.ask("POST", "/containers/box/wait?condition=removed").status in (200, 404)
    assert (tmp_path / "said").read_text() == "x" * 5000 + "\n"


def test_states(ours: TestEngine) -> None:
    running(ours)
    for path, status in (
        *(("start", 304), ("pause", 204), ("pause", 409), ("unpause", 204), ("unpause", 409), ("kill?signal=0x", 400)),
        *(("stop?t=0", 204), ("stop", 304), ("kill", 409), ("pause", 409), ("restart?t=0", 204), ("kill", 204)),
    ):
        assert ours.ask("POST", f"/containers/box/{path}").status == status, path
    assert ours.ask("POST", "/containers/box/wait").json == {"StatusCode": 137}
    refused = ours.ask("POST", "/containers/create?name=box", {"Image": "words"})
    assert refused.status == 409
    assert refused.message.startswith('Conflict. The container name "/box" is already in use by container "')


def test_one_that_runs_is_not_removed(ours: TestEngine) -> None:
    id = running(ours)
    said = ours.ask("DELETE", "/containers/box")
    assert said.status == 409
    assert said.message.startswith(f"You cannot remove a running container {id}. Stop the container before")
    assert ours.ask("DELETE", "/containers/box?force=1").status == 204


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"Image": "nothing"}, 404, "No such image: nothing:latest"),
        ({"Image": "words", "HostConfig": {"Memory": 4096}}, 400, "Minimum memory limit allowed is 6MB"),
        ({"Image": "words", "HostConfig": {"PidMode": "host"}}, 400, "--pid host cannot be"),
        ({"Image": "words", "HostConfig": {"NetworkMode": "container:x"}}, 400, "--network container:NAME cannot be"),
        ({"Image": "words", "HostConfig": {"RestartPolicy": {"Name": "x"}}}, 400, "invalid restart policy 'x'"),
        ({"Image": "words", "HostConfig": {"CapAdd": ["NOTHING"]}}, 400, 'unknown capability: "CAP_NOTHING"'),
        ({"Image": "words", "WorkingDir": "x"}, 400, "the working directory 'x' is invalid"),
        ({"Image": 3}, 400, "invalid JSON: Expected `str`"),
    ],
)
def test_what_no_container_can_have(ours: TestEngine, body: object, status: int, text: str) -> None:
    said = ours.ask("POST", "/containers/create", body)
    assert said.status == status
    assert text in said.message


def test_logs(ours: TestEngine) -> None:
    create(ours, "box", "words", "say", "one\ntwo\nthree")
    ours.ask("POST", "/containers/box/start")
    ours.ask("POST", "/containers/box/wait")
    said = ours.ask("GET", "/containers/box/logs?stdout=1&stderr=1&follow=1&tail=2").body
    assert said == b"".join(b"\1\0\0\0\0\0\0" + bytes([len(text)]) + text for text in (b"two\n", b"three\n"))
    with_times = ours.ask("GET", "/containers/box/logs?stdout=1&timestamps=1&tail=1").body
    moment = with_times[8:].split()[0].decode()
    assert ours.ask("GET", f"/containers/box/logs?stdout=1&since={quote(moment)}").body.endswith(b"three\n")
    assert ours.ask("GET", "/containers/box/logs?stdout=1&until=1").body == b""
    assert ours.ask("GET", "/containers/box/logs").status == 400


def test_execs(ours: TestEngine) -> None:
    running(ours)
    path = "/containers/box/exec"
    wish = {"AttachStdout": True, "AttachStderr": True, "Env": ["X=y"]}
    id = ours.ask("POST", path, {**wish, "Cmd": ["words", "say", "in"]}).json["Id"]
    connection, _ = hijack(ours, f"/exec/{id}/start", {})
    assert frames(connection) == [(1, b"in\n")]
    found = ours.ask("GET", f"/exec/{id}/json").json
    assert (found["Running"], found["ExitCode"], found["ProcessConfig"]["entrypoint"]) == (False, 0, "words")
    connection, _ = hijack(ours, f"/exec/{id}/start", {})
    assert frames(connection) == [(1, f"Error: Exec command {id} has already run\r\n".encode())]
    assert ours.ask("POST", f"/exec/{id}/start", {"Detach": True}).status == 409
    id = ours.ask("POST", path, {**wish, "Cmd": ["nothing"]}).json["Id"]
    connection, _ = hijack(ours, f"/exec/{id}/start", {})
    ((stream, text),) = frames(connection)
    assert (stream, text.endswith(b'exec: "nothing": executable file not found in $PATH: unknown\r\n')) == (1, True)
    assert ours.ask("GET", f"/exec/{id}/json").json["ExitCode"] == 126
    assert ours.ask("POST", path, {"Cmd": []}).message == "No exec command specified"
    ours.ask("POST", "/containers/box/pause")
    assert ours.ask("POST", path, {"Cmd": ["x"]}).status == 409


def test_a_terminal_that_is_resized_before_its_program_executes(ours: TestEngine) -> None:
    """As docker's command does it, which does not wait for the answer to the start."""
    running(ours)
    wish = {"AttachStdin": True, "AttachStdout": True, "Tty": True, "Cmd": WAITS}
    id = ours.ask("POST", "/containers/box/exec", wish).json["Id"]
    with ThreadPoolExecutor() as pool:
        resized = pool.submit(ours.ask, "POST", f"/exec/{id}/resize?h=30&w=90")
        connection, _ = hijack(ours, f"/exec/{id}/start", {"Tty": True})
        assert resized.result().status == 200
    connection.close()


@pytest.mark.parametrize("runs", [True, False])
def test_archives(ours: TestEngine, runs: bool) -> None:
    if runs:
        running(ours)
    else:
        create(ours, "box", *WAITS)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("note")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    assert ours.ask("PUT", "/containers/box/archive?path=/tmp", out.getvalue()).status == 200
    said = ours.ask("GET", "/containers/box/archive?path=/tmp/note")
    assert "x-docker-container-path-stat" in said.headers
    with tarfile.open(fileobj=io.BytesIO(said.body)) as archive:
        file = archive.extractfile("note")
        assert file is not None
        assert file.read() == b"hello"
    assert {"Path": "/tmp/note", "Kind": 1} in ours.ask("GET", "/containers/box/changes").json
    missing = ours.ask("HEAD", "/containers/box/archive?path=/nothing")
    assert missing.status == 404
    no_folder = ours.ask("PUT", "/containers/box/archive?path=/etc/passwd", out.getvalue())
    assert (no_folder.status, no_folder.message) == (400, "extraction point is not a directory")
    with tarfile.open(fileobj=io.BytesIO(ours.ask("GET", "/containers/box/export").body)) as archive:
        assert "tmp/note" in [name.removeprefix("./") for name in archive.getnames()]


def test_an_image_of_a_container(ours: TestEngine) -> None:
    create(ours, "box", "words", "write", "/tmp/made", "by me")
    ours.ask("POST", "/containers/box/start")
    ours.ask("POST", "/containers/box/wait")
    change = quote('CMD ["words", "file", "/tmp/made"]')
    assert ours.ask("POST", f"/commit?container=box&repo=made&tag=1&changes={change}").status == 201
    said = ours.ask("POST", "/containers/create?name=other", {"Image": "made:1"})
    assert said.status == 201
    ours.ask("POST", "/containers/other/start")
    ours.ask("POST", "/containers/other/wait")
    assert ours.ask("GET", "/containers/other/logs?stdout=1").body[8:] == b"by me\n"


def test_lists(ours: TestEngine) -> None:
    first = create(ours, "first", *WAITS, Labels={"a": "b"})
    second = running(ours, "second")

    def names(query: str) -> list[str]:
        return [one["Names"][0] for one in ours.ask("GET", f"/containers/json?{query}").json]

    def filtered(**filters: list[str]) -> list[str]:
        return names(f"all=1&filters={quote(json.dumps(filters))}")

    assert names("") == ["/second"]
    assert names("all=1") == ["/second", "/first"]
    assert names("limit=1") == ["/second"]
    assert filtered(label=["a=b"]) == filtered(status=["created"]) == filtered(id=[first[:9]]) == ["/first"]
    assert filtered(name=["^/sec"]) == filtered(since=["first"]) == ["/second"]
    assert filtered(ancestor=["words"]) == ["/second", "/first"]
    assert filtered(before=[second]) == ["/first"]
    assert filtered(volume=["x"]) == []
    assert ours.ask("POST", "/containers/first/rename?name=third").status == 204
    assert filtered(name=["third"]) == ["/third"]
    why = "Error when allocating new name: "  # these are dockerd's texts
    said = ours.ask("POST", "/containers/third/rename?name=b")
    assert said.message == f"{why}Invalid container name (/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    said = ours.ask("POST", "/containers/third/rename?name=second")
    assert said.status == 409 and said.message.startswith(f'{why}Conflict. The container name "/second" is already')
    assert ours.ask("POST", "/containers/prune").json["ContainersDeleted"] == [first]


def test_what_is_wanted_of_another_container(ours: TestEngine) -> None:
    body = {"Image": "words", "HostConfig": {"VolumesFrom": ["nobody"]}}
    said = ours.ask("POST", "/containers/create?name=box", body)
    assert (said.status, said.message) == (400, "No such container: nobody")  # with 404, the image would be pulled
    ours.ask("POST", "/networks/create", {"Name": "own", "Internal": True})
    body = {"Image": "words", "NetworkingConfig": {"EndpointsConfig": {"own": {"Links": ["db:db"]}}}}
    (warning,) = ours.ask("POST", "/containers/create?name=box", body).json["Warnings"]
    assert warning.startswith("--link has no effect")


def test_top_stats_and_update(ours: TestEngine) -> None:
    running(ours)
    found = ours.ask("GET", "/containers/box/top").json
    assert found["Titles"][-1] == "CMD"
    assert [row[-1] for row in found["Processes"]] == ["words copy"]
    stats = ours.ask("GET", "/containers/box/stats?stream=0&one-shot=1").json
    assert stats["pids_stats"]["current"] == 1
    assert stats["memory_stats"]["usage"] > 0
    assert ours.ask("POST", "/containers/box/update", {"Memory": 64 << 20}).json == {"Warnings": None}
    assert ours.ask("GET", "/containers/box/json").json["HostConfig"]["Memory"] == 64 << 20
    assert ours.ask("GET", "/containers/box/stats?stream=0&one-shot=1").json["memory_stats"]["limit"] == 64 << 20


def test_checkpoints(ours: TestEngine) -> None:
    running(ours)
    path = "/containers/box/checkpoints"
    assert ours.ask("POST", path, {"CheckpointID": "one", "Exit": True}).status == 201
    assert ours.ask("POST", "/containers/box/wait").status == 200
    assert ours.ask("GET", path).json == [{"Name": "one"}]
    assert ours.ask("POST", "/containers/box/start?checkpoint=two").status == 404
    assert ours.ask("POST", "/containers/box/start?checkpoint=one").status == 204
    connection, _ = hijack(ours, "/containers/box/attach?stream=1&stdin=1&stdout=1")
    connection.sendall(b"on")
    assert connection.recv(100)[8:] == b"on"
    connection.close()
    assert ours.ask("POST", path, {"CheckpointID": "../x"}).status == 400
    assert ours.ask("DELETE", f"{path}/one").status == 204
    assert ours.ask("GET", path).json == []


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker")
def test_docker_run(ours: TestEngine) -> None:
    done = ours.docker("run", "--rm", "-i", "words", "words", "copy", stdin=b"by docker")
    assert (done.returncode, done.stdout) == (0, b"by docker"), done.stderr
    assert ours.docker("run", "--rm", "words", "nothing").returncode == 127
    done = ours.docker("run", "-d", "--name", "box", "-i", "words", *WAITS)
    assert done.returncode == 0, done.stderr
    assert ours.docker("exec", "box", "words", "say", "x").stdout == b"x\n"
    assert ours.docker("stop", "-t", "0", "box").stdout == b"box\n"


def test_an_image_for_another_platform_than_the_user_asks_for(ours: TestEngine) -> None:
    body = {"Image": "words", "Cmd": ["words", "say", "hi"]}
    said = ours.ask("POST", "/containers/create?platform=linux/amd64", body)
    assert said.status == 404  # so that docker's command asks for one that is
    assert said.message.startswith("image with reference words was found but does not match the specified platform: ")
    assert "wanted linux/amd64, actual: linux/arm" in said.message
    assert ours.ask("POST", "/containers/create?platform=linux/arm/", body).status == 400
    assert ours.ask("GET", "/containers/json?all=1").json == []
    assert ours.ask("POST", "/containers/create?platform=linux/arm", body).status == 201


@pytest.mark.parametrize("health", [None, {"Test": ["CMD", "words", "copy"], "Interval": 10**9}])
def test_the_input_of_a_program_without_input_ends(engine: TestEngine, health: object) -> None:
    """As /dev/null does: nobody is attached to it, and nobody can be."""
    create(engine, "silent", *WAITS, Healthcheck=health)
    try:
        assert engine.ask("POST", "/containers/silent/start").status == 204
        assert engine.ask("POST", "/containers/silent/wait").json["StatusCode"] == 0
    finally:
        engine.ask("DELETE", "/containers/silent?force=1")


def test_a_program_with_too_many_arguments_does_not_start(ours: TestEngine) -> None:
    create(ours, "long", "words", *["x"] * 100_000)
    said = ours.ask("POST", "/containers/long/start")
    assert said.status == 400 and said.message.endswith('exec: "words": argument list too long: unknown')
    state = ours.ask("GET", "/containers/long/json").json["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("created", False, 126)


def test_limits_beyond_what_there_is_are_none(ours: TestEngine) -> None:
    create(ours, "vast", "words", "say", "hi", HostConfig={"Memory": 2**63 - 1, "PidsLimit": 2**62})
    assert ours.ask("POST", "/containers/vast/start").status == 204
    assert ours.ask("POST", "/containers/vast/wait").json["StatusCode"] == 0


def test_what_is_exposed_and_no_port_is_not_listed(ours: TestEngine) -> None:
    """The client, or the image, may have written anything."""
    create(ours, "odd", *WAITS, OpenStdin=True, ExposedPorts={"what": {}, "1-2/tcp": {}, "7": {}})
    assert ours.ask("POST", "/containers/odd/start").status == 204
    (row,) = ours.ask("GET", "/containers/json").json
    assert [one["PrivatePort"] for one in row["Ports"]] == [7]
    for filters, count in (({"expose": ["5-9"]}, 1), ({"expose": ["8"]}, 0), ({"publish": ["7"]}, 0)):
        assert len(ours.ask("GET", f"/containers/json?filters={quote(json.dumps(filters))}").json) == count


def test_a_terminal_gets_some_size_whatever_is_asked_for(ours: TestEngine) -> None:
    create(ours, "wide", *WAITS, OpenStdin=True, Tty=True, HostConfig={"ConsoleSize": [-1, 1 << 40]})
    assert ours.ask("POST", "/containers/wide/start").status == 204
    for size in ("h=-1&w=5", "h=70000&w=70000"):
        assert ours.ask("POST", f"/containers/wide/resize?{size}").status == 200
