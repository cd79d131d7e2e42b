"""The other end of a service's unix socket, for the commands: small, because it is imported at each call."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

_PIECE: Final = 1 << 16


class RequestFailed(Exception):
    """Raised for an answer that is an error. The text is the service's; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServiceGone(ConnectionError):
    """Raised if the service ends, or sends us away, before it has answered. The text is for the user."""


class Client:
    """One connection to a service, for one request: a ``connection`` that there is, or a new one to the unix socket at
    a path. Raise OSError if there is none.

    ``noun`` is what texts call the service, ``api`` what stands before each path, and ``error_key`` where in an answer
    the text of an error is.
    """

    def __init__(
        self, connection: str | socket.socket, noun: str = "daemon", api: str = "", error_key: str = "error"
    ) -> None:
        self._noun = noun
        self._api = api
        self._error_key = error_key
        self._buffer = b""
        if isinstance(connection, socket.socket):
            self.socket = connection
            return
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(connection)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def ask(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """Return the answer's value: what its JSON says, its text, or None. Raise RequestFailed."""
        status, headers = self._exchange(method, path, body, query, "Connection: close")
        data = self._checked(status, headers)
        return _value(headers, b"".join(data))

    def begin(self, method: str, path: str, body: object = None, **query: object) -> Iterator[bytes]:
        """Return the body of an answer, piece by piece, when its head has come. Raise RequestFailed."""
        status, headers = self._exchange(method, path, body, query, "Connection: close")
        return self._checked(status, headers)

    def send(self, method: str, path: str, pieces: Iterable[bytes]) -> bytes:
        """Return the answer to a request whose body comes in pieces. Raise RequestFailed."""
        head = f"{method} {self._api}{path} HTTP/1.1\r\nHost: dbt\r\nTransfer-Encoding: chunked\r\n"
        with suppress(ConnectionError):  # the answer says why nobody takes it, if there is one
            self.socket.sendall(head.encode() + b"Connection: close\r\n\r\n")
            for piece in pieces:
                if piece:
                    self.socket.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.socket.sendall(b"0\r\n\r\n")
        return b"".join(self._checked(*self._head()))

    def listen(self, path: str) -> Iterator[tuple[str, Any]]:
        """Yield the events of a stream of server-sent events: name and value. The first is ``("", None)``, once nothing
        is missed any more.
        """
        status, headers = self._exchange("GET", path, None, {}, "Accept: text/event-stream")
        name, text = "", b""
        for line in _lines(self._checked(status, headers)):
            if line.startswith(b"event: "):
                name = line[7:].decode()
            elif line.startswith(b"data: "):
                text = line[6:]
            elif not line:
                yield name, json.loads(text or b"null")
                name, text = "", b""

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
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        target = self._api + path
        if query:
            from urllib.parse import urlencode  # which takes some milliseconds

            target = f"{target}?{urlencode(query)}"
        kind = "" if body is None or isinstance(body, bytes) else "Content-Type: application/json\r\n"
        head = f"{method} {target} HTTP/1.1\r\nHost: dbt\r\nContent-Length: {len(data)}\r\n{kind}{more}\r\n\r\n"
        with suppress(ConnectionError):
            self.socket.sendall(head.encode() + data)
        return self._head()

    def _head(self) -> tuple[int, Mapping[str, str]]:
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def _checked(self, status: int, headers: Mapping[str, str]) -> Iterator[bytes]:
        """Return the body, piece by piece, unless the answer is an error."""
        if status >= 400:
            self._fail(status, headers)
        return self._body(headers)

    def _fail(self, status: int, headers: Mapping[str, str]) -> None:
        value = _value(headers, b"".join(self._body(headers)))
        raise RequestFailed(value[self._error_key] if isinstance(value, dict) else str(value or "").strip(), status)

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
        try:
            data = self.socket.recv(_PIECE)
        except ConnectionError:
            data = b""
        if not data:
            raise ServiceGone(f"the {self._noun} has gone in the middle of an answer")
        self._buffer += data


def _value(headers: Mapping[str, str], data: bytes) -> Any:
    if not data:
        return None
    is_json = headers.get("content-type", "").startswith("application/json")
    return json.loads(data) if is_json else data.decode()


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    text = b""
    for piece in pieces:
        text += piece
        *lines, text = text.split(b"\n")
        yield from lines
