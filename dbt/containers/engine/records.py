"""What the engine remembers of containers when it ends, in one SQLite database."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec

from dbt.containers import VARIABLE
from dbt.containers.engine.config import ContainerConfig, HostConfig
from dbt.containers.engine.errors import EngineError
from dbt.containers.engine.timestamps import ZERO
from dbt.containers.images.disk import Reserve
from dbt.daemon.database import Database

_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL,
    state TEXT NOT NULL
) STRICT;
"""


class RecordsError(EngineError):
    """Raised if the database cannot be used. The text says why, and what to do."""


class MountPoint(msgspec.Struct):
    """Something that is mounted in a container.

    ``type`` is bind, volume or tmpfs. ``source`` is a directory of the host, ``name`` that of the volume, ``options``
    those of mount(8) for a tmpfs. ``is_filled``: the image gives a volume its first files.
    """

    type: str
    target: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    read_only: bool = False
    options: str = ""
    propagation: str = ""
    is_filled: bool = False


class Definition(msgspec.Struct):
    """What a container was made of. ``image`` is the image's id, ``created`` a time by RFC 3339. ``layers`` are the
    digests of the image's layers, the lowest first, and ``blank_disk`` the bytes that its disk took when it was new.

    ``networking`` is docker's NetworkingConfig: the wishes for each network, by the network's name or id.
    ``recording`` is the name of its recording, if it is recorded (:mod:`dbt.containers.engine.recorded`).
    """

    id: str
    created: str
    image: str
    path: str
    args: list[str]
    config: ContainerConfig
    host: HostConfig
    networking: dict[str, Any]
    mounts: list[MountPoint]
    layers: list[str]
    blank_disk: int = 0
    recording: str = ""


class Health(msgspec.Struct):
    """How well a container is: docker's Health, with its last checks."""

    status: str = "starting"
    failing: int = 0
    log: list[dict[str, Any]] = []


class State(msgspec.Struct):
    """What changes while a container lives.

    ``running`` is also True while it is paused, and while it waits to be started again (``restarting``). ``starting``:
    there may be a VM that nobody has heard of. ``stopped_by_user``: its restart policy does not apply. ``ports`` are
    those of the host that are published: protocol, address, port, port of the container. ``coming_from`` is the
    directory that a container had under the engine that moves it here, or says that this is on another host.
    ``going_to`` is where the engine is that it is being moved to, ``going_by`` the directory with the certificates for
    that, and ``going_engine`` that engine's id.
    ``awaits_log``: it has come from another host, and its log has not.
    """

    running: bool = False
    starting: bool = False
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = False
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started: str = ZERO
    finished: str = ZERO
    stopped_by_user: bool = False
    restarts: int = 0
    health: Health | None = None
    ports: list[tuple[str, str, int, int]] = []
    coming_from: str = ""
    going_to: str = ""
    going_by: str = ""
    going_engine: str = ""
    awaits_log: bool = False

    @property
    def status(self) -> str:
        """The state in docker's word."""
        if self.dead:
            return "dead"
        if self.running:
            return "paused" if self.paused else "restarting" if self.restarting else "running"
        return "created" if self.started == ZERO else "exited"


class Record(msgspec.Struct):
    """A container as the database has it."""

    name: str
    definition: Definition
    state: State


class Records:
    """The database at ``path``, which is made if it does not exist. Any thread may use it. Raise RecordsError.

    A change survives the end of this process as soon as its method has returned. ``reserve`` is the room that lets a
    container be removed when the disk is full.
    """

    def __init__(self, path: str) -> None:
        self.reserve = Reserve(f"{path}-reserve")
        self._database = Database(path, _TABLES, _VERSION, RecordsError, VARIABLE)
        try:
            self.reserve.take()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def _writing(self) -> AbstractContextManager[sqlite3.Connection]:
        # The host's crash may cost the last changes, and does no damage; this process's end costs nothing.
        return self._database.writing(durable=False)

    def all(self) -> list[Record]:
        """Return all containers, in the order in which they were made."""
        rows = self._database.rows("SELECT name, definition, state FROM containers ORDER BY rowid")
        decode = msgspec.json.decode
        return [Record(name, decode(made, type=Definition), decode(state, type=State)) for name, made, state in rows]

    def add(self, record: Record) -> None:
        """Keep a new container."""
        made, state = (msgspec.json.encode(one).decode() for one in (record.definition, record.state))
        with self._writing() as database:
            database.execute(
                "INSERT INTO containers (id, name, definition, state) VALUES (?, ?, ?, ?)",
                (record.definition.id, record.name, made, state),
            )

    def save_state(self, record: Record) -> None:
        """Keep the state that a container has now."""
        state = msgspec.json.encode(record.state).decode()
        with self._writing() as database:
            database.execute("UPDATE containers SET state = ? WHERE id = ?", (state, record.definition.id))

    def save_definition(self, record: Record) -> None:
        """Keep the name and the definition that a container has now."""
        made = msgspec.json.encode(record.definition).decode()
        with self._writing() as database:
            database.execute(
                "UPDATE containers SET name = ?, definition = ? WHERE id = ?", (record.name, made, record.definition.id)
            )

    def remove(self, id: str) -> None:
        """Forget a container, also when the disk is full."""
        with self.reserve.given(), self._writing() as database:
            database.execute("DELETE FROM containers WHERE id = ?", (id,))
