"""Lets what reads files read the body of a request, in a thread of its own."""

from __future__ import annotations

import asyncio
import io

from dbt.daemon.http_messages import Body


class BodySource(io.RawIOBase):
    """The body of a request, as a file that other threads than the event loop's may read.

    It may give fewer bytes than are asked for. ``ended`` is True once all has been read.
    """

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body
        self._loop = asyncio.get_running_loop()
        self._left = memoryview(b"")
        self.ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return a piece, which is empty at the end. Raise ConnectionError or TimeoutError if no more comes."""
        if not self._left and not self.ended:
            self._left = memoryview(asyncio.run_coroutine_threadsafe(self._next(), self._loop).result())
            self.ended = not self._left
        found = self._left if size < 0 else self._left[:size]
        self._left = self._left[len(found) :]
        return bytes(found)

    async def _next(self) -> bytes:
        return await self._body.read()
