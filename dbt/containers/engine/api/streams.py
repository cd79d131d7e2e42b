"""What containers write: attachments and logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from dbt.containers.engine.attaching import Attachment, Wish, detach_keys
from dbt.containers.engine.container import Container
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter, Conflict, EngineError
from dbt.containers.engine.output import frame
from dbt.containers.engine.router import Call, Route
from dbt.containers.engine.timestamps import asked_ns, text_of
from dbt.containers.engine.versions import ApiVersion
from dbt.daemon.http_messages import Answer, Hijack, RawStream, Response, Stream

RAW = "application/vnd.docker.raw-stream"
_FRAMED = "application/vnd.docker.multiplexed-stream"


def stream_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Streams(engine)
    return [
        Route("POST", "/containers/{id}/attach", api.attach),
        Route("GET", "/containers/{id}/logs", api.logs),
    ]


def media_type(has_terminal: bool, version: ApiVersion) -> str:
    """Return the type of a stream: one without frames of a terminal, and for clients that know no other type."""
    return RAW if has_terminal or version < (1, 42) else _FRAMED


class _Streams:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def attach(self, call: Call) -> Answer:
        try:
            return await self._attach(call)
        except EngineError as error:  # this answer is text, as all that comes of the connection
            return Response(error.status, f"{error}\r\n".encode(), RAW)

    async def _attach(self, call: Call) -> Answer:
        container = self._engine.containers.find(call.parts["id"])
        state, config = container.record.state, container.record.definition.config
        container.check_decided()
        if state.paused:
            raise Conflict(f"container {container.name} is paused, unpause the container before attach")
        if state.restarting:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        keys = detach_keys(call.text("detachKeys"), "detach")
        wish = Wish(
            _streams(call),
            call.flag("stdin") and config.open_stdin,
            config.tty,
            config.stdin_once and not config.tty,
            keys if config.tty else b"",
        )
        with_logs, goes_on = call.flag("logs"), call.flag("stream")
        listener = container.output.listen()  # before the answer, because the container is started after it

        async def carry(raw: RawStream) -> None:
            attachment = Attachment(raw, wish, listener)
            try:
                if with_logs:
                    async for line in container.log.read(None, None, None, follow=False):
                        if line.stream in wish.streams:
                            await raw.write(line.data if wish.is_raw else frame(line.stream, line.data))
                if goes_on:
                    container.tell("attach")
                    if await attachment.carry(container.session):
                        container.tell("detach")
            finally:
                listener.close()

        return Hijack(carry, content_type=media_type(config.tty, call.version))

    async def logs(self, call: Call) -> Answer:
        container = self._engine.containers.find(call.parts["id"])
        definition, streams = container.record.definition, _streams(call)
        if not streams:
            raise BadParameter("Bad parameters: you must choose at least one stream")
        if definition.host.log_config.type == "none":
            raise BadParameter("configured logging driver does not support reading")
        pieces = _log_pieces(
            container,
            streams,
            _tail(call.text("tail")),
            (asked_ns(call.text("since")), asked_ns(call.text("until"))),
            call.flag("follow"),
            (call.flag("timestamps"), call.flag("details")),
        )
        kind = media_type(definition.config.tty, call.version) if call.version >= (1, 42) else ""
        return Stream(pieces, kind)


async def _log_pieces(
    container: Container,
    streams: frozenset[int],
    tail: int | None,
    times: tuple[int | None, int | None],
    follow: bool,
    shows: tuple[bool, bool],
) -> AsyncGenerator[bytes, None]:
    """Yield lines of a log. ``shows``: their times, and what else is known of them, which is nothing here."""
    is_raw = container.record.definition.config.tty
    has_times, has_details = shows
    lines = container.log.read(tail, *times, follow)
    try:
        async for line in lines:
            if line.stream in streams:
                time = text_of(line.time, fixed=True).encode() + b" " if has_times else b""
                data = time + (b" " if has_details else b"") + line.data
                yield data if is_raw else frame(line.stream, data)
    finally:
        await lines.aclose()


def _streams(call: Call) -> frozenset[int]:
    return frozenset(number for number, name in ((1, "stdout"), (2, "stderr")) if call.flag(name))


def _tail(text: str) -> int | None:
    """Return how many lines a client wants, or None for all. What is no number is all, as docker has it."""
    return int(text) if text.isascii() and text.isdigit() else None
