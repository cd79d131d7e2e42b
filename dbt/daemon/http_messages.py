"""Requests and answers of the HTTP server, as values."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

#: How often it is looked whether a client has gone, in seconds.
_LOOK_S: Final = 0.2


class Body(Protocol):
    """The body of a request that is read while it is carried out."""

    async def read(self) -> bytes:
        """Return a piece of it, which is empty at its end. Raise ConnectionError or TimeoutError if no more comes."""


@dataclass(frozen=True)
class Request:
    """A request. Names of headers are in small letters; ``query`` has the last value of each name, and ``raw_query``
    is all that stands behind the question mark. ``is_local`` is True if it came over the unix socket.

    It has been read to its end, or its body is in ``stream`` (see :class:`dbt.daemon.http_server.HttpServer`).
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    is_local: bool
    raw_query: str = ""
    stream: Body | None = None


@dataclass(frozen=True)
class Response:
    """An answer with a body of known length. One with status 204 or 304 has none. The type of a body may be unknown."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """An answer whose body comes in pieces, as long as there are any and the client listens.

    The client has the head before the first piece is made. What it has not sent of its own body is not read any more.
    """

    pieces: AsyncGenerator[bytes, None]
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


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

    async def gone(self) -> None:
        """Return once the client has closed the connection. One that has ended its direction before is not seen to go
        by reading, and it may be long until there is something to write.
        """
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket"), 0)  # which tells of the end of both directions alone
        while not (self._writer.is_closing() or poll.poll(0)):
            await asyncio.sleep(_LOOK_S)

    async def write(self, data: bytes) -> None:
        """Send something, and wait while the client does not take it. Raise ConnectionError if it is gone."""
        self._writer.write(data)
        await self._writer.drain()

    def write_end(self) -> None:
        """End this direction: the client sees the end, and may go on sending."""
        self._writer.write_eof()


@dataclass(frozen=True)
class Hijack:
    """An answer after which the connection belongs to ``carry`` (status 101, as with docker's ``Upgrade: tcp``).

    With a ``content_type``, a client that has not asked for another protocol is given the raw stream too, as the body
    of an answer with status 200 that ends with the connection.
    """

    carry: Callable[[RawStream], Awaitable[None]]
    protocol: str = "tcp"
    content_type: str = ""


Answer: TypeAlias = Response | Stream | Hijack
Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]
