"""Jobs of the agent in a container: archives and what files say. Each is a session without a program."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import AsyncIterator
from typing import Final

from dbt.containers.runtime.port import AgentPort
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import PathFailure, RuntimeFailure
from dbt.linux.container_request import ContainerRequest

_SIZE: Final = struct.Struct("<I")
_MISSING: Final = 0xFFFFFFFF
#: What a job says at most, if it is kept in memory, and how much of what went wrong.
_MOST_ANSWER: Final = 64 << 20
_MOST_COMPLAINT: Final = 8192


async def begin(port: AgentPort, request: ContainerRequest) -> Session:
    """Start a job. Raise PathFailure or RuntimeFailure if that is not possible."""
    session = port.open(request)
    await session.started()
    if (failure := session.failure) is not None:
        about = session.items[failure.place] if failure.place < len(session.items) else "the job"
        raise RuntimeFailure(f"the container's guest cannot prepare {about}: {os.strerror(failure.error)}")
    return session


async def output(session: Session) -> AsyncIterator[bytes]:
    """Yield what a job writes. Raise PathFailure if it has failed in the end."""
    complaint = bytearray()
    try:
        while (piece := await session.read()) is not None:
            if piece[0] == 1:
                yield piece[1]
            else:
                complaint += piece[1][: _MOST_COMPLAINT - len(complaint)]
        if await session.wait():
            raise failure_of(bytes(complaint))
    finally:
        if not session.has_ended:  # nobody wants the rest
            await session.kill(9)
            asyncio.get_running_loop().create_task(drain(session))


async def drain(session: Session) -> None:
    """Read what a program writes, for nobody."""
    while await session.read() is not None:
        continue


async def answer(port: AgentPort, request: ContainerRequest) -> bytes:
    """Return all that a job writes."""
    found = bytearray()
    async for piece in output(await begin(port, request)):
        found += piece
        if len(found) > _MOST_ANSWER:
            raise RuntimeFailure(f"the container's guest answers with more than {_MOST_ANSWER} bytes")
    return bytes(found)


def failure_of(complaint: bytes) -> PathFailure:
    """Return what a job has said at its standard error: an error number, and a path or a sentence."""
    number, _, about = complaint.partition(b" ")
    error = int(number) if number.isdigit() and len(number) < 6 else errno.EIO
    text = about.decode("utf-8", "replace") or "the job"
    return PathFailure(f"{text}: {os.strerror(error)}", error)


async def read_files(port: AgentPort, *paths: str) -> list[bytes | None]:
    """Return the contents of files of the guest, up to 64 KiB of each, and None for those that cannot be read."""
    request = ContainerRequest()
    request.job("c", *paths)
    data, at = await answer(port, request), 0
    found: list[bytes | None] = []
    for _ in paths:
        content, at = sized(data, at)
        found.append(content)
    return found


def sized(data: bytes, at: int) -> tuple[bytes | None, int]:
    """Return what is at a place of an answer behind its size, or None if that says so, and where the next one is. Raise
    RuntimeFailure if there is none.
    """
    if len(data) - at < _SIZE.size:
        raise RuntimeFailure("the container's guest has not answered all of a question")
    size = _SIZE.unpack_from(data, at)[0]
    at += _SIZE.size
    if size == _MISSING:
        return None, at
    if len(data) - at < size:
        raise RuntimeFailure("the container's guest has not answered all of a question")
    return data[at : at + size], at + size
