"""What tests ask an engine for again and again."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.containers.engine.engines import TIMEOUT, TestEngine

#: A program that waits for its input.
WAITS = ["words", "copy"]


def create(engine: TestEngine, name: str, *argv: str, **more: Any) -> str:
    said = engine.ask("POST", f"/containers/create?name={name}", {"Image": "words", "Cmd": list(argv), **more})
    assert said.status == 201, said
    id = said.json["Id"]
    assert isinstance(id, str)
    return id


def running(engine: TestEngine, name: str = "box", **more: Any) -> str:
    """Start a container that waits for its input, which nobody sends."""
    id = create(engine, name, *WAITS, OpenStdin=True, **more)
    assert engine.ask("POST", f"/containers/{id}/start").status == 204
    return id


def hijack(engine: TestEngine, path: str, body: object = None) -> tuple[socket.socket, bytes]:
    """Return a connection that has become a raw stream, and its head."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT)
    connection.connect(engine.socket)
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"POST /v1.47{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}"
    )
    connection.sendall(head.encode() + b"\r\n\r\n" + data)
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        said += connection.recv(1)
    return connection, said


def frames(connection: socket.socket) -> list[tuple[int, bytes]]:
    """Read a multiplexed stream to its end, what follows of a stream at once together."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    connection.close()
    return demultiplexed(data)


def demultiplexed(data: bytes) -> list[tuple[int, bytes]]:
    """Return what docker's multiplexed streams are made of, what follows of a stream at once together."""
    found: list[tuple[int, bytes]] = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        stream, piece, data = data[0], data[8 : 8 + size], data[8 + size :]
        if found and found[-1][0] == stream:
            piece = found.pop()[1] + piece
        found.append((stream, piece))
    return found
