"""The HTTP server: requests in pieces and in a row, what is no request, streams, and raw connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from dbt.daemon.http_messages import Answer, Handler, Hijack, RawStream, Request, Response, Stream
from dbt.daemon.http_server import HttpServer

_CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
_Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _has_none(method: str, path: str) -> bool:
    return False


def converse(
    path: Path, talk: _Talk, handler: Handler | None = None, has_stream: Callable[[str, str], bool] = _has_none
) -> None:
    """Let ``talk`` be a client of a server that answers as below, or by another handler."""

    async def run() -> None:
        server = HttpServer(handler or _handle, has_stream)
        path_text = str(path / "s")
        server.add(await asyncio.start_unix_server(lambda r, w: server.serve(r, w, is_local=True), path_text))
        reader, writer = await asyncio.open_unix_connection(path_text)
        try:
            await asyncio.wait_for(talk(reader, writer), 60)
        finally:
            writer.close()
            await server.close()

    asyncio.run(run())


async def _handle(request: Request) -> Answer:
    match request.path:
        case "/echo":
            return Response(200, request.body, "text/plain", {"x-query": request.query.get("q", "")})
        case "/raw":
            return Hijack(_carry)
        case "/count":
            return Stream(_count(), "text/event-stream")
        case "/fails":
            raise RuntimeError("on purpose")
    return Response(404)


async def _carry(stream: RawStream) -> None:
    """Answer when the client has ended its direction, and end this one later."""
    said = b""
    while data := await stream.read():
        said += data
    await stream.write(b"you said ")
    await stream.write(said)
    stream.write_end()


async def _count() -> AsyncGenerator[bytes, None]:
    for number in range(3):
        yield b"%d\n" % number


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines if line)


async def _body(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status, headers = await _head(reader)
    return status, await reader.readexactly(int(headers["content-length"]))


def test_requests_come_in_pieces_and_several_at_once(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = b"POST /echo?q=a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        for byte in one[:-2]:
            writer.write(bytes([byte]))
            await writer.drain()
        writer.write(one[-2:] + one + one)
        for _ in range(3):
            status, headers = await _head(reader)
            assert (status, headers["x-query"]) == (200, "a b")
            assert await reader.readexactly(5) == b"hello"

    converse(tmp_path, talk)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"\x16\x03\x01nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000, 431),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"z" * 5_000_000, 413),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (_CHUNKED + b"f" * 17, 400),
        (_CHUNKED + b"f" * 18 + b"\r\n", 400),
        (_CHUNKED + b"3\r\nabc\r\n" + b"0" * 17 + b"\r\n", 400),
        (_CHUNKED + b"4c4b40\r\n" + b"z" * 5_000_000, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_ends_the_connection(tmp_path: Path, text: bytes, status: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        found, body = await _body(reader)
        assert found == status
        assert b"this is no request" in body
        assert await reader.read() == b""

    converse(tmp_path, talk)


def test_chunks_may_have_any_bytes_and_come_in_any_pieces(tmp_path: Path) -> None:
    """Their bytes are no size, although they look like a very long one."""
    text = _CHUNKED + b"14\r\n" + b"f" * 20 + b"\r\n0000000000000002;x=y\r\n\r\n\r\n0\r\n\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for size in (1, 2, 3, len(text)):
            for at in range(0, len(text), size):
                writer.write(text[at : at + size])
                await writer.drain()
                await asyncio.sleep(0)
            assert await _body(reader) == (200, b"f" * 20 + b"\r\n")

    converse(tmp_path, talk)


@pytest.mark.parametrize("text", [b"GET / HT", b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc"])
def test_who_does_not_end_a_request_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr("dbt.daemon.http_server._REQUEST_S", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        status, body = await _body(reader)
        assert status == 408
        assert b"was not complete after 0.05 s" in body
        assert await reader.read() == b""

    converse(tmp_path, talk)


def test_who_says_nothing_hears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbt.daemon.http_server._REQUEST_S", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""

    converse(tmp_path, talk)


def test_the_name_of_an_error_can_be_chosen(tmp_path: Path) -> None:
    """What is no request has an answer in JSON, whatever it is."""

    async def talk() -> bytes:
        server = HttpServer(_handle, error_key="message")
        path = str(tmp_path / "other")
        server.add(await asyncio.start_unix_server(lambda reader, writer: server.serve(reader, writer, True), path))
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'nonsense "\x01\r\n\r\n')
        head, body = (await reader.read()).split(b"\r\n\r\n", 1)
        writer.close()
        await server.close()
        assert b"application/json" in head
        return body

    assert json.loads(asyncio.run(talk()))["message"].startswith("this is no request: ")


def test_a_failure_of_the_handler_is_status_500_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await _body(reader))[0] == 500
        assert (await _body(reader))[0] == 404

    converse(tmp_path, talk)


def test_a_raw_connection_ends_in_each_direction_by_itself(tmp_path: Path) -> None:
    """What follows the request in the same packet belongs to the raw stream already."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly \0\xff")
        status, headers = await _head(reader)
        assert (status, headers["upgrade"]) == (101, "tcp")
        writer.write(b" late")
        writer.write_eof()
        assert await reader.read() == b"you said early \0\xff late"

    converse(tmp_path, talk)


def test_a_raw_connection_is_refused_to_who_does_not_ask_for_one(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await _body(reader))[0] == 426

    converse(tmp_path, talk)


def test_a_stream_is_in_chunks_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /count HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = await _head(reader)
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert await reader.readuntil(b"0\r\n\r\n") == b"2\r\n0\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\n"

    converse(tmp_path, talk)


def test_a_body_that_is_read_while_it_is_carried_out(tmp_path: Path) -> None:
    """It may be of any size. The next request of the connection is answered if all of it was read."""
    pieces: list[int] = []

    async def handle(request: Request) -> Answer:
        if request.stream is None:
            return await _handle(request)
        while piece := await request.stream.read():
            pieces.append(len(piece))
        return Response(200, b"%d" % sum(pieces), "text/plain")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 9 << 20
        writer.write(b"POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(9):
            writer.write(bytes(1 << 20))
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        assert await reader.readexactly(7) == b"%d" % size
        assert max(pieces) <= 1 << 20
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200")

    converse(tmp_path, talk, handle, lambda method, path: (method, path) == ("POST", "/big"))


@pytest.mark.parametrize("body", [b"Content-Length: 0\r\n\r\n", b"Content-Length: 3\r\n\r\nabc", b"\r\n"])
def test_the_connection_goes_on_after_a_body_that_nobody_reads_and_that_has_come(tmp_path: Path, body: bytes) -> None:
    """As after docker's pull, whose request could have a body and has none."""

    async def handle(request: Request) -> Answer:
        return Response(200, b"ok")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(b"POST /big HTTP/1.1\r\nHost: x\r\n" + body)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")

    converse(tmp_path, talk, handle, lambda method, path: True)


def test_a_body_that_nobody_reads(tmp_path: Path) -> None:
    """The answer comes nevertheless, and the connection ends."""

    async def handle(request: Request) -> Answer:
        return Response(404, b"no")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 404 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b"no"

    converse(tmp_path, talk, handle, lambda method, path: True)


def test_a_raw_stream_for_who_has_not_asked_for_one(tmp_path: Path) -> None:
    async def handle(request: Request) -> Answer:
        return Hijack(_carry, content_type="application/x-raw")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\nContent-Type: application/x-raw\r\n\r\n"
        writer.write(b"hi")
        writer.write_eof()
        assert await reader.read() == b"you said hi"

    converse(tmp_path, talk, handle)


def test_a_request_that_comes_during_a_stream(tmp_path: Path) -> None:
    """It is not lost."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = b"GET /count HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(request)
        assert b" 200 " in await reader.readuntil(b"text/event-stream")

    converse(tmp_path, talk)


def test_a_server_ends_during_a_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            ended.append("pieces")

    async def handle(request: Request) -> Answer:
        return Stream(pieces(), "text/plain")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"first")
        asyncio.get_running_loop().call_soon(ended.append, "talk")

    converse(tmp_path, talk, handle)  # which closes the server while the client is there
    assert ended == ["talk", "pieces"]
    assert not caplog.records


def test_who_comes_when_there_are_too_many_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await _head(reader))[0] == 404
        more, other = await asyncio.open_unix_connection(str(tmp_path / "s"))
        assert (await _head(more))[0] == 503
        assert json.loads(await more.read()) == {"error": "there are 1 connections already: end one of them"}
        other.close()

    monkeypatch.setattr("dbt.daemon.http_server._MOST_CONNECTIONS", 1)
    converse(tmp_path, talk)
