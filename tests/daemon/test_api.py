"""What the daemon says of itself: the description in OpenAPI's format, metrics, events again, and wrong requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from dbt.daemon.client import RequestFailed
from tests.daemon.daemons import TestDaemon
from tests.waiting import wait_until


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def test_the_description_is_complete(daemon: TestDaemon) -> None:
    found = daemon.ask("GET", "/v1/openapi.json")
    assert found["openapi"] == "3.1.0"
    schemas = found["components"]["schemas"]
    assert {reference.rpartition("/")[2] for reference in _references(found)} <= schemas.keys()
    operations = [(path, method, one) for path, methods in found["paths"].items() for method, one in methods.items()]
    names = [one["operationId"] for _, _, one in operations]
    assert len(set(names)) == len(names) > 30
    for path, _, one in operations:
        in_path = {parameter["name"] for parameter in one["parameters"] if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
        assert one["summary"] and "default" in one["responses"]
    assert schemas["Machine"]["properties"].keys() >= {"kernel", "drive", "balloon"}
    assert schemas["Definition"]["properties"]["machine"] == {"$ref": "#/components/schemas/Machine"}


def test_what_can_be_asked_by_reading_is_as_described(daemon: TestDaemon) -> None:
    daemon.define("one", "sleeper")
    found = daemon.ask("GET", "/v1/openapi.json")
    for path, methods in found["paths"].items():
        get = methods.get("get")
        content = get and get["responses"]["200"].get("content", {}).get("application/json")
        if not content:
            continue
        answer = daemon.ask("GET", path.format(name="one"))
        schema = content["schema"]
        assert isinstance(answer, list) == (schema.get("type") == "array"), path
        reference = next(_references(schema), None)
        if reference is not None:
            named = found["components"]["schemas"][reference.rpartition("/")[2]]
            for one in answer if isinstance(answer, list) else [answer]:
                assert one.keys() == named["properties"].keys(), path


def test_the_metrics_are_in_the_format_of_prometheus(daemon: TestDaemon) -> None:
    daemon.define("one", "ticker")
    daemon.ok("start", "one")
    wait_until(lambda: daemon.json("domstats", "one")[0]["instructions"] > 0, "instructions")
    lines = daemon.ask("GET", "/metrics").splitlines()
    for line in lines:
        assert re.fullmatch(r'# (HELP|TYPE) dbt_\w+ .+|dbt_\w+(\{\w+="[^"]+"\})? [0-9.e+-]+', line), line
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['dbt_domain_instructions_total{domain="one"}']) > 0
    assert sum(float(value) for name, value in values.items() if name.startswith("dbt_domains")) == 1


def test_who_comes_back_gets_the_events_that_were_missed(daemon: TestDaemon) -> None:
    daemon.define("again", "sleeper")
    client = daemon.client()
    heard = client.listen("/v1/events?after=0")
    first = next(event for kind, event in heard if kind == "defined" and event["domain"] == "again")
    client.close()
    daemon.ok("start", "again")
    client = daemon.client()
    kind, event = next(one for one in client.listen(f"/v1/events?after={first['number']}") if one[0])
    assert (kind, event["number"]) == ("started", first["number"] + 1)
    client.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/v2", None, 404, "there is nothing at /v2"),
        ("PUT", "/v1/domains", None, 405, "has no PUT, but GET, POST"),
        ("GET", "/v1/domains?x=1", None, 400, "knows no x"),
        ("POST", "/v1/domains", b"{", 400, "the body of POST /v1/domains is wrong"),
        ("POST", "/v1/domains", {"definition": 1}, 400, "Expected `object`"),
        ("POST", "/v1/domains", {"definition": {}, "more": 1}, 400, "unknown field `more`"),
        ("POST", "/v1/domains", b'{"definition":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, 400, "nested too deeply"),
        ("POST", "/v1/restore", {"path": "/tmp/a\0b"}, 400, "a text in it has a zero byte"),
        ("POST", "/v1/domains", {"definition": {"name": "a", "machine": {"drive": ["\0"]}}}, 400, "a zero byte"),
        ("POST", "/v1/domains/none/memory", {"size": 1 << 64}, 400, "<= 4611686018427387903"),
        ("POST", "/v1/domains", {"definition": {"name": "a\n", "machine": {}}}, 422, "wrong at name"),
        ("POST", "/v1/domains/none/clone", {"name": "a\n"}, 400, "at most 64 letters"),
        ("POST", "/v1/stop", {"now": True}, 400, "takes no body"),
        ("POST", "/v1/domains/none/share", {"latency": "x"}, 400, "enum"),
        ("GET", "/v1/domains/none", None, 404, "there is no domain none"),
        ("POST", "/v1/domains/none/save", {"path": "x"}, 404, "there is no domain none"),
        ("POST", "/v1/restore", {"path": "x"}, 422, "no path that begins with /"),
    ],
)
def test_a_wrong_request_is_answered_by_a_sentence(
    daemon: TestDaemon, method: str, path: str, body: object, status: int, text: str
) -> None:
    with pytest.raises(RequestFailed) as caught:
        daemon.ask(method, path, body)
    assert (caught.value.status, text in str(caught.value)) == (status, True), str(caught.value)
