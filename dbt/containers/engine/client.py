"""The other end of the engine's socket, for the command: small, because it is imported at each call."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

_PIECE: Final = 1 << 16
_API: Final = "/v1.47"


class RequestFailed(Exception):
    """Raised for an answer that is an error. The text is the engine's; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """One connection to the engine at the unix socket ``path``, for one request. Raise OSError if there is none."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """Return the answer's value, or None if it has no body. Raise RequestFailed."""
        data = b"".join(self.begin(method, path, body, **query))
        return json.loads(data) if data else None

    def send(self, method: str, path: str, pieces: Iterable[bytes]) -> bytes:
        """Return the answer to a request whose body comes in pieces. Raise RequestFailed."""
        head = f"{method} {_API}{path} HTTP/1.1\r\nHost: dbt\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        self.socket.sendall(head.encode())
        for piece in pieces:
            if piece:
                self.socket.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.socket.sendall(b"0\r\n\r\n")
        status, headers = self._head()
        if status >= 400:
            self._fail(status, headers)
        return b"".join(self._body(headers))

    def begin(self, method: str, path: str, body: object = None, **query: object) -> Iterator[bytes]:
        """Return the body of an answer, piece by piece, when its head has come. Raise RequestFailed."""
        status, headers = self._exchange(method, path, body, query, "Connection: close")
        if status >= 400:
            self._fail(status, headers)
        return self._body(headers)

    def hijack(self, path: str, body: object = None, **query: object) -> bytes:
        """Let the connection become a raw stream (:attr:`socket`). Return what has come of it already."""
        status, headers = self._exchange("POST", path, body, query, "Connection: Upgrade\r\nUpgrade: tcp")
        if status != 101:
            self._fail(status, headers)
        early, self._buffer = self._buffer, b""
        return early

    def _exchange(
        self, method: str, path: str, body: object, query: Mapping[str, object], more: str
    ) -> tuple[int, Mapping[str, str]]:
        data = b"" if body is None else json.dumps(body).encode()
        target = f"{_API}{path}?{urlencode(query)}" if query else _API + path
        kind = "Content-Type: application/json\r\n" if data else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: dbt\r\nContent-Length: {len(data)}\r\n{kind}{more}\r\n\r\n"
        self.socket.sendall(head.encode() + data)
        return self._head()

    def _head(self) -> tuple[int, Mapping[str, str]]:
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def _fail(self, status: int, headers: Mapping[str, str]) -> None:
        data = b"".join(self._body(headers))
        is_json = headers.get("content-type", "").startswith("application/json")
        raise RequestFailed(json.loads(data)["message"] if is_json else data.decode().strip(), status)

    def _body(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        if "content-length" in headers:
            yield self._exactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(self._until(b"\r\n"), 16):
                yield self._exactly(size)
                self._until(b"\r\n")

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._receive()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _receive(self) -> None:
        data = self.socket.recv(_PIECE)
        if not data:
            raise ConnectionResetError("the engine has gone in the middle of an answer")
        self._buffer += data
