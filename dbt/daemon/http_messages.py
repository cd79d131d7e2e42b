"""Requests and answers of the HTTP server, as values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Request:
    """A request that has been read to its end. Names of headers are in small letters; ``query`` has the last value of
    each name. ``is_local`` is True if it came over the unix socket.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    is_local: bool


@dataclass(frozen=True)
class Response:
    """An answer with a body of known length."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """An answer whose body comes in pieces, as long as there are any and the client listens."""

    pieces: AsyncGenerator[bytes, None]
    content_type: str


class RawStream:
    """A connection that has ceased to speak HTTP. Each direction ends by itself."""

    def __init__(self, early: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._early = early
        self._reader = reader
        self._writer = writer

    async def read(self, size: int = 1 << 16) -> bytes:
        """Return what the client has sent, at least a byte. It is empty once the client has ended its direction."""
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        return await self._reader.read(size)

    async def write(self, data: bytes) -> None:
        """Send something, and wait while the client does not take it. Raise ConnectionError if it is gone."""
        self._writer.write(data)
        await self._writer.drain()

    def write_end(self) -> None:
        """End this direction: the client sees the end, and may go on sending."""
        self._writer.write_eof()


@dataclass(frozen=True)
class Hijack:
    """An answer after which the connection belongs to ``carry`` (status 101, as with docker's ``Upgrade: tcp``)."""

    carry: Callable[[RawStream], Awaitable[None]]
    protocol: str = "tcp"


Answer: TypeAlias = Response | Stream | Hijack
Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]
