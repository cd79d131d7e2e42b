"""Archives on their way: as streams, in files, and from one form to the other."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import IO, Final

from dbt.containers.engine.errors import BadParameter
from dbt.containers.images.disk import no_room, not_kept
from dbt.containers.images.errors import StoreError
from dbt.daemon.http_messages import Body

_PIECE: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
#: How large an archive on its way may be, in bytes.
MOST_BYTES: Final = 16 << 30


@contextmanager
def spool_file(folder: str) -> Iterator[IO[bytes]]:
    """Have a file without a name, which is gone afterwards."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield file


async def fill(file: IO[bytes], pieces: AsyncIterator[bytes], folder: str) -> int:
    """Write a stream to a file of a directory, and go to its beginning. Return its size. Raise StoreError if the host
    has no room.
    """
    size = 0
    try:
        async for piece in pieces:
            size += len(piece)
            if size > MOST_BYTES:
                raise BadParameter(f"the archive has more than {MOST_BYTES} bytes")
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(file.flush)
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        raise not_kept("the archive", folder, error) from None
    file.seek(0)
    return size


async def pieces_of(body: Body) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request."""
    while piece := await body.read():
        yield piece


async def with_room(pieces: AsyncIterator[bytes], folder: str) -> AsyncGenerator[bytes, None]:
    """Yield what is to be written to a container's disk, in a directory. Raise StoreError before the host has no room
    for it: the guest would wait for that, and whoever asks with it.
    """
    size = 0
    async for piece in pieces:
        size += len(piece)
        if shutil.disk_usage(folder).free < size:
            raise StoreError(no_room("the archive", folder))
        yield piece


async def plain(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield an archive that may be compressed by gzip as a plain one. Raise BadParameter if it is damaged."""
    first = await anext(pieces, b"")
    while first and len(first) < len(_GZIP) and (more := await anext(pieces, b"")):
        first += more
    if not first.startswith(_GZIP):
        if first:
            yield first
        async for piece in pieces:
            yield piece
        return
    opened, left = zlib.decompressobj(_GZIP_BITS), first
    try:
        while left:
            if data := await asyncio.to_thread(opened.decompress, left, _PIECE):
                yield data
            left = opened.unconsumed_tail
            if opened.eof:
                left = opened.unused_data
                opened = zlib.decompressobj(_GZIP_BITS)
            left = left or await anext(pieces, b"")
    except zlib.error as error:
        raise BadParameter(f"the archive is damaged: {error}") from None
