"""The table of what the daemon answers, and its description in the format of OpenAPI 3.1."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from dbt.daemon.definition import OF_NAMES, has_zero
from dbt.daemon.errors import NotFound, RequestError
from dbt.daemon.http_messages import Answer, Request, Response

#: Answers a request, whose body has been checked; ``parts`` are those of the path, by the names in braces.
Answering = Callable[["Call"], Awaitable[Answer]]
_PART: Final = re.compile(r"\{(\w+)\}")


class Call(NamedTuple):
    """A request that has found its route: its parts of the path, and its body as a value of the route's type."""

    request: Request
    parts: Mapping[str, str]
    body: Any


def json_answer(value: object, status: int = 200) -> Response:
    """Return an answer that is a value as JSON."""
    return Response(status, msgspec.json.encode(value))


class NotAllowed(RequestError):
    """Raised for a path that has no such method."""

    status = 405


class Wrong(RequestError):
    """Raised for a body that is not what the route takes."""

    status = 400


class Route(NamedTuple):
    """One thing that can be asked for.

    ``takes`` and ``gives`` are the types of the bodies, None for no body. ``query`` has the names of what may stand
    behind the question mark, with descriptions. ``media`` is the type of an answer that is no JSON.
    """

    method: str
    path: str
    about: str
    answer: Answering
    takes: Any = None
    gives: Any = None
    query: Mapping[str, str] = {}
    media: str = "application/json"
    status: int = 200


class Routes:
    """Finds routes. Two with the same method and path are a ValueError."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            methods = self._by_path.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"two routes answer {route.method} {route.path}")
            methods[route.method] = route
        self._patterns = [
            (re.compile(_PART.sub(r"(?P<\1>[^/]+)", path) + r"\Z"), methods) for path, methods in self._by_path.items()
        ]

    def find(self, request: Request) -> tuple[Route, Call]:
        """Return the route of a request, and the call. Raise RequestError if there is none, or if the body is wrong."""
        for pattern, methods in self._patterns:
            if (found := pattern.match(request.path)) is None:
                continue
            route = methods.get(request.method)
            if route is None:
                raise NotAllowed(f"{request.path} has no {request.method}, but {', '.join(sorted(methods))}")
            unknown = sorted(set(request.query) - set(route.query))
            if unknown:
                raise Wrong(f"{request.path} knows no {unknown[0]} behind the question mark")
            return route, Call(request, found.groupdict(), _body(route, request))
        raise NotFound(f"there is nothing at {request.path}: /v1/openapi.json describes what there is")

    def describe(self, version: str, more: Mapping[str, object]) -> dict[str, Any]:
        """Return the description in the format of OpenAPI 3.1. ``more`` are further schemas, by their names."""
        types = [kind for route in self.routes for kind in (route.takes, route.gives) if kind is not None]
        schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
        of_type = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
        paths: dict[str, dict[str, Any]] = {}
        for route in self.routes:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, of_type)
        error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
        return {
            "openapi": "3.1.0",
            "info": {"title": "dbt's daemon of virtual machines", "version": version},
            "paths": paths,
            "components": {"schemas": {**components, **more, "Error": error}},
        }


def _body(route: Route, request: Request) -> Any:
    if route.takes is None:
        if request.body.strip() not in (b"", b"{}"):
            raise Wrong(f"{route.method} {route.path} takes no body")
        return None
    if route.takes is bytes:
        return request.body
    try:
        body = msgspec.json.decode(request.body or b"{}", type=route.takes)
        is_wrong = has_zero(msgspec.to_builtins(body))
    except RecursionError:
        raise Wrong(f"the body of {route.method} {route.path} is wrong: it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = str(error)
        if "matching regex" in text:  # which names alone are checked by
            text = OF_NAMES + "".join(text.partition(" - at ")[1:])
        raise Wrong(f"the body of {route.method} {route.path} is wrong: {text}") from None
    if is_wrong:
        raise Wrong(f"the body of {route.method} {route.path} is wrong: a text in it has a zero byte")
    return body


def _operation(route: Route, of_type: Mapping[int, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PART.findall(route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in route.query.items()
    ]
    schema = {} if route.gives is None else {"schema": of_type[id(route.gives)]}
    content = {route.media: schema} if route.gives is not None or route.media != "application/json" else None
    failure = {
        "description": "Failure",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    words = re.findall(r"[a-z0-9]+", route.path) or ["page"]
    operation: dict[str, Any] = {
        "operationId": "_".join((route.method.lower(), *(words[1:] if len(words) > 1 else words))),
        "summary": route.about,
        "parameters": parameters,
        "responses": {
            str(route.status): {"description": "Success", **({"content": content} if content else {})},
            "default": failure,
        },
    }
    if route.takes is not None:
        media = "application/octet-stream" if route.takes is bytes else "application/json"
        operation["requestBody"] = {"required": True, "content": {media: {"schema": of_type[id(route.takes)]}}}
    return operation
