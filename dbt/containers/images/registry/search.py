"""Search: which images a registry has, by its catalogue; Docker Hub has a search of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec

from dbt.containers.images.errors import RegistryError
from dbt.containers.images.json_document import decode
from dbt.containers.images.reference import DEFAULT_DOMAIN
from dbt.containers.images.registry.failures import printable, refusal

if TYPE_CHECKING:
    from dbt.containers.images.registry.client import RegistryClient

_MOST_PAGES: Final = 100
_PAGE: Final = 1000
_HUB_SEARCH: Final = "https://index.docker.io/v1/search"
_NEXT = re.compile(r'\s*<([^>]*)>\s*;.*rel="?next"?')


class _Catalogue(msgspec.Struct, frozen=True):
    repositories: list[str] | None = None


class _Result(msgspec.Struct, frozen=True):
    name: str = ""
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct, frozen=True):
    results: list[_Result] | None = None


def split_term(term: str) -> tuple[str, str]:
    """Return the domain that a search is about, and what is looked for there."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return DEFAULT_DOMAIN, term


async def search_catalogue(client: RegistryClient, domain: str, term: str, limit: int) -> list[dict[str, Any]]:
    """Return at most ``limit`` repositories with ``term`` in their names, as docker's API has them."""
    found: list[dict[str, Any]] = []
    page = f"/v2/_catalog?n={_PAGE}"
    for _ in range(_MOST_PAGES):
        answer = await client.ask("GET", page)
        for name in _read(answer.body, _Catalogue).repositories or []:
            if term.lower() in name.lower():
                found.append(_shown(_Result(f"{domain}/{name}")))
            if len(found) == limit:
                return found
        following = _NEXT.match(answer.headers.get("link", ""))
        if following is None:
            return found
        target = client.joined(answer.url, following[1])
        page = "/v2/_catalog?" + target.query.decode("ascii", "replace")
    return found


async def search_hub(client: RegistryClient, term: str, limit: int) -> list[dict[str, Any]]:
    """Return what Docker Hub finds."""
    answer = await client.fetch("GET", f"{_HUB_SEARCH}?{urlencode({'q': term, 'n': limit})}", {})
    if answer.status != 200:
        raise refusal(answer.status, answer.body)
    return [_shown(result) for result in (_read(answer.body, _Results).results or [])[:limit]]


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return decode(body, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"the registry gives a list of images that is none: {error}") from None


def _shown(result: _Result) -> dict[str, Any]:
    return {
        "star_count": result.star_count,
        "is_official": result.is_official,
        "name": printable(result.name),
        "is_automated": result.is_automated,
        "description": printable(result.description or ""),
    }
