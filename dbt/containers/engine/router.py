"""Finds what answers a request, and turns errors into docker's answers."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qs

import msgspec

from dbt.containers.engine.errors import BadParameter, NotFound, status_of, text_of
from dbt.containers.engine.filters import Filters
from dbt.containers.engine.versions import NEWEST, ApiVersion, split_version
from dbt.daemon.http_messages import Answer, Body, Hijack, Request, Response, Stream

#: What docker takes for False in the query. Everything else is True.
_NO: Final = frozenset({"", "0", "no", "false", "none"})
_PART: Final = re.compile(r"\{(\w+)(:path)?\}")
_HEADERS: Final = {
    "Api-Version": str(NEWEST),
    "Docker-Experimental": "true",
    "Ostype": "linux",
}
_JSON: Final = "application/json"
_NO_BODY: Final = "invalid JSON: got EOF while reading request body"
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """A request that has found its route. ``parts`` are those of the path, by the names in braces."""

    request: Request
    parts: Mapping[str, str]
    version: ApiVersion

    def text(self, name: str, default: str = "") -> str:
        """Return a value of the query."""
        return self.request.query.get(name, default)

    def texts(self, name: str) -> list[str]:
        """Return all values of the query with a name."""
        return parse_qs(self.request.raw_query, keep_blank_values=True).get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value of the query, as docker reads it."""
        value = self.request.query.get(name)
        return default if value is None else value.strip().lower() not in _NO

    def number(self, name: str) -> int | None:
        """Return a number of the query, or None if there is none. Raise BadParameter for what is no number."""
        text = self.request.query.get(name, "")
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise BadParameter(f'strconv.Atoi: parsing "{text}": invalid syntax') from None

    def filters(self, known: Iterable[str]) -> Filters:
        """Return the filters of the query."""
        return Filters.read(self.text("filters"), frozenset(known))

    def json(self, kind: type[T], default: T | None = None, has_any_type: bool = False) -> T:
        """Return the body as a value. Fields that are null are as if they were not there. Raise BadParameter, also for
        a body that is said to be no JSON, unless it ``has_any_type``.
        """
        if not self.request.body.strip():
            if default is not None:
                return default
            raise BadParameter(_NO_BODY if self.version >= (1, 42) else "EOF")
        said = self.request.headers.get("content-type", "")
        if not has_any_type and said.partition(";")[0].strip().lower() != _JSON:
            raise BadParameter(f"Content-Type specified ({said}) must be '{_JSON}'")
        try:
            return msgspec.convert(without_nulls(msgspec.json.decode(self.request.body)), kind)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeError) as error:
            raise BadParameter(f"invalid JSON: {error}") from None

    @property
    def body(self) -> Body:
        """The body of a request whose route reads it piece by piece."""
        assert self.request.stream is not None
        return self.request.stream


def without_nulls(value: Any) -> Any:
    """Return a value of JSON in which objects have no members that are null."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that is a value as JSON."""
    return Response(status, msgspec.json.encode(value) + b"\n", headers=headers or {})


def json_stream(values: AsyncGenerator[object, None]) -> Stream:
    """Return an answer of many values in JSON, a line each, as they come."""

    async def lines() -> AsyncGenerator[bytes, None]:
        try:
            async for value in values:
                yield msgspec.json.encode(value) + b"\r\n"
        finally:
            await values.aclose()

    return Stream(lines(), "application/json")


class Route(NamedTuple):
    """One thing that can be asked for. ``{name}`` in the path is a part without slashes, ``{name:path}`` one with them.

    With ``has_stream``, what answers reads the body piece by piece; otherwise it is in memory.
    """

    method: str
    path: str
    answer: Callable[[Call], Awaitable[Answer]]
    has_stream: bool = False


class Router:
    """Answers requests by the first route that fits. ``version`` is that of dbt."""

    def __init__(self, routes: Iterable[Route], version: str) -> None:
        self._headers = {**_HEADERS, "Server": f"dbt/{version} (linux)"}
        self._routes = [(route, _pattern(route.path)) for route in routes]

    def has_stream(self, method: str, path: str) -> bool:
        """Return True for requests whose body is read by what answers."""
        try:
            found = self._find(method, split_version(path)[1])
        except BadParameter:
            return False
        return found is not None and found[0].has_stream

    def _find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        for route, pattern in self._routes:
            if route.method == method and (found := pattern.fullmatch(path)) is not None:
                return route, found.groupdict()
        return None

    async def handle(self, request: Request) -> Answer:
        """Answer a request."""
        try:
            version, path = split_version(request.path)
            found = self._find(request.method, path)
            if found is None:
                raise NotFound("page not found")
            answer = await found[0].answer(Call(request, found[1], version))
        except Exception as error:
            answer = error_answer(request, error)
        return answer if isinstance(answer, Hijack) else replace(answer, headers={**self._headers, **answer.headers})


def error_answer(request: Request, error: Exception) -> Response:
    """Return docker's answer for an error."""
    status = status_of(error)
    if status is None:
        _log.error("%s %s failed", request.method, request.path, exc_info=error)
        return json_answer({"message": "internal error: the log of the engine has more"}, 500)
    return json_answer({"message": text_of(error)}, status)


def _pattern(path: str) -> re.Pattern[str]:
    """Return the pattern of paths that a route answers."""
    return re.compile(_PART.sub(lambda part: f"(?P<{part[1]}>{'.+' if part[2] else '[^/]+'})", path))
