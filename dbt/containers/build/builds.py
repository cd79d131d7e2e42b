"""Builds as streams of docker's messages."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from dbt.containers.build.builder import Builder
from dbt.containers.build.failures import BuildFailed
from dbt.containers.build.options import BuildOptions
from dbt.containers.build.running import Machines
from dbt.containers.build.trees import Context
from dbt.containers.images.disk import not_kept
from dbt.containers.images.errors import ImageError
from dbt.containers.images.registry.registries import Registries
from dbt.containers.images.store import ImageStore

#: So many messages may wait for who reads them, before programs have to.
_MOST_WAITING: Final = 256


async def build(
    store: ImageStore,
    machines: Machines,
    registries: Registries,
    folder: str,
    context: AsyncIterator[bytes],
    options: BuildOptions,
) -> AsyncGenerator[dict[str, Any], None]:
    """Build an image, and yield docker's messages. ``context`` is an archive, compressed or not, with the Dockerfile.

    ``folder`` is for files that nobody else sees. Raise ImageError if the build fails before there was any message;
    after that, the last message tells of it.
    """
    messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    quiet: list[dict[str, Any]] = []
    say = quiet.append if options.is_quiet else messages.put_nowait

    async def drain() -> None:
        while messages.qsize() > _MOST_WAITING:
            await asyncio.sleep(0.01)

    async def work() -> None:
        try:
            with tempfile.TemporaryFile(dir=folder) as archive, tempfile.TemporaryFile(dir=folder) as data:
                async for piece in context:
                    await asyncio.to_thread(archive.write, piece)
                archive.seek(0)
                found = await asyncio.to_thread(Context, archive, data)
                builder = Builder(store, machines, registries, folder, options, say, drain)
                image = await builder.build(found)
            if options.is_quiet:
                messages.put_nowait({"stream": f"{image.id}\n"})
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise  # the client is gone
            raise not_kept("the build", folder, error) from None
        finally:
            messages.put_nowait(None)

    task = asyncio.create_task(work())
    try:
        async for message in _told(task, messages, quiet):
            yield message
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _told(
    task: asyncio.Task[None], messages: asyncio.Queue[dict[str, Any] | None], quiet: list[dict[str, Any]]
) -> AsyncGenerator[dict[str, Any], None]:
    has_told = False
    while (message := await messages.get()) is not None:
        has_told = True
        yield message
    try:
        await task
    except ImageError as error:
        for message in quiet:
            has_told = True
            yield message
        if not has_told:
            raise
        detail: dict[str, Any] = {"code": error.code} if isinstance(error, BuildFailed) and error.code else {}
        yield {"errorDetail": {**detail, "message": str(error)}, "error": str(error)}
