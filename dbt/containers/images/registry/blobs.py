"""Blobs of a registry: they are read piece by piece, again from where a connection broke, and checked."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Final

from dbt.containers.images.disk import not_kept
from dbt.containers.images.errors import RegistryError
from dbt.containers.images.registry.failures import Refusal, Unreachable, refusal
from dbt.containers.images.registry.manifests import Descriptor, digest_of

if TYPE_CHECKING:
    import httpx

    from dbt.containers.images.registry.client import RegistryClient

_ATTEMPTS: Final = 5
_PIECE: Final = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")
_AGAIN: Final = (408, 429, 500, 502, 503, 504)


#: What of a blob has to come in so many seconds: a registry that gives it byte by byte would never end.
_WINDOW_S: Final = 60.0
_LEAST: Final = 64 << 10


class _Pace:
    """Sees that a blob comes as fast as it has to."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._size = 0

    def add(self, size: int) -> None:
        """Hear that a piece has come. Raise Unreachable if it was too slow."""
        self._size += size
        passed = time.monotonic() - self._begin
        if passed > _WINDOW_S:
            if self._size < _LEAST:
                raise Unreachable(f"the registry gives {self._size} bytes of a blob in {passed:.0f} seconds")
            self._begin, self._size = time.monotonic(), 0


class _Part:
    """What has come of a blob: a file with its first bytes, and their hash."""

    def __init__(self, file: IO[bytes], size: int, folder: str) -> None:
        self._file = file
        self._folder = folder
        self._size = size
        self._hash = hashlib.sha256()
        self.length = 0

    def add(self, data: bytes) -> None:
        if self.length + len(data) > self._size:
            raise RegistryError(f"the registry gives more for a blob than the {self._size} bytes that it has")
        try:
            self._file.write(data)
        except OSError as error:
            raise not_kept("a layer", self._folder, error) from None
        self._hash.update(data)
        self.length += len(data)

    def begin_again(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.length = 0

    @property
    def is_whole(self) -> bool:
        return self.length == self._size

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


async def download(
    client: RegistryClient,
    path: str,
    blob: Descriptor,
    folder: str,
    at: Callable[[int], None],
    pause_s: float = 1.0,
) -> IO[bytes]:
    """Return a file, which has no name, with a blob of the repository ``path``. ``at`` is told how much has come.

    A broken connection is made again, after ``pause_s`` seconds at first, and the blob goes on where it was. Raise
    RegistryError if it does not come in five attempts, or is not what it should be.
    """
    file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    part = _Part(file, blob.size, folder)
    try:
        for attempt in range(_ATTEMPTS):
            try:
                await _go_on(client, f"/v2/{path}/blobs/{blob.digest}", part, at)
                break
            except (Unreachable, Refusal) as error:
                passes = not isinstance(error, Refusal) or error.http_status in _AGAIN
                if attempt == _ATTEMPTS - 1 or not passes:
                    raise
                await asyncio.sleep(pause_s * 2**attempt)
        if part.digest != blob.digest:
            raise RegistryError(f"filesystem layer verification failed for digest {blob.digest}")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


async def _go_on(client: RegistryClient, path: str, part: _Part, at: Callable[[int], None]) -> None:
    """Read the rest of a blob. Raise Unreachable if it breaks off."""
    headers = {"Range": f"bytes={part.length}-"} if part.length else {}
    async with client.stream("GET", path, headers) as response:
        _check_beginning(response, part)
        pending = bytearray()
        pace = _Pace()
        try:
            async for piece in response.aiter_raw():
                pending += piece
                pace.add(len(piece))
                if len(pending) >= _PIECE:
                    data = bytes(pending)
                    pending.clear()
                    await asyncio.to_thread(part.add, data)
                    at(part.length)
        finally:
            part.add(bytes(pending))  # also of a connection that breaks, which goes on from there
        at(part.length)
    if not part.is_whole:
        raise Unreachable(f"the registry ends a blob after {part.length} bytes")


def _check_beginning(response: httpx.Response, part: _Part) -> None:
    """See that the answer goes on with what is missing, or begins again if it does not."""
    if response.status_code == HTTPStatus.PARTIAL_CONTENT and part.length:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != part.length:
            raise RegistryError("the registry gives another part of a blob than the one that is missing")
        return
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.length:
        part.begin_again()
        raise Unreachable("the registry cannot go on in the middle of a blob")
    if response.status_code != HTTPStatus.OK:
        raise refusal(response.status_code, b"")
    part.begin_again()


async def read_small(client: RegistryClient, path: str, blob: Descriptor, most: int) -> bytes:
    """Return a blob of at most ``most`` bytes. Raise RegistryError if it is larger, or is not what it should be."""
    if blob.size > most:
        raise RegistryError(f"the image's configuration has {blob.size} bytes, and at most {most} are read")
    answer = await client.ask("GET", f"/v2/{path}/blobs/{blob.digest}", most=most)
    if digest_of(answer.body) != blob.digest or len(answer.body) != blob.size:
        raise RegistryError(f"image config verification failed for digest {blob.digest}")
    return answer.body
