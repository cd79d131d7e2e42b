"""An HTTP/1.1 server: h11's protocol over asyncio's streams.

A connection can be *hijacked*: after an answer with status 101 it carries bytes of another protocol, each direction of
which ends by itself. That is why this is none of the usual servers; docs/decisions/http-server.md has more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import h11

from dbt.daemon.http_messages import Answer, Handler, Hijack, RawStream, Request, Response, Stream

#: Connections at the same time. Who comes when there are as many is told so.
_MOST_CONNECTIONS: Final = 512
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
_LARGEST_HEAD: Final = 1 << 16
_LARGEST_BODY: Final = 4 << 20
#: How long a client may take for a request, and how long a connection may be idle, in seconds.
_REQUEST_S: Final = 60.0
_LINGER_S: Final = 2.0
_PIECE: Final = 1 << 16
#: The most digits of the size of a chunk, as in Go's servers: nobody has as much to send.
_CHUNK_DIGITS: Final = 16
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]*")
_log = logging.getLogger(__name__)


def _has_none(method: str, path: str) -> bool:
    return False


class HttpServer:
    """Answers requests with ``handler``, on any number of listening sockets.

    ``handler`` answers for everything that may go wrong; what it raises nevertheless is logged, and the client gets
    status 500. Of a method and a path for which ``has_stream`` is True, the handler reads the body itself, piece by
    piece. All other bodies are kept in memory, and are limited. The server's own errors are JSON with one member, whose
    name is ``error_key``.
    """

    def __init__(
        self, handler: Handler, has_stream: Callable[[str, str], bool] = _has_none, error_key: str = "error"
    ) -> None:
        self._handler = handler
        self._has_stream = has_stream
        self._error_key = error_key
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._is_closing = False

    @property
    def is_idle(self) -> bool:
        """True if nobody is connected."""
        return not self._connections

    def add(self, server: asyncio.Server) -> None:
        """Let :meth:`close` close a listening server, whose connections come to :meth:`serve`."""
        self._servers.append(server)

    async def close(self) -> None:
        """Stop listening, and end all connections."""
        self._is_closing = True
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=5)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_local: bool) -> None:
        """Answer the requests of one connection."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= _MOST_CONNECTIONS:
            body = _error(self._error_key, f"there are {_MOST_CONNECTIONS} connections already: end one of them")
            writer.write(_TOO_MANY % (len(body), body))
            writer.close()
            return
        self._connections.add(task)
        try:
            await _Connection(self._handler, self._has_stream, self._error_key, reader, writer, is_local).run()
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the client is gone, or is silent: there is nobody to be told
        except asyncio.CancelledError:
            if not self._is_closing:
                raise  # otherwise asyncio's streams would log it as an error
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class _TooLarge(Exception):
    """Raised for a request with a body that is larger than anything that is asked for here."""


class _TooLate(Exception):
    """Raised for a request of which the rest does not come."""


class _Connection:
    def __init__(
        self,
        handler: Handler,
        has_stream: Callable[[str, str], bool],
        error_key: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_local: bool,
    ) -> None:
        self._handler = handler
        self._has_stream = has_stream
        self._error_key = error_key
        self._reader = reader
        self._writer = writer
        self._is_local = is_local
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        self._awaits_chunk = False  # what comes next of the body begins with the size of a chunk

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_REQUEST_S):
                    request = await self._request()
            except TimeoutError:
                if not self._has_begun():
                    return
                await self._refuse(_TooLate(f"it was not complete after {_REQUEST_S:g} s"))
                await self._linger()
                return
            except (h11.RemoteProtocolError, _TooLarge) as error:
                await self._refuse(error)
                await self._linger()
                return
            if request is None or not await self._answer(request, await self._handled(request)):
                return
            if self._protocol.our_state is not h11.DONE:
                return
            if not self._has_all():  # the answer did not wait for the body
                await self._linger()
                return
            self._protocol.start_next_cycle()

    async def _request(self) -> Request | None:
        """Return the next request, or None if the client wants nothing more."""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        target = _target(head)
        self._awaits_chunk = any(name == b"transfer-encoding" for name, _ in head.headers)
        method, path = head.method.decode("ascii"), unquote(target.path)
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        body, stream = bytearray(), None
        if self._has_stream(method, path):
            stream = self
        else:
            while piece := await self._piece():
                body += piece
                if len(body) > _LARGEST_BODY:
                    raise _TooLarge(f"the body has more than {_LARGEST_BODY} bytes")
        return Request(method, path, query, headers, bytes(body), self._is_local, target.query, stream)

    def _has_begun(self) -> bool:
        """Return whether a part of a request has come."""
        return self._protocol.their_state is h11.SEND_BODY or bool(self._protocol.trailing_data[0])

    def _has_all(self) -> bool:
        """Take what has come of a body that nobody has read. Return whether that is all of it, as for an empty body."""
        while self._protocol.their_state is h11.SEND_BODY:
            if self._next_event() is h11.NEED_DATA:
                return False
        return True

    async def read(self) -> bytes:
        """Return a piece of the body of a request that has it as a stream."""
        try:
            async with asyncio.timeout(_REQUEST_S):
                return await self._piece()
        except TimeoutError:
            raise TimeoutError(f"nothing more of the body has come for {_REQUEST_S:g} s") from None
        except h11.RemoteProtocolError as error:
            raise ConnectionError(f"the body is damaged: {error}") from None

    async def _piece(self) -> bytes:
        """Return a piece of the body of a request, which is empty at its end."""
        if self._protocol.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        if self._protocol.their_state is not h11.SEND_BODY:
            return b""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _event(self) -> object:
        """Return the next event of the protocol. It is PAUSED where the client wants to speak another one."""
        while (event := self._next_event()) is h11.NEED_DATA:
            self._protocol.receive_data(await self._reader.read(_PIECE))
        return event

    def _next_event(self) -> object:
        if self._awaits_chunk:
            self._check_chunk_size()
        event = self._protocol.next_event()
        if isinstance(event, h11.Data) and event.chunk_end:
            self._awaits_chunk = True
        return event

    def _check_chunk_size(self) -> None:
        """Raise RemoteProtocolError for a chunk of a size that nobody means. h11 would wait for all of it."""
        size, end, _ = self._protocol.trailing_data[0].lstrip(b"\r\n").partition(b"\n")
        digits = _SIZE.match(size)
        if digits is not None and len(digits[0]) > _CHUNK_DIGITS:
            raise h11.RemoteProtocolError(f"the size of a chunk has more than {_CHUNK_DIGITS} digits")
        self._awaits_chunk = not end

    async def _handled(self, request: Request) -> Answer:
        try:
            return await self._handler(request)
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            return Response(500, self._error("internal error: the log of the daemon has more"))

    def _error(self, text: str) -> bytes:
        return _error(self._error_key, text)

    async def _answer(self, request: Request, answer: Answer) -> bool:
        """Send an answer. Return True if the connection goes on speaking HTTP."""
        match answer:
            case Response():
                length = {"content-length": str(len(answer.body))}
                length |= {"content-type": answer.content_type} if answer.content_type else {}
                has_body = answer.status not in (204, 304)
                await self._send_head(answer.status, {**(length if has_body else {}), **answer.headers})
                is_sent = has_body and request.method != "HEAD"
                await self._send(h11.Data(data=answer.body if is_sent else b""), h11.EndOfMessage())
            case Stream():
                await self._stream(answer)
            case Hijack():
                return await self._hijack(request, answer)
        return True

    async def _stream(self, answer: Stream) -> None:
        kind = {"content-type": answer.content_type} if answer.content_type else {}
        await self._send_head(200, {**kind, "cache-control": "no-store", **answer.headers})
        gone = asyncio.ensure_future(self._reader.read(_PIECE))  # who listens says nothing, so that is the end
        watched = {gone}
        piece: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                piece = asyncio.ensure_future(anext(answer.pieces, None))
                while not piece.done():
                    await asyncio.wait({piece, *watched}, return_when=asyncio.FIRST_COMPLETED)
                    if gone in watched and gone.done():
                        if not gone.result():
                            raise ConnectionResetError("the listener has gone")
                        watched.clear()  # it is the next request, which waits
                if (data := piece.result()) is None:
                    break
                if data:
                    await self._send(h11.Data(data=data))
            await self._send(h11.EndOfMessage())
        finally:
            if piece is not None and not piece.done():
                await _cancel(piece)  # who makes the pieces can be closed then
            gone.cancel()  # nobody else can read before it has ended
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                self._protocol.receive_data(await gone)
            await answer.pieces.aclose()

    async def _hijack(self, request: Request, answer: Hijack) -> bool:
        wishes = request.headers.get("connection", "").lower()
        kind = [("content-type", answer.content_type)] if answer.content_type else []
        if "upgrade" in wishes and request.headers.get("upgrade") == answer.protocol:
            headers = [*kind, ("connection", "Upgrade"), ("upgrade", answer.protocol)]
            await self._send(h11.InformationalResponse(status_code=101, headers=headers, reason=b"UPGRADED"))
        elif kind:
            self._writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {answer.content_type}\r\n\r\n".encode("ascii"))
        else:
            body = self._error(f"this connection becomes a raw stream: ask for it with Upgrade: {answer.protocol}")
            return await self._answer(request, Response(426, body, headers={"upgrade": answer.protocol}))
        early, _ = self._protocol.trailing_data
        await answer.carry(RawStream(early, self._reader, self._writer))
        await self._linger()  # a client that still sends something need not see a broken connection
        return False

    async def _refuse(self, error: Exception) -> None:
        """Tell a client that what it sends is no request, if there is still room for an answer."""
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        if isinstance(error, h11.RemoteProtocolError):
            status = error.error_status_hint
        else:
            status = 408 if isinstance(error, _TooLate) else 413
        body = self._error(f"this is no request: {error}")
        length = {"content-type": "application/json", "content-length": str(len(body))}
        await self._send_head(status, {**length, "connection": "close"})
        await self._send(h11.Data(data=body), h11.EndOfMessage())

    async def _linger(self) -> None:
        """Read what a client still sends: if the connection was closed before, its answer could be lost."""
        self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while await self._reader.read(_PIECE):
                    pass

    async def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        await self._send(h11.Response(status_code=status, headers=list(headers.items())))

    async def _send(self, *events: h11.Event) -> None:
        for event in events:
            if (data := self._protocol.send(event)) is not None:
                self._writer.write(data)
        await self._writer.drain()


def _error(key: str, text: str) -> bytes:
    """Return the body of an error."""
    return json.dumps({key: text}, separators=(",", ":")).encode()


def _target(head: h11.Request) -> SplitResult:
    """Return what a request is for. Raise RemoteProtocolError if that, or where its body ends, cannot be known."""
    names = {name for name, _ in head.headers}
    # RFC 9112, section 6.1: who is before us may see another end of the body.
    if names >= {b"content-length", b"transfer-encoding"}:
        raise h11.RemoteProtocolError("it has both Content-Length and Transfer-Encoding")
    try:
        return urlsplit(head.target.decode("ascii"))
    except ValueError as error:
        raise h11.RemoteProtocolError(f"its target is none: {error}") from None


async def _cancel(task: asyncio.Future[bytes | None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
        await task
