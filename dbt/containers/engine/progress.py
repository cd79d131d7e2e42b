"""Work that tells how far it is, as an answer of JSON messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from dbt.containers.engine.errors import status_of, text_of
from dbt.containers.engine.router import json_stream
from dbt.daemon.http_messages import Stream

_Report = Callable[[dict[str, Any]], None]


async def told(work: Callable[[_Report], Awaitable[None]]) -> Stream:
    """Begin a work, and return the answer with the messages that it reports. The work ends if the client goes.

    What it raises before its first message is raised here, so that the answer has its status. Later it is the last
    message.
    """
    messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(messages.put_nowait)
        finally:
            messages.put_nowait(None)

    task = asyncio.get_running_loop().create_task(run())
    try:
        first = await messages.get()
    except asyncio.CancelledError:
        task.cancel()
        raise
    if first is None:
        await task

    async def values() -> AsyncGenerator[object, None]:
        message = first
        try:
            while message is not None:
                yield message
                message = await messages.get()
            try:
                await task
            except Exception as error:
                if status_of(error) is None:
                    raise
                yield {"errorDetail": {"message": text_of(error)}, "error": text_of(error)}
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])

    return json_stream(values())
