"""Who waits for the end of a container."""

from __future__ import annotations

import asyncio
from typing import NamedTuple


class Exit(NamedTuple):
    """How a container has ended: its exit code, and why it was not by itself, or an empty text."""

    code: int
    error: str = ""


class Waiters:
    """Futures of those who wait for something that happens again and again. They belong to one event loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[Exit]] = set()

    def add(self) -> asyncio.Future[Exit]:
        """Return what has a result when it happens the next time."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def tell(self, exit: Exit) -> None:
        """Let it happen."""
        for future in list(self._waiting):
            if not future.done():
                future.set_result(exit)
