"""Health checks, detaching, logs that are followed, events, volumes, and limits."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from dbt.containers.engine.attaching import detach_keys
from dbt.containers.engine.errors import BadParameter
from tests.containers.engine.asking import WAITS, create, frames, hijack, running
from tests.containers.engine.engines import TIMEOUT, Connection, TestEngine


@pytest.fixture
def ours(engine: TestEngine) -> Iterator[TestEngine]:
    """The engine, without containers afterwards."""
    yield engine
    for one in engine.ask("GET", "/containers/json?all=1").json:
        assert engine.ask("DELETE", f"/containers/{one['Id']}?force=1&v=1").status == 204


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def started(engine: TestEngine, name: str, *argv: str, **more: object) -> None:
    create(engine, name, *argv, **more)
    assert engine.ask("POST", f"/containers/{name}/start").status == 204


def log_of(engine: TestEngine, name: str) -> bytes:
    return engine.ask("GET", f"/containers/{name}/logs?stdout=1").body[8:]


def test_commit_lets_programs_stand_still(ours: TestEngine) -> None:
    """What a program writes while an image is made of its files is all of the image's or all not."""
    running(ours)
    ours.ask("POST", "/commit?container=box&repo=still")
    ours.ask("POST", "/commit?container=box&repo=moving&pause=0")
    events = ours.ask(
        "GET", f"/events?since=1&until={time.time() + 1}&filters={quote(json.dumps({'container': ['box']}))}"
    )
    actions = [json.loads(line)["Action"] for line in events.body.splitlines()]
    assert actions[-4:] == ["pause", "unpause", "commit", "commit"]
    id = ours.ask("POST", "/containers/box/exec", {"Cmd": ["words", "say", "x"], "AttachStdout": True}).json["Id"]
    connection, _ = hijack(ours, f"/exec/{id}/start", {"Detach": False})  # whose program runs again
    assert frames(connection) == [(1, b"x\n")]


@pytest.mark.parametrize(
    "wish",
    [{"Cmd": ["a\0b"]}, {"Env": ["A=\0"]}, {"User": "\0"}, {"HostConfig": {"Binds": ["/tmp:/a\0"]}},
     {"HostConfig": {"Sysctls": {"a\0": "1"}}}, {"Entrypoint": "\0"}],
)  # fmt: skip
def test_a_zero_character_is_refused_at_once(ours: TestEngine, wish: dict[str, object]) -> None:
    refused = ours.ask("POST", "/containers/create?name=zero", {"Image": "words", "Cmd": ["words"], **wish})
    assert refused.status == 400 and "zero character" in refused.message
    assert ours.ask("GET", "/containers/zero/json").status == 404


def test_a_zero_character_is_refused_for_further_programs(ours: TestEngine) -> None:
    running(ours)
    assert ours.ask("POST", "/containers/box/exec", {"Cmd": ["words", "\0"]}).status == 400


def test_a_network_that_comes_later_has_names(ours: TestEngine) -> None:
    """A file that the container has changed itself stays as it is."""

    def resolver() -> bytes:
        return ours.ask("GET", "/containers/box/archive?path=/etc/resolv.conf").body

    def own_hosts() -> bytes:
        return ours.ask("GET", "/containers/box/archive?path=/etc/hosts").body

    ours.ask("POST", "/networks/create", {"Name": "later"})
    running(ours)
    assert b"127.0.0.11" not in resolver() and b"172.17.0." in own_hosts()
    assert ours.ask("POST", "/networks/later/connect", {"Container": "box"}).status == 200
    assert b"nameserver 127.0.0.11" in resolver() and own_hosts().count(b"\n172.") == 2
    id = ours.ask("POST", "/containers/box/exec", {"Cmd": ["words", "write", "/etc/hosts", "own"]}).json["Id"]
    frames(hijack(ours, f"/exec/{id}/start", {"Detach": False})[0])
    assert ours.ask("POST", "/networks/later/disconnect", {"Container": "box"}).status == 200
    assert b"127.0.0.11" not in resolver() and b"172." not in own_hosts()
    assert ours.ask("DELETE", "/networks/later").status == 204


def test_health(ours: TestEngine) -> None:
    check = {"Test": ["CMD", "words", "file", "/ok"], "Interval": 100_000_000, "Retries": 2}
    running(ours, Healthcheck=check)

    def health() -> str:
        text = ours.ask("GET", "/containers/box/json").json["State"]["Health"]["Status"]
        assert isinstance(text, str)
        return text

    assert health() in ("starting", "unhealthy")
    until(lambda: health() == "unhealthy")
    assert ours.ask("GET", "/containers/json").json[0]["Status"].endswith("(unhealthy)")
    wish = {"Cmd": ["words", "write", "/ok", "x"]}
    id = ours.ask("POST", "/containers/box/exec", wish).json["Id"]
    ours.ask("POST", f"/exec/{id}/start", {"Detach": True})
    until(lambda: health() == "healthy")

    def last() -> tuple[object, object]:
        result = ours.ask("GET", "/containers/box/json").json["State"]["Health"]["Log"][-1]
        return result["ExitCode"], result["Output"]

    # The file grows in two writes, and the first check may see the first of them alone.
    until(lambda: last() == (0, "x\n"))


def test_detaching(ours: TestEngine) -> None:
    """The keys end the attachment and not the program. What only begins like them is typed."""
    running(ours, Tty=True)
    connection, head = hijack(ours, "/containers/box/attach?stream=1&stdin=1&stdout=1")
    assert b"vnd.docker.raw-stream" in head
    connection.sendall(b"\x10x\r")
    said = b""
    while b"x" not in said.replace(b"^P", b""):
        said += connection.recv(100)
    connection.sendall(b"\x10")
    connection.sendall(b"\x11")
    while connection.recv(100):
        pass
    connection.close()
    assert ours.ask("GET", "/containers/box/json").json["State"]["Running"]


def test_keys() -> None:
    assert detach_keys("") == b"\x10\x11"
    assert detach_keys("a,ctrl-a,ctrl-[") == b"a\x01\x1b"
    for text in ("ctrl-", "ab", "ctrl-1", "a,,b"):
        with pytest.raises(BadParameter):
            detach_keys(text)


def test_logs_are_followed(ours: TestEngine) -> None:
    """Until the container ends."""
    running(ours)
    connection = Connection(ours.socket)
    connection.request("GET", "/v1.47/containers/box/logs?stdout=1&follow=1")
    answer = connection.getresponse()
    attached, _ = hijack(ours, "/containers/box/attach?stream=1&stdin=1")
    for text in (b"one\n", b"two\n"):
        attached.sendall(text)
        assert answer.read(12)[8:] == text
    attached.close()
    ours.ask("POST", "/containers/box/kill")
    assert answer.read() == b""
    connection.close()


def test_events(ours: TestEngine) -> None:
    begun = time.time()
    started(ours, "box", "words", "say", "x", Labels={"mark": "1"}, HostConfig={"NetworkMode": "none"})
    ours.ask("POST", "/containers/box/wait")
    ours.ask("DELETE", "/containers/box")
    wanted = quote(json.dumps({"label": ["mark=1"], "type": ["container"]}))
    said = ours.ask("GET", f"/events?since={begun}&until={time.time()}&filters={wanted}").body
    told = [json.loads(line) for line in said.splitlines()]
    assert [one["Action"] for one in told] == ["create", "start", "die", "destroy"]
    assert told[2]["Actor"]["Attributes"]["exitCode"] == "0"
    assert told[0]["from"] == "words"


def test_volumes(ours: TestEngine) -> None:
    """A volume with a name stays, one without goes with its container, and a directory of the host is neither."""
    binds = {"HostConfig": {"Binds": ["kept:/data"]}}
    started(ours, "one", "words", "write", "/data/file", "by one", **binds)
    ours.ask("POST", "/containers/one/wait")
    started(
        ours, "two", "words", "file", "/data/file", "write", "/data/file", "x", HostConfig={"Binds": ["kept:/data:ro"]}
    )
    assert ours.ask("POST", "/containers/two/wait").json["StatusCode"] != 0
    assert log_of(ours, "two") == b"by one\n"
    folder = Path(ours.folder, "volumes")
    before = set(os.listdir(folder))
    create(ours, "three", *WAITS, Volumes={"/data": {}})
    (made,) = {name for name in os.listdir(folder) if len(name) == 64} - before
    point = ours.ask("GET", "/containers/three/json").json["Mounts"][0]
    assert (point["Type"], point["Name"], point["Destination"]) == ("volume", made, "/data")
    assert ours.ask("DELETE", "/containers/three?v=1").status == 204
    assert made not in os.listdir(folder)
    wrong = ours.ask("POST", "/containers/create", {"Image": "words", "HostConfig": {"Binds": ["a/b:/x"]}})
    assert (wrong.status, "includes invalid characters for a local volume name" in wrong.message) == (400, True)


def test_what_the_image_gives_a_volume(ours: TestEngine) -> None:
    """A volume has the files of the image if it is new, and not if somebody says so or it has some already."""
    folder = Path(ours.folder, "volumes", "filled", "_data")
    create(ours, "none", *WAITS, HostConfig={"Binds": ["filled:/data:nocopy"]})
    assert os.listdir(folder) == []
    create(ours, "one", *WAITS, HostConfig={"Binds": ["filled:/data"]})
    assert (folder / "given").read_bytes() == b"by the image"
    assert (folder / "given").stat().st_mode & 0o7777 == 0o640
    assert os.readlink(folder / "deep" / "link") == "/etc"
    (folder / "given").unlink()
    create(ours, "two", *WAITS, HostConfig={"Binds": ["filled:/data"]})
    assert os.listdir(folder) == ["deep"]
    create(ours, "three", *WAITS, HostConfig={"Binds": ["other:/nothing"]})
    assert os.listdir(folder.parents[1] / "other" / "_data") == []


def test_a_directory_of_the_host(ours: TestEngine, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"from the host")
    mounts = [{"Type": "bind", "Source": str(tmp_path), "Target": "/host"}]
    started(ours, "box", "words", "file", "/host/given", "write", "/host/made", "back", HostConfig={"Mounts": mounts})
    assert ours.ask("POST", "/containers/box/wait").json["StatusCode"] == 0
    assert log_of(ours, "box") == b"from the host"
    assert (tmp_path / "made").read_bytes() == b"back\n"
    mounts[0]["Source"] = str(tmp_path / "nothing")
    wrong = ours.ask("POST", "/containers/create", {"Image": "words", "HostConfig": {"Mounts": mounts}})
    assert "bind source path does not exist" in wrong.message


def test_a_client_that_does_not_read(ours: TestEngine) -> None:
    """The program waits for it, and goes on when it has gone."""
    create(ours, "box", *WAITS, OpenStdin=True, StdinOnce=True)
    silent, _ = hijack(ours, "/containers/box/attach?stream=1&stdout=1")
    typing, _ = hijack(ours, "/containers/box/attach?stream=1&stdin=1")
    ours.ask("POST", "/containers/box/start")
    typing.settimeout(2)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 64 << 20:
            sent += typing.send(bytes(1 << 16))
    silent.close()
    typing.settimeout(TIMEOUT)
    typing.sendall(b"end\n")
    typing.shutdown(socket.SHUT_WR)
    assert ours.ask("POST", "/containers/box/wait").json["StatusCode"] == 0
    typing.close()
