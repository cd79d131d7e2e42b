"""A connection that carries a program's streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.output import Listener, frame
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import RuntimeFailure
from dbt.daemon.http_messages import RawStream

_DEFAULT_KEYS: Final = "ctrl-p,ctrl-q"
_CONTROL: Final = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def detach_keys(text: str, what: str = "escape") -> bytes:
    """Return the keys that end an attachment at a terminal: ``ctrl-p,ctrl-q`` in bytes. Raise BadParameter, in which
    ``what`` says which keys they are.
    """
    found = bytearray()
    for key in (text or _DEFAULT_KEYS).split(","):
        last = key.removeprefix("ctrl-")
        if key == last and len(key.encode()) == 1:
            found += key.encode()
        elif key != last and len(last) == 1 and "a" <= last <= "z":
            found.append(ord(last) - 96)
        elif key != last and last in _CONTROL:
            found.append(_CONTROL[last])
        else:
            raise BadParameter(f"Invalid {what} keys ({text}) provided")
    return bytes(found)


class Wish(NamedTuple):
    """Which streams a client wants. ``streams`` are numbers, 1 and 2; ``keys`` those that detach it, or empty.

    ``ends_input``: the program's input ends with this client's. ``is_raw``: there are no frames, as of a terminal.
    """

    streams: frozenset[int]
    has_input: bool
    is_raw: bool
    ends_input: bool
    keys: bytes


class Attachment:
    """A client at a program, until the program ends, or the client goes or detaches itself."""

    def __init__(self, raw: RawStream, wish: Wish, listener: Listener) -> None:
        self._raw = raw
        self._wish = wish
        self._listener = listener
        self._is_detached = asyncio.Event()

    async def carry(self, session: Callable[[], Awaitable[Session | None]]) -> bool:
        """Carry everything. ``session`` returns the program as soon as there is one. Return True if the client has
        detached itself, and did not simply go.
        """
        loop = asyncio.get_running_loop()
        output = loop.create_task(self._carry_output())
        carrying = loop.create_task(self._carry_input(session)) if self._wish.has_input else None
        tasks = [output, loop.create_task(self._is_detached.wait()), loop.create_task(self._until_gone(carrying))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if output.done():
                output.result()
        finally:
            self._listener.close()
            for task in [*tasks, carrying]:
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(one for one in [*tasks, carrying] if one is not None), return_exceptions=True)
        return self._is_detached.is_set()

    async def _until_gone(self, carrying: asyncio.Task[None] | None) -> None:
        """Return once the client is gone, and the program has what the client has sent."""
        if carrying is not None:
            await asyncio.wait((carrying,))
        await self._raw.gone()

    async def _carry_output(self) -> None:
        while (piece := await self._listener.read()) is not None:
            stream, data = piece
            if stream in self._wish.streams:
                await self._raw.write(data if self._wish.is_raw else frame(stream, data))
        with contextlib.suppress(OSError):
            self._raw.write_end()

    async def _carry_input(self, session: Callable[[], Awaitable[Session | None]]) -> None:
        program = await session()
        if program is None:
            return
        keys, seen = self._wish.keys, 0
        with contextlib.suppress(ConnectionError, RuntimeFailure):
            while data := await self._raw.read():
                if keys:
                    data, seen = _without_keys(data, keys, seen)
                    if seen == len(keys):
                        await program.write(data)
                        self._is_detached.set()
                        return
                await program.write(data)
        with contextlib.suppress(RuntimeFailure):
            if self._wish.ends_input:
                program.end_input()


def _without_keys(data: bytes, keys: bytes, seen: int) -> tuple[bytes, int]:
    """Return what is input of the program, and how many of the keys have come: what may be their beginning is kept
    back until it is clear.
    """
    found = bytearray()
    for byte in data:
        if byte == keys[seen]:
            seen += 1
            if seen == len(keys):
                break
            continue
        found += keys[:seen]
        seen = 1 if byte == keys[0] else 0
        if not seen:
            found.append(byte)
    return bytes(found), seen
