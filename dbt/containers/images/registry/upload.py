"""Blobs that go to a registry: as what they are there already, or by an upload that goes on where it broke."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Final

from dbt.containers.images.errors import RegistryError
from dbt.containers.images.registry.failures import Refusal, Unreachable
from dbt.containers.images.registry.manifests import Descriptor

if TYPE_CHECKING:
    import httpx

    from dbt.containers.images.registry.client import RegistryClient, SmallAnswer

_ATTEMPTS: Final = 5
_PIECE: Final = 256 << 10
_BYTES: Final = "application/octet-stream"
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


async def has_blob(client: RegistryClient, path: str, digest: str) -> bool:
    """Return True if a repository has a blob."""
    try:
        await client.ask("HEAD", f"/v2/{path}/blobs/{digest}")
    except Refusal as error:
        if error.http_status != HTTPStatus.NOT_FOUND:
            raise
        return False
    return True


async def mount(client: RegistryClient, path: str, digest: str, source: str) -> bool:
    """Let a repository have a blob of another one. Return False if the registry does not do so."""
    query = f"mount={digest}&from={source}"
    expected = (HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
    try:
        answer = await client.ask("POST", f"/v2/{path}/blobs/uploads/?{query}", content=b"", expected=expected)
        if answer.status == HTTPStatus.CREATED:
            return True
        await client.ask("DELETE", _location(client, answer), expected=(HTTPStatus.NO_CONTENT,))
    except Refusal:
        return False  # another way is left, which tells what is wrong
    return False


async def upload(
    client: RegistryClient,
    path: str,
    blob: Descriptor,
    file: IO[bytes],
    at: Callable[[int], None],
    pause_s: float = 1.0,
) -> None:
    """Send a blob, which is in ``file``, to a repository. ``at`` is told how many bytes have gone.

    Raise RegistryError if the registry does not take it, or breaks off five times.
    """
    answer = await client.ask("POST", f"/v2/{path}/blobs/uploads/", content=b"", expected=(HTTPStatus.ACCEPTED,))
    place = _location(client, answer)
    start = 0
    for attempt in range(_ATTEMPTS):
        try:
            if start < blob.size:
                place = await _send(client, place, file, start, blob.size, at)
            break
        except Unreachable:
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(pause_s * 2**attempt)
            place, start = await _state(client, place, blob.size)
    done = place.copy_merge_params({"digest": blob.digest})
    await client.ask("PUT", done, {"Content-Type": _BYTES}, content=b"", expected=(HTTPStatus.CREATED,))


async def _send(
    client: RegistryClient, place: httpx.URL, file: IO[bytes], start: int, size: int, at: Callable[[int], None]
) -> httpx.URL:
    """Send what is missing in one request. Return where the upload goes on."""
    headers = {"Content-Type": _BYTES, "Content-Length": str(size - start)}
    if start:
        headers["Content-Range"] = f"{start}-{size - 1}"
    answer = await client.ask(
        "PATCH", place, headers, content=_pieces(file, start, at), expected=(HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT)
    )
    return _location(client, answer)


async def _pieces(file: IO[bytes], start: int, at: Callable[[int], None]) -> AsyncIterator[bytes]:
    file.seek(start)
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece
        start += len(piece)
        at(start)


async def _state(client: RegistryClient, place: httpx.URL, size: int) -> tuple[httpx.URL, int]:
    """Return where an upload that broke goes on, and with which byte."""
    expected = (HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED, HTTPStatus.OK)
    answer = await client.ask("GET", place, expected=expected)
    found = _RANGE.fullmatch(answer.headers.get("range", "").strip())
    if found is None:
        raise RegistryError("the registry does not say how much of a blob it has")
    # Registries write "0-0" for nothing at all. One byte more of what is random otherwise is harmless to send again
    # from the beginning only, so nothing is what it counts as.
    have = int(found[1]) + 1 if int(found[1]) else 0
    if have > size:
        raise RegistryError("the registry says that it has more of a blob than there is")
    return _location(client, answer), have


def _location(client: RegistryClient, answer: SmallAnswer) -> httpx.URL:
    """Return where an upload goes on."""
    target = answer.headers.get("location")
    return client.joined(answer.url, target) if target else answer.url
