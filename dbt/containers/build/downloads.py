"""Files from servers of the web: ADD of an address, and archives that are imported."""

from __future__ import annotations

import hashlib
import posixpath
import stat
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import IO, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from dbt.containers.build.copying import Source
from dbt.containers.build.failures import BuildFailed
from dbt.containers.build.trees import Node
from dbt.containers.images.errors import ImageError

#: How long a server may be silent, and how long it may take for all, in seconds.
_SILENCE_S: Final = 60.0
_LONGEST_S: Final = 3600.0
_MOST_BYTES: Final = 8 << 30
_PIECE: Final = 1 << 18
_WEB: Final = ("http", "https")


class DownloadFailed(ImageError):
    """Raised if what is at an address cannot be had."""


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the web alone."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme not in _WEB:
            raise DownloadFailed(f"{req.full_url} leads to {newurl[:200]!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Downloaded:
    """One file that has come from a server, as a tree without names."""

    def __init__(self, file: IO[bytes], node: Node) -> None:
        self._file = file
        self._node = node

    def find(self, path: str) -> tuple[str, Node]:
        return path, self._node

    def walk(self, path: str) -> Iterator[tuple[str, Node]]:
        yield path, self._node

    def content(self, path: str, node: Node) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece


class Fetched(NamedTuple):
    """A file without a name, its size and its SHA-256, and when it was changed, in seconds since 1970, or 0."""

    file: IO[bytes]
    size: int
    sha256: str
    changed: int


def fetch(url: str, folder: str) -> Fetched:
    """Return what is at an address of the web. Its file is in ``folder``. Raise DownloadFailed."""
    if urlsplit(url).scheme not in _WEB:
        raise DownloadFailed(f"{url[:200]} is no address of the web")
    opener = urllib.request.build_opener(_WebOnly())
    file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    found = hashlib.sha256()
    size = 0
    end = time.monotonic() + _LONGEST_S
    try:
        with opener.open(url, timeout=_SILENCE_S) as response:
            while piece := response.read1(_PIECE):
                size += len(piece)
                if size > _MOST_BYTES:
                    raise DownloadFailed(f"{url} has more than {_MOST_BYTES} bytes")
                if time.monotonic() > end:
                    raise DownloadFailed(f"{url} has not come within {_LONGEST_S:.0f} seconds")
                file.write(piece)
                found.update(piece)
            when = _time(response.headers.get("Last-Modified", ""))
            if (left := response.length) and left > 0:
                raise DownloadFailed(f"failed to GET {url}: it ends {left} bytes too early")
        file.seek(0)
    except urllib.error.HTTPError as error:
        file.close()
        raise DownloadFailed(f"failed to GET {url} with status {error.code} {error.reason}: ") from None
    except (OSError, ValueError, HTTPException) as error:
        file.close()
        raise DownloadFailed(f'Get "{url}": {_reason(error)}') from None
    except BaseException:
        file.close()
        raise
    return Fetched(file, size, found.hexdigest(), when)


def download(url: str, folder: str) -> Source:
    """Return what is at an address, for ADD. Raise BuildFailed."""
    name = posixpath.basename(unquote(urlsplit(url).path))
    if not name:
        raise BuildFailed(f"ADD failed: cannot determine filename from url: {url}")
    try:
        found = fetch(url, folder)
    except DownloadFailed as failure:
        raise BuildFailed(f"ADD failed: {failure}") from None
    node = Node(stat.S_IFREG | 0o600, 0, 0, found.size, (found.changed, 0))
    return Source(Downloaded(found.file, node), name, node, name, f"file:{found.sha256}")


def _reason(error: Exception) -> str:
    """Return why nothing has come, in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause)


def _time(text: str) -> int:
    try:
        return max(int(parsedate_to_datetime(text).timestamp()), 0)
    except (ValueError, TypeError, OverflowError):
        return 0
