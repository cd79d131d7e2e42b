"""Every request of the description with wrong bodies: each is answered, and none is a failure of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dbt.daemon.client import RequestFailed
from tests.daemon.daemons import TestDaemon
from tests.long import long_only

#: What is given in the place of anything. No path is among them that something could be written to.
_WRONG: tuple[object, ...] = (
    None,
    True,
    -1,
    1 << 63,
    1 << 70,
    1e308,
    "",
    "../..",
    "a\n",
    '"\\',
    "x" * 5000,
    [],
    ["\ud800"],
    {},
    {"a": []},
)
#: Streams, which have no end, and the end of the daemon.
_LEFT_OUT = {"/v1/events", "/v1/shares", "/v1/stop", "/v1/domains/{name}/console"}
#: The parts of a path: a domain that runs, and what is none.
_NAMES = ("one", "none", "%0a", "%ff", "..", "x" * 300)


def _bodies(schema: Any, schemas: dict[str, Any]) -> Iterator[object]:
    """Yield wrong bodies: what is no object, and objects in which one property is wrong."""
    yield from (b"{", b"\xff", b"null", *_WRONG)
    properties = schemas.get(schema.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
    for name in properties:
        yield from ({name: wrong} for wrong in _WRONG)
    if "definition" in properties:
        for name in schemas["Definition"]["properties"]:
            yield from ({"definition": {"name": "two", "machine": {}, name: wrong}} for wrong in _WRONG)
        for name in schemas["Machine"]["properties"]:
            yield from ({"definition": {"name": "two", "machine": {name: wrong}}} for wrong in _WRONG)


def _requests(found: dict[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Yield methods, paths and bodies. What ends or forgets the domain comes last."""
    for path, methods in sorted(
        found["paths"].items(), key=lambda one: one[0].rpartition("/")[2] in ("destroy", "{name}")
    ):
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            bodies = [None, *(_bodies(content["schema"], found["components"]["schemas"]) if content else ())]
            if path not in _LEFT_OUT:
                for name in _NAMES if "{" in path else ("one",):
                    for body in bodies if name == "one" else bodies[:3]:
                        yield method.upper(), path.format(name=name, snapshot="none"), body


@long_only
def test_no_request_is_a_failure_of_the_daemon(daemon: TestDaemon) -> None:
    daemon.define("one", "sleeper")
    daemon.ok("start", "one")
    requests = list(_requests(daemon.ask("GET", "/v1/openapi.json")))
    assert len(requests) > 2000
    failures = []
    for method, path, body in requests:
        with daemon.client() as client:
            client.socket.settimeout(60)
            try:
                client.ask(method, path, body)
            except RequestFailed as error:
                if error.status >= 500:
                    failures.append((method, path, str(body)[:200], str(error)))
    assert not failures
    assert daemon.ask("GET", "/v1")
