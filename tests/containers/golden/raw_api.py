"""Requests to an engine over its socket as bytes, for what a client's library would hide."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, NamedTuple

import h11

#: Seconds after which an engine is taken to hang.
TIMEOUT = 60.0


class Answer(NamedTuple):
    """Status, the media type, and the body. Of a hijacked connection the body is what came until its end."""

    status: int
    media_type: str
    body: bytes


def request(path: str, method: str, target: str, body: bytes = b"", media_type: str = "application/json") -> Answer:
    """Return the answer to one request, on a connection of its own."""
    with _connected(path) as connection:
        headers = [("Host", "docker"), ("Connection", "close"), ("Content-Length", str(len(body)))]
        if body:
            headers.append(("Content-Type", media_type))
        return _exchange(connection, h11.Request(method=method, target=target, headers=headers), body)


def stream_request(path: str, method: str, target: str, data: bytes, body: bytes = b"") -> Answer:
    """Ask for a raw stream, send ``data`` on it and its end, and return what came until the other end.

    An engine that refuses answers as to any other request.
    """
    with _connected(path) as connection:
        headers = [("Host", "docker"), ("Connection", "Upgrade"), ("Upgrade", "tcp")]
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return _exchange(connection, h11.Request(method=method, target=target, headers=headers), body, data)


def frames(stream: bytes) -> dict[int, bytes]:
    """Return what a multiplexed stream has for each of its streams. Raise ValueError if it is none."""
    found: dict[int, bytes] = {}
    while stream:
        if len(stream) < 8:
            raise ValueError(f"a frame's header ends after {len(stream)} bytes")
        kind, zeros, length = struct.unpack_from(">B3sI", stream)
        if kind > 3 or zeros != bytes(3) or len(stream) < 8 + length:
            raise ValueError(f"no frame: {stream[:24]!r}")
        found[kind] = found.get(kind, b"") + stream[8 : 8 + length]
        stream = stream[8 + length :]
    return found


def documents(body: bytes) -> list[Any]:
    """Return the JSON documents of a body, one or several behind one another."""
    decoder, text, found = json.JSONDecoder(), body.decode(), []
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT)
    connection.connect(path)
    return connection


def _exchange(connection: socket.socket, head: h11.Request, body: bytes, data: bytes | None = None) -> Answer:
    client = h11.Connection(h11.CLIENT)
    # In one call: an engine may have answered and closed the connection before a second one.
    connection.sendall(b"".join(client.send(event) or b"" for event in (head, h11.Data(body), h11.EndOfMessage())))
    answer: h11.Response | h11.InformationalResponse | None = None
    received = b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(connection.recv(1 << 16))
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101 and data is not None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = client.trailing_data[0]
            while piece := connection.recv(1 << 16):
                received += piece
            return Answer(101, _media_type(event), received)
        elif isinstance(event, h11.Response | h11.InformationalResponse):
            answer = event
        elif isinstance(event, h11.Data):
            received += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            if answer is None:
                raise ValueError("the connection ended without an answer")
            return Answer(answer.status_code, _media_type(answer), received)


def _media_type(answer: h11.Response | h11.InformationalResponse) -> str:
    return next((value.decode() for name, value in answer.headers if name == b"content-type"), "")
