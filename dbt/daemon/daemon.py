"""The daemon: it listens, keeps the domains, and ends when somebody says so."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from dbt.daemon.api import Api
from dbt.daemon.domains import Domains
from dbt.daemon.errors import RequestError
from dbt.daemon.events import Events
from dbt.daemon.http_server import HttpServer
from dbt.daemon.leftovers import remove_leftovers
from dbt.daemon.machines import MachineMaker
from dbt.daemon.migrations import Migrations, door_at
from dbt.daemon.moves import Moves
from dbt.daemon.places import Places
from dbt.daemon.states import SavedStates
from dbt.daemon.store import Store
from dbt.daemon.web import WebDoor
from dbt.host.endpoint import Endpoint
from dbt.hypervisor.jail.measures import Strictness
from dbt.hypervisor.lifecycle import DomainState
from dbt.hypervisor.migration import Place
from dbt.hypervisor.migration.transport import Door
from dbt.hypervisor.process.carrier import ProcessCarrier

#: The first descriptor that systemd passes (sd_listen_fds(3)).
_FIRST_PASSED: Final = 3
_BACKLOG: Final = 128
#: How often it is looked whether there is something to do, in seconds.
_LOOK_S: Final = 0.5
_log = logging.getLogger(__name__)


class AlreadyRunning(Exception):
    """Raised if there is a daemon for this directory already."""


class Settings(NamedTuple):
    """What the user of a daemon chooses.

    ``cores`` execute ``rate`` instructions a second each. With ``idle_s``, the daemon ends after so many seconds
    without machines and clients. ``jail`` says how strict the jails of machines are. Machines of other hosts are taken
    at ``migration``, if that is given.
    """

    cores: int
    rate: int
    idle_s: float | None
    jail: Strictness
    migration: Place | None = None


class Daemon:
    """A daemon of a user's ``places``.

    Raise AlreadyRunning, RequestError or OSError if it cannot be.
    """

    def __init__(self, places: Places, machines: MachineMaker, version: str, settings: Settings) -> None:
        places.prepare()
        self._places = places
        self._machines = machines
        self._version = version
        self._settings = settings
        if (lock := places.take_lock()) is None:
            raise AlreadyRunning(f"a daemon runs already that keeps {places.directory}")
        self._lock = lock
        self._stopping = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until a signal or a request ends it. ``ready`` is called once others can connect."""
        loop = asyncio.get_running_loop()
        events = Events()

        def tell(time: float, domain: str, event: str, detail: str) -> None:
            loop.call_soon_threadsafe(events.tell, time, domain, event, detail)

        store = Store(self._places.database)
        carrier = ProcessCarrier(self._places.leases, self._machines.modules, self._settings.jail, _log.warning)
        cores, rate = self._settings.cores, self._settings.rate
        domains = Domains(store, self._machines, carrier, self._places.states, tell, cores, rate)
        await asyncio.to_thread(self._clear_up, store, carrier)
        doors = [door_at(self._places.migration_socket)]
        if self._settings.migration is not None:
            doors.append(Door(self._settings.migration))
            _log.info("machines of other hosts are taken at %s", doors[-1].address)
        migrations = Migrations(domains, self._machines, doors, self._places.disks, Moves(self._places.moves))
        states = SavedStates(domains, store, self._machines, self._places.states, tell)

        async def listen_for_browsers() -> int:
            made = await asyncio.start_server(lambda r, w: server.serve(r, w, is_local=False), "127.0.0.1", 0)
            server.add(made)
            port = made.sockets[0].getsockname()[1]
            assert isinstance(port, int)
            return port

        web = WebDoor(listen_for_browsers)
        directory, stop = self._places.directory, self._stopping.set
        api = Api(domains, events, self._machines, directory, self._version, states, migrations, stop, web.routes())
        server = HttpServer(web.guarding(api.handle))
        listening = _passed_socket() or Endpoint(path=self._places.socket).listen()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            await self._listen(server, listening)
            await asyncio.to_thread(_start_all, domains)
            ready()
            await self._until_stopped(lambda: server.is_idle and not domains.has_machines)
        finally:
            events.close()
            await server.close()
            api.close()
            migrations.close()
            await asyncio.to_thread(domains.close)
            carrier.close()
            store.close()
            os.close(self._lock)

    def _clear_up(self, store: Store, carrier: ProcessCarrier) -> None:
        """Remove what belongs to no domain that is known. A database without any may be a new one, and then what the
        old one knew is left alone.
        """
        known = {uuid for stored in store.domains() if (uuid := stored.definition.uuid) is not None}
        if not known:
            return
        for name in carrier.end_others(known):
            _log.warning("the machine of %s is ended: a daemon that was killed has left it, and no domain", name)
        remove_leftovers(self._places.states, known, store.saved_files())

    async def _until_stopped(self, is_idle: Callable[[], bool]) -> None:
        """Wait for the end: somebody has said so, or there has been nothing to do for long enough."""
        quiet, most = 0.0, self._settings.idle_s
        while most is None or quiet < most:
            try:
                async with asyncio.timeout(None if most is None else _LOOK_S):
                    await self._stopping.wait()
                return
            except TimeoutError:
                quiet = quiet + _LOOK_S if is_idle() else 0.0

    async def _listen(self, server: HttpServer, listening: socket.socket) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if _user_of(writer.get_extra_info("socket")) in (0, os.geteuid()):
                await server.serve(reader, writer, is_local=True)
            else:
                writer.close()

        server.add(await asyncio.start_unix_server(serve, sock=listening, backlog=_BACKLOG))


def _start_all(domains: Domains) -> None:
    """Start the domains that are to start with the daemon. What goes wrong with one concerns no other."""
    for record in domains.all():
        if record.definition.autostart and record.domain.state is DomainState.DEFINED:
            try:
                domains.start(record.name)
            except RequestError as error:
                _log.error("%s", error)


def _passed_socket() -> socket.socket | None:
    """Return the socket that systemd has passed, or None."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    os.environ.pop("LISTEN_PID")
    os.environ.pop("LISTEN_FDS")
    os.set_inheritable(_FIRST_PASSED, False)
    return socket.socket(fileno=_FIRST_PASSED)


def _user_of(connection: socket.socket) -> int:
    """Return the user ID of the process at the other end of a unix socket."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", found)
    assert isinstance(user, int)
    return user
