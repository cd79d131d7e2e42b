"""The console of a domain over a connection: what the guest writes goes out, what comes in is typed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import msgspec

from dbt.daemon.http_messages import RawStream
from dbt.hypervisor.console_ring import ConsoleFull
from dbt.hypervisor.domain import Domain
from dbt.hypervisor.lifecycle import ALIVE

#: How long typing waits for a guest that does not read, before it is tried again, in seconds.
_FULL_S = 0.05
#: How often a silent console looks whether its machine has ended, in seconds.
_LOOK_S = 0.2


class Output(msgspec.Struct, frozen=True):
    """A piece of what a guest has written, as a text in which each character is a byte, and the position behind it."""

    text: str
    position: int


async def output(domain: Domain, position: int) -> AsyncGenerator[tuple[bytes, int], None]:
    """Yield what the guest writes from a position on, with the position behind it, until its machine has ended."""
    ring, changed, loop = domain.console, asyncio.Event(), asyncio.get_running_loop()

    def hear() -> None:
        loop.call_soon_threadsafe(changed.set)

    with ring.listening(hear):
        while True:
            changed.clear()
            has_ended = domain.state not in ALIVE
            data, position = ring.read_from(position)
            if data:
                yield data, position
            elif has_ended:
                return
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _LOOK_S)


async def carry(domain: Domain, stream: RawStream, position: int) -> None:
    """Connect a raw stream to a console until the machine ends or the client is gone.

    A client that ends its direction gets the output nevertheless.
    """
    typing, writing = asyncio.create_task(_type(domain, stream)), asyncio.create_task(_write(domain, stream, position))
    try:
        await asyncio.wait((typing, writing), return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            writing.result()
    finally:
        for task in (typing, writing):
            task.cancel()
        await asyncio.gather(typing, writing, return_exceptions=True)


async def _write(domain: Domain, stream: RawStream, position: int) -> None:
    async for data, _ in output(domain, position):
        await stream.write(data)
    stream.write_end()


async def _type(domain: Domain, stream: RawStream) -> None:
    """Type what comes, and return when the client is gone."""
    with suppress(ConnectionError):
        while data := await stream.read():
            await type_all(domain, data)
        await stream.gone()


async def type_all(domain: Domain, data: bytes) -> None:
    """Type ``data``, and wait while the guest does not read. What is left when its machine ends is lost."""
    while domain.state in ALIVE:
        try:
            domain.console.send(data)
            return
        except ConsoleFull:
            await asyncio.sleep(_FULL_S)
