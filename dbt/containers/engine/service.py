"""The engine as a process: it listens at its socket until somebody ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence

from dbt.containers.engine.api.moving import arrival_routes
from dbt.containers.engine.api.routes import all_routes
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.places import Places
from dbt.containers.engine.router import Router
from dbt.daemon.http_server import HttpServer
from dbt.host.endpoint import Endpoint
from dbt.hypervisor.migration import Place

#: How many may wait to be accepted: for more of them, a client gets EAGAIN. Linux takes its own limit if that is less.
_BACKLOG = 4096
#: How often it is looked whether there is something to do, in seconds.
_LOOK_S = 0.5
#: How long somebody may take to prove who they are, in seconds.
_HANDSHAKE_S = 10.0


class AlreadyRunning(Exception):
    """Raised if there is an engine for this directory already."""


async def serve(
    places: Places,
    version: str,
    ready: Callable[[], None],
    idle_s: float | None = None,
    insecure: Sequence[str] = (),
    gate: Place | None = None,
) -> None:
    """Serve until a signal ends it, or until there has been nothing to do for ``idle_s`` seconds: no client and no
    container that runs. ``ready`` is called once clients can connect. ``insecure`` are registries whose certificates
    are not checked. ``gate`` is where containers of other hosts are taken.

    Raise AlreadyRunning, EngineError, ImageError, MigrationError, NetworkFailure or OSError if that is not possible.
    """
    places.prepare()
    if (lock := places.take_lock()) is None:
        raise AlreadyRunning(f"an engine runs already that keeps {places.directory}")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        engine = await Engine.open(places, version, insecure)
        router = Router(all_routes(engine), version)
        server = HttpServer(router.handle, router.has_stream, error_key="message")
        servers = [server]
        try:
            listening = Endpoint(path=places.socket).listen()
            server.add(await asyncio.start_unix_server(_guarded(server), sock=listening, backlog=_BACKLOG))
            if gate is not None:
                servers.append(await _open_gate(gate, Router(arrival_routes(engine, gate), version)))
            ready()
            warming = asyncio.create_task(engine.warm_up())
            await _until_stopped(stopping, idle_s, lambda: server.is_idle and not engine.containers.some_run)
            await warming
        finally:
            await asyncio.gather(*(one.close() for one in servers))
            await engine.close()
    finally:
        os.close(lock)


async def _until_stopped(stopping: asyncio.Event, idle_s: float | None, is_idle: Callable[[], bool]) -> None:
    quiet = 0.0
    while idle_s is None or quiet < idle_s:
        try:
            async with asyncio.timeout(None if idle_s is None else _LOOK_S):
                await stopping.wait()
            return
        except TimeoutError:
            quiet = quiet + _LOOK_S if is_idle() else 0.0


async def _open_gate(gate: Place, router: Router) -> HttpServer:
    """Return what serves engines of other hosts. Who connects has to have a certificate of the same authority."""
    server = HttpServer(router.handle, router.has_stream, error_key="message")

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.serve(reader, writer, is_local=False)

    context, listening = gate.context(is_server=True), gate.endpoint.listen()
    server.add(await asyncio.start_server(serve_one, sock=listening, ssl=context, ssl_handshake_timeout=_HANDSHAKE_S))
    return server


def _guarded(server: HttpServer) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return what serves a connection: it has to be one of this user's, or of root's."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if _user_of(writer.get_extra_info("socket")) in (0, os.geteuid()):
            await server.serve(reader, writer, is_local=True)
        else:
            writer.close()

    return serve_one


def _user_of(connection: socket.socket) -> int:
    """Return the user ID of the process at the other end of a unix socket."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user = struct.unpack("3i", found)[1]
    assert isinstance(user, int)
    return user
