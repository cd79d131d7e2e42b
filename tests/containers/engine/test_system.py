"""What the engine says of itself, versions of the API, events, and what is wrong with requests."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from dbt.containers.engine.events import Events
from dbt.containers.engine.filters import Filters
from dbt.containers.engine.timestamps import asked_ns, ns_of, text_of
from tests.containers.engine.engines import TestEngine, engine_in


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping(engine: TestEngine, method: str) -> None:
    said = engine.ask(method, "/_ping", api="")
    assert (said.status, said.body) == (200, b"OK" if method == "GET" else b"")
    wanted = {"api-version": "1.47", "docker-experimental": "true", "ostype": "linux", "builder-version": "1"}
    assert wanted.items() <= said.headers.items()


def test_versions(engine: TestEngine) -> None:
    found = engine.ask("GET", "/version", api="/v1.24").json
    assert (found["ApiVersion"], found["MinAPIVersion"], found["Arch"]) == ("1.47", "1.24", "arm")
    newer = engine.ask("GET", "/version", api="/v1.48")
    assert newer.status == 400
    assert newer.message == "client version 1.48 is too new. Maximum supported API version is 1.47"
    older = engine.ask("GET", "/version", api="/v1.23")
    assert older.status == 400
    assert older.message.startswith("client version 1.23 is too old. Minimum supported API version is 1.24,")


def test_info(engine: TestEngine) -> None:
    found = engine.ask("GET", "/info").json
    assert (found["Containers"], found["Images"] > 0) == (0, True)
    assert (found["OSType"], found["Architecture"], found["ExperimentalBuild"]) == ("linux", "arm", True)


def test_what_there_is_not(engine: TestEngine) -> None:
    assert engine.ask("GET", "/nothing").message == "page not found"
    assert engine.ask("DELETE", "/version").status == 404


def test_events_of_a_time_that_is_over(engine: TestEngine) -> None:
    said = engine.ask("GET", "/events?since=1&until=2")
    assert (said.status, said.body) == (200, b"")
    assert engine.ask("GET", "/events?since=2&until=1").status == 400
    wrong = engine.ask("GET", '/events?until=1&filters={"nothing":["x"]}')
    assert (wrong.status, wrong.message) == (400, "Invalid filter 'nothing'")


def test_a_second_engine(engine: TestEngine) -> None:
    other = TestEngine(engine.folder)
    with pytest.raises(AssertionError):
        other.start()
    assert other.end() == 125


def test_the_identity_stays(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("e") / "c"
    seen = set()
    for _ in range(2):
        with engine_in(folder) as engine:
            seen.add(engine.ask("GET", "/info").json["ID"])
            assert engine.end() == 0
    assert len(seen) == 1


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker")
def test_docker_version(engine: TestEngine) -> None:
    done = engine.docker("version", "--format", "{{.Server.APIVersion}} {{.Server.Arch}} {{.Server.Experimental}}")
    assert (done.returncode, done.stdout) == (0, b"1.47 arm true\n"), done.stderr


# -- parts -----------------------------------------------------------------------------------------


def test_times() -> None:
    assert text_of(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert text_of(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"
    assert text_of(1_700_000_000_000_000_001, fixed=True) == "2023-11-14T22:13:20.000000001Z"
    for ns in (0, 1_700_000_000_123_456_789):
        assert ns_of(text_of(ns)) == asked_ns(text_of(ns)) == ns
    assert asked_ns("1136073600.000000001") == 1136073600_000000001
    assert asked_ns("") is None


def test_filters() -> None:
    old, new = '{"label":{"a=b":true}}', '{"label":["a=b"]}'
    for text in (old, new):
        filters = Filters.read(text, frozenset({"label"}))
        assert filters.labels({"a": "b"})
        assert not filters.labels({"a": "c"})
        assert not filters.labels({})
    assert Filters({"name": ["^/b"]}).matches("name", "/box")
    assert not Filters({"name": ["^b"]}).matches("name", "/box")
    assert Filters({"name": ["("]}).matches("name", "a(b")


def test_filters_of_events() -> None:
    events = Events()
    events.tell("container", "exec_start: sh", "0123", {"name": "box", "image": "busybox:latest", "who": "me"})
    (event,) = events._kept
    assert time.time_ns() - event.time < 60 * 10**9
    for name, value in (
        *(("type", "container"), ("event", "exec_start"), ("container", "box"), ("container", "01")),
        *(("image", "busybox"), ("label", "who=me"), ("scope", "local")),
    ):
        assert event.passes(Filters({name: [value]})), name
    for name, value in (
        *(("type", "image"), ("event", "exec"), ("container", "ox"), ("image", "busy"), ("label", "who=you")),
        *(("network", "box"), ("scope", "swarm"), ("node", "x")),
    ):
        assert not event.passes(Filters({name: [value]})), name


def test_a_body_that_is_said_to_be_no_json(engine: TestEngine) -> None:
    body = json.dumps({"Image": "words"}).encode()
    for kind in ("text/plain", "application/x-tar", ""):
        said = engine.ask("POST", "/containers/create", body, {"Content-Type": kind} if kind else {})
        assert (said.status, said.message) == (400, f"Content-Type specified ({kind}) must be 'application/json'")
    said = engine.ask(
        "POST", "/containers/create?name=typed", body, {"Content-Type": "application/json; charset=utf-8"}
    )
    assert said.status == 201
    assert engine.ask("DELETE", "/containers/typed").status == 204
