"""What a program writes, from its session to everybody who listens and to its log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from dbt.containers.runtime.session import Session

#: Bytes that may wait for one listener. Then the program waits, as docker's does.
_MOST_WAITING: Final = 1 << 20


def frame(stream: int, data: bytes) -> bytes:
    """Return output as a frame of docker's multiplexed streams: 0 is standard input, 1 output, 2 errors."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class Listener:
    """Somebody who listens to a program's output from some moment on."""

    def __init__(self, forget: Callable[[Listener], None]) -> None:
        self._forget = forget
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._waiting = 0
        self._has_ended = False
        self._changed = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next piece with its stream, 1 or 2, or None at the end."""
        while not self._pieces:
            if self._has_ended:
                return None
            await self._wait()
        stream, data = self._pieces.popleft()
        self._waiting -= len(data)
        self._changed.set()
        return stream, data

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def put(self, stream: int, data: bytes) -> None:
        """Give it a piece, and wait as long as too much waits."""
        if self._has_ended:
            return
        self._pieces.append((stream, data))
        self._waiting += len(data)
        self._changed.set()
        while self._waiting > _MOST_WAITING and not self._has_ended:
            await self._wait()

    def end(self) -> None:
        """Let it end after what waits."""
        self._has_ended = True
        self._changed.set()

    def close(self) -> None:
        """Listen no more."""
        self._forget(self)
        self.end()


class Output:
    """The output of one program after another, as of a container that is started several times."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self) -> Listener:
        """Return a listener to what comes from now on, until a program ends. It has to be closed."""
        listener = Listener(self._discard)
        self._listeners.append(listener)
        return listener

    def _discard(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    async def carry(self, session: Session, keep: Callable[[int, bytes], None]) -> None:
        """Give all that a program writes to the listeners, and to ``keep`` before."""
        while (piece := await session.read()) is not None:
            keep(*piece)
            for listener in list(self._listeners):
                await listener.put(*piece)

    def end(self) -> None:
        """Let all listeners end."""
        for listener in self._listeners:
            listener.end()
        self._listeners.clear()
