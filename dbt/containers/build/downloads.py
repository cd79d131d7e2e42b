"""ADD of an address: a file from a server."""

from __future__ import annotations

import hashlib
import posixpath
import stat
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import IO, Final
from urllib.parse import unquote, urlsplit

from dbt.containers.build.copying import Source
from dbt.containers.build.failures import BuildFailed
from dbt.containers.build.trees import Node

_SILENCE_S: Final = 60.0
_MOST_BYTES: Final = 8 << 30
_PIECE: Final = 1 << 18


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the web alone."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise BuildFailed(f"ADD failed: {req.full_url} leads to {newurl[:200]!r}")
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


def download(url: str, folder: str) -> Source:
    """Return what is at an address. Raise BuildFailed."""
    name = posixpath.basename(unquote(urlsplit(url).path))
    if not name:
        raise BuildFailed(f"ADD failed: cannot determine filename from url: {url}")
    opener = urllib.request.build_opener(_WebOnly())
    file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    found = hashlib.sha256()
    size = 0
    try:
        with opener.open(url, timeout=_SILENCE_S) as response:
            while piece := response.read(_PIECE):
                size += len(piece)
                if size > _MOST_BYTES:
                    raise BuildFailed(f"ADD failed: {url} has more than {_MOST_BYTES} bytes")
                file.write(piece)
                found.update(piece)
            when = _time(response.headers.get("Last-Modified", ""))
    except urllib.error.HTTPError as error:
        file.close()
        raise BuildFailed(f"ADD failed: failed to GET {url} with status {error.code} {error.reason}: ") from None
    except (OSError, ValueError) as error:
        file.close()
        raise BuildFailed(f"ADD failed: failed to GET {url}: {error}") from None
    except BaseException:
        file.close()
        raise
    node = Node(stat.S_IFREG | 0o600, 0, 0, size, (when, 0))
    return Source(Downloaded(file, node), name, node, name, f"file:{found.hexdigest()}")


def _time(text: str) -> int:
    try:
        return max(int(parsedate_to_datetime(text).timestamp()), 0)
    except (ValueError, TypeError, OverflowError):
        return 0
