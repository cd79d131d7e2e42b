"""A registry on loopback whose answers a test can make as wrong as it likes, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from tests.containers.images.registry.made import MadeImage, digest

SCHEMA2 = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Asked(NamedTuple):
    """A request. Names of headers are in small letters."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


Writer: TypeAlias = asyncio.StreamWriter
Answer: TypeAlias = Callable[[Asked, Writer], Awaitable[None]]


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of an answer that is right in itself."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def fixed(data: bytes) -> Answer:
    """Return what answers with these very bytes."""

    async def write(asked: Asked, writer: Writer) -> None:
        writer.write(data)

    return write


def error(status: int, code: str, message: str) -> bytes:
    return answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode())


class LyingRegistry:
    """Serves images, unless ``routes`` has something else for a method and path ("GET /v2/")."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer] = {"GET /v2/": fixed(answer(200, b"{}"))}
        self.asked: list[Asked] = []
        self.port = 0

    @property
    def domain(self) -> str:
        return f"127.0.0.1:{self.port}"

    def put(self, name: str, tag: str, image: MadeImage) -> None:
        self.put_manifest(name, tag, image.manifest, SCHEMA2)
        for known, blob in image.blobs.items():
            self.routes[f"GET /v2/{name}/blobs/{known}"] = fixed(answer(200, blob))

    def put_manifest(self, name: str, tag: str, document: bytes, media_type: str) -> None:
        made = answer(200, document, Content_Type=media_type, Docker_Content_Digest=digest(document))
        for key in (tag, digest(document)):
            self.routes[f"GET /v2/{name}/manifests/{key}"] = fixed(made)

    def put_index(self, name: str, tag: str, *images: MadeImage) -> bytes:
        """Serve a list of images for their platforms. Return its document."""
        entries: list[dict[str, Any]] = []
        for image in images:
            self.put(name, "-", image)
            entry = {"mediaType": SCHEMA2, "size": len(image.manifest), "digest": digest(image.manifest)}
            entries.append(entry | {"platform": image.platform})
        document = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        self.put_manifest(name, tag, document, INDEX)
        return document

    def count(self, start: str) -> int:
        """Return how many requests began so ("GET /v2/x/blobs")."""
        return sum(f"{asked.method} {asked.target}".startswith(start) for asked in self.asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            first = await reader.readexactly(1)
            if not first.isupper():  # somebody wants TLS
                writer.close()
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:] if line}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(method, target, headers, body)
            self.asked.append(asked)
            found = self.routes.get(f"{method} {target}") or self.routes.get(f"{method} {asked.path}")
            await (found or fixed(error(404, "MANIFEST_UNKNOWN", "manifest unknown")))(asked, writer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def lying_registry() -> AsyncIterator[LyingRegistry]:
    registry = LyingRegistry()
    server = await asyncio.start_server(registry._serve, "127.0.0.1", 0)
    registry.port = server.sockets[0].getsockname()[1]
    try:
        yield registry
    finally:
        server.close()
