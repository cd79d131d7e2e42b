"""The other end of the daemon's socket, for the command: small, because it is imported at each call."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any, Final

_PIECE: Final = 1 << 16


class RequestFailed(Exception):
    """Raised for an answer that is an error. The text is for the user; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """One connection to the daemon at the unix socket ``path``, for one request. Raise OSError if there is none."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._buffer = b""

    def close(self) -> None:
        self.socket.close()

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer's value: what its JSON says, its text, or None. Raise RequestFailed."""
        status, headers = self._ask(method, path, body, "Connection: close")
        data = self._rest(int(headers.get("content-length", 0)))
        return self._value(status, headers, data)

    def _value(self, status: int, headers: dict[str, str], data: bytes) -> Any:
        is_json = headers.get("content-type", "").startswith("application/json")
        value = json.loads(data) if is_json and data else data.decode()
        if status >= 400:
            raise RequestFailed(value["error"] if isinstance(value, dict) else str(value), status)
        return value if data else None

    def listen(self, path: str) -> Iterator[tuple[str, Any]]:
        """Yield the events of a stream of server-sent events: name and value. The first is ``("", None)``, once nothing
        is missed any more.
        """
        status, headers = self._ask("GET", path, None, "Accept: text/event-stream")
        if status != 200:
            self._value(status, headers, self._rest(int(headers.get("content-length", 0))))
        name, text = "", b""
        for line in self._lines_of_chunks():
            if line.startswith(b"event: "):
                name = line[7:].decode()
            elif line.startswith(b"data: "):
                text = line[6:]
            elif not line:
                yield name, json.loads(text or b"null")
                name, text = "", b""

    def hijack(self, path: str) -> bytes:
        """Let the connection become a raw stream (:attr:`socket`). Return what has come of it already."""
        status, headers = self._ask("POST", path, None, "Connection: Upgrade\r\nUpgrade: tcp")
        if status != 101:
            self._value(status, headers, self._rest(int(headers.get("content-length", 0))))
        early, self._buffer = self._buffer, b""
        return early

    def _ask(self, method: str, path: str, body: object, more: str) -> tuple[int, dict[str, str]]:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: dbt\r\nContent-Length: {len(data)}\r\n{more}\r\n\r\n"
        self.socket.sendall(head.encode() + data)
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._receive()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _rest(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _receive(self) -> None:
        data = self.socket.recv(_PIECE)
        if not data:
            raise ConnectionResetError("the daemon has gone in the middle of an answer")
        self._buffer += data

    def _lines_of_chunks(self) -> Iterator[bytes]:
        text = b""
        while size := int(self._until(b"\r\n"), 16):
            text += self._rest(size)
            self._until(b"\r\n")
            *lines, text = text.split(b"\n")
            yield from lines
