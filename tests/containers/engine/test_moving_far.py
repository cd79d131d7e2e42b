"""A container moves to an engine that may be on another host: by TLS, and without a file that both have."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.containers.engine.asking import create, frames, hijack, running
from tests.containers.engine.engines import TIMEOUT, Said, TestEngine, engine_in
from tests.containers.engine.images import add_images
from tests.long import LONG
from tests.migration.certificates import make_credentials


class Hosts:
    """Two engines, of which the first one has images, and how the second one takes containers."""

    def __init__(self, here: TestEngine, there: TestEngine, place: str, credentials: Path) -> None:
        self.here, self.there, self.place, self.credentials = here, there, place, credentials

    def move(self, name: str = "box") -> Said:
        query = f"destination={quote(self.place)}&tlscreds={quote(str(self.credentials))}"
        return self.here.ask("POST", f"/dbt/containers/{name}/migrate?{query}")

    def at_gate(self, method: str, path: str, body: object = None) -> Said:
        """Ask the second engine as one of another host does."""
        context = ssl.create_default_context(cafile=str(self.credentials / "ca-cert.pem"))
        context.load_cert_chain(self.credentials / "client-cert.pem", self.credentials / "client-key.pem")
        host, port = self.place.removeprefix("tcp://").split(":")
        connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT, context=context)
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.request(method, f"/v1.47{path}", data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        try:
            return Said(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


@contextmanager
def hosts(tmp_path: Path, starter: Sequence[str] = (), other_starter: Sequence[str] = ()) -> Iterator[Hosts]:
    credentials = make_credentials(tmp_path / "credentials")
    (tmp_path / "a").mkdir(0o700)
    add_images(tmp_path / "a")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--migration", f"tcp:127.0.0.1:{port}", "--tls-creds", str(credentials)]
    with (
        engine_in(tmp_path / "a", starter) as here,
        engine_in(tmp_path / "b", other_starter, options) as there,
    ):
        yield Hosts(here, there, f"tcp://127.0.0.1:{port}", credentials)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Hosts]:
    with hosts(tmp_path) as found:
        yield found


def states(engine: TestEngine) -> dict[str, str]:
    return {one["Names"][0]: one["State"] for one in engine.ask("GET", "/containers/json?all=1").json}


def said_by(engine: TestEngine, *argv: str) -> list[tuple[int, bytes]]:
    """Return what a program writes that is executed in the container."""
    id = engine.ask("POST", "/containers/box/exec", {"Cmd": list(argv), "AttachStdout": True}).json["Id"]
    return frames(hijack(engine, f"/exec/{id}/start", {"Detach": False})[0])


def test_a_container_goes_on_at_another_host(pair: Hosts) -> None:
    """The same program has its streams, its files, its name, its id, its log and its image there."""
    id = create(
        *(pair.here, "box", "words", "write", "/mark", "x", "say", "before", "copy"), OpenStdin=True, StdinOnce=True
    )
    pair.here.ask("POST", "/containers/box/start")
    disk = Path("containers") / id / "disk"
    number = os.stat(pair.here.folder / disk).st_ino
    assert pair.move().status == 204
    assert states(pair.here) == {} and states(pair.there) == {"/box": "running"}
    assert os.stat(pair.there.folder / disk).st_ino != number
    assert not list((pair.here.folder / "containers").iterdir())
    assert pair.there.ask("GET", "/containers/box/json").json["Id"] == id
    connection, _ = hijack(pair.there, "/containers/box/attach?stream=1&stdin=1&stdout=1")
    connection.sendall(b"typed there")
    connection.shutdown(1)
    assert frames(connection) == [(1, b"typed there")]
    assert pair.there.ask("POST", "/containers/box/wait").json["StatusCode"] == 0
    log = pair.there.ask("GET", "/containers/box/logs?stdout=1").body
    assert b"before\n" in log and b"typed there" in log
    assert pair.there.ask("HEAD", "/containers/box/archive?path=/mark").status == 200
    assert pair.there.ask("POST", "/containers/box/start").status == 204


def test_what_belongs_to_a_host_stays_there(pair: Hosts, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    running(pair.here, HostConfig={"Binds": [f"{shared}:/data"]})
    said = pair.move()
    assert said.status == 409 and f"it mounts {shared} of this host" in said.message
    running(pair.here, "other")
    query = f"destination={quote(pair.place)}"
    said = pair.here.ask("POST", f"/dbt/containers/other/migrate?{query}")
    assert said.status == 400 and "--tls-creds" in said.message
    said = pair.here.ask("POST", f"/dbt/containers/other/migrate?{query}&tlscreds={quote(str(shared))}")
    assert said.status == 409 and "certificates cannot be used" in said.message
    assert pair.here.ask("POST", "/containers/other/checkpoints", {"CheckpointID": "one", "Exit": False}).status == 201
    said = pair.move("other")
    assert said.status == 409 and "docker checkpoint rm other one" in said.message
    assert states(pair.here) == {"/box": "running", "/other": "running"}
    assert states(pair.there) == {}


def test_an_image_that_comes_takes_no_name_away(pair: Hosts) -> None:
    tar = pair.here.ask("GET", "/images/words/get").body
    pair.there.ask("POST", "/images/load", tar)
    mine = pair.there.ask("POST", "/commit?container=" + create(pair.there, "made", "words")).json["Id"]
    assert pair.there.ask("POST", f"/images/{mine}/tag?repo=words").status == 201
    theirs = pair.here.ask("GET", "/images/words/json").json["Id"]
    assert pair.there.ask("DELETE", "/containers/made").status == 204
    running(pair.here)
    assert pair.move().status == 204
    assert pair.there.ask("GET", "/images/words/json").json["Id"] == mine
    assert pair.there.ask("GET", "/containers/box/json").json["Image"] == theirs


def test_strangers_do_not_come_in(pair: Hosts) -> None:
    host, port = pair.place.removeprefix("tcp://").split(":")
    context = ssl.create_default_context(cafile=str(pair.credentials / "ca-cert.pem"))
    connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT, context=context)
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("GET", "/v1.47/dbt/arrivals/x")
        connection.getresponse()
    connection.close()
    for method, path in (
        *(("GET", "/info"), ("GET", "/containers/json"), ("GET", "/images/json"), ("POST", "/containers/create")),
        *(("POST", "/dbt/containers/box/migrate"), ("POST", "/build"), ("DELETE", "/images/words")),
    ):
        assert pair.at_gate(method, path).status == 404, path


def _offer(pair: Hosts, **changes: Any) -> dict[str, Any]:
    """Return what an engine could say of a container of the image ``words``."""
    image = pair.here.ask("GET", "/images/words/json").json
    definition = {
        **{"id": "ab" * 32, "created": "2026-01-01T00:00:00Z", "image": image["Id"], "path": "words", "args": []},
        **{"config": {}, "host": {}, "networking": {}, "mounts": [], "layers": image["RootFS"]["Layers"]},
    }
    definition.update(changes.pop("definition", {}))
    return {"name": "box", "definition": definition, "state": {}, "names": {}, **changes}


def test_a_host_that_lies_gets_nothing(pair: Hosts, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    saved = pair.here.ask("GET", "/images/words/get").body
    assert pair.at_gate("POST", "/dbt/images", saved).status == 204
    bind = {"type": "bind", "source": str(secret), "target": "/data", "name": "", "mode": "", "read_only": False}
    volume = {**bind, "type": "volume", "name": "some"}
    for wrong, status in (
        (_offer(pair, definition={"mounts": [bind]}), 400),
        (_offer(pair, definition={"mounts": [volume]}), 400),
        (_offer(pair, folder=str(secret)), 400),
        (_offer(pair, files={str(secret): [0, 0]}), 400),
        (_offer(pair, definition={"id": "../" + "ab" * 30}), 400),
        (_offer(pair, definition={"recording": "x"}), 400),
        (_offer(pair, definition={"image": "sha256:" + "0" * 64}), 404),
        (_offer(pair, definition={"layers": []}), 400),
        (_offer(pair, definition={"config": {"Env": ["=x"]}}), 400),
        (_offer(pair, definition={"host": {"NetworkMode": "container:x"}}), 400),
        (_offer(pair, name="../../x"), 400),
        ({"name": "box"}, 400),
    ):
        said = pair.at_gate("POST", "/dbt/arrivals", wrong)
        assert said.status == status, (wrong, said)
    assert pair.at_gate("POST", "/dbt/arrivals/nobody/log", b"x").status == 404
    assert pair.at_gate("POST", "/dbt/images", b"no archive").status >= 400
    assert states(pair.there) == {} and not list((pair.there.folder / "containers").iterdir())
    said = pair.at_gate("POST", "/dbt/arrivals", _offer(pair))
    assert said.status == 201 and said.json["Door"].startswith("tcp:127.0.0.1:")
    path = f"/dbt/arrivals/{'ab' * 32}"
    assert pair.at_gate("GET", path).json["Standing"] == "coming"
    assert pair.at_gate("POST", f"{path}/log", b"no archive").status == 400
    assert pair.at_gate("DELETE", path).status == 204
    assert pair.at_gate("GET", path).json["Standing"] == "unknown"
    assert not list((pair.there.folder / "containers").iterdir())


#: Where one of the engines dies, before the other side has heard what it has decided or after, and whether the
#: container goes to another host.
_DEATHS = [
    ("there", "DESTINATION_ACKNOWLEDGED", False),
    ("here", "SOURCE_COMMITTED", True),
    ("there", "DESTINATION_ACKNOWLEDGED", True),
    ("there", "DESTINATION_VOTED", True),
    ("there", "DESTINATION_RUNNABLE", True),
    ("here", "SOURCE_HEARD_ACKNOWLEDGEMENT", True),
    ("there", "DESTINATION_VOTED", False),
    ("there", "DESTINATION_RUNNABLE", False),
    ("here", "SOURCE_COMMITTED", False),
    ("here", "SOURCE_HEARD_ACKNOWLEDGEMENT", False),
]


@pytest.mark.parametrize(("victim", "point", "is_far"), _DEATHS if LONG else _DEATHS[:2])
def test_engines_that_die_agree(tmp_path: Path, victim: str, point: str, is_far: bool) -> None:
    """Exactly one of them has the container, once both are there again."""
    dying = [sys.executable, "-m", "tests.containers.engine.dying", point]
    with hosts(tmp_path, *((dying, ()) if victim == "here" else ((), dying))) as pair:
        create(pair.here, "box", "words", "say", "before", "copy", OpenStdin=True)
        assert pair.here.ask("POST", "/containers/box/start").status == 204
        while b"before" not in pair.here.ask("GET", "/containers/box/logs?stdout=1").body:
            time.sleep(0.1)
        try:
            if is_far:
                pair.move()
            else:
                pair.here.ask("POST", f"/dbt/containers/box/migrate?destination=unix://{pair.there.socket}")
        except (OSError, http.client.HTTPException):
            assert victim == "here"
        engine = pair.here if victim == "here" else pair.there
        engine.end(signal.SIGKILL)
        engine.starter = ()
        engine.start()
        owner = _owner(pair)
        assert said_by(owner, "words", "say", "x") == [(1, b"x\n")]
        assert owner.ask("GET", "/containers/box/json").json["State"]["Error"] == ""
        assert b"before" in owner.ask("GET", "/containers/box/logs?stdout=1").body


def _owner(pair: Hosts) -> TestEngine:
    """Return the engine that has the container, once that is decided."""
    end = time.monotonic() + 90
    while True:
        found = [engine for engine in (pair.here, pair.there) if states(engine)]
        if len(found) == 1 and b"may be" not in found[0].ask("POST", "/containers/box/start").body:
            return found[0]
        assert time.monotonic() < end, [states(engine) for engine in (pair.here, pair.there)]
        time.sleep(0.5)
