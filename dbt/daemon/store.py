"""What the daemon remembers when it ends: definitions, snapshots and saved machines, in one SQLite database."""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dbt.daemon.database import Database
from dbt.daemon.definition import Definition, plain, read_definition
from dbt.daemon.errors import DefinitionError, HostFailed
from dbt.daemon.places import Places

_VERSION: Final = 3
_TABLES: Final = """
CREATE TABLE domains (
    uuid TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL,
    made TEXT NOT NULL,
    persistent INTEGER NOT NULL,
    managed_save TEXT,
    paused INTEGER NOT NULL DEFAULT 0,
    restarts TEXT
) STRICT;
CREATE TABLE snapshots (
    domain TEXT NOT NULL REFERENCES domains (uuid) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created REAL NOT NULL,
    state TEXT NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (domain, name)
) STRICT;
"""
#: What makes the next version of an older one.
_STEPS: Final = {2: "ALTER TABLE domains ADD COLUMN restarts TEXT;"}


class StoredDomain(NamedTuple):
    """A domain as the database has it. ``made`` is the definition by which its machine was made, if it has one: the
    domain's may have changed since. ``managed_save`` is the snapshot with which its next start goes on. ``paused``: its
    user has suspended its machine, if it has one. ``restarts``: its machine is being ended for another one, which goes
    on from the snapshot of that path, or boots if that is empty.
    """

    definition: Definition
    made: Definition
    persistent: bool
    managed_save: str | None
    paused: bool
    restarts: str | None


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot of a domain: its name, when it was made in seconds since 1970, the domain's state then, the file."""

    name: str
    created: float
    state: str
    path: str


class Store:
    """The database at ``path``, which is made if it does not exist. Any thread may use it.

    Raise HostFailed if the file is none of this version's. Each change is on the disk when its method returns.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._database = Database(path, _TABLES, _VERSION, HostFailed, Places.variable, _STEPS)

    def close(self) -> None:
        self._database.close()

    def domains(self) -> list[StoredDomain]:
        """Return all domains, in the order in which they were defined."""
        rows = self._database.rows(
            "SELECT uuid, name, definition, made, persistent, managed_save, paused, restarts "
            "FROM domains ORDER BY rowid"
        )
        return [
            StoredDomain(
                self._definition(text, uuid, name),
                self._definition(made, uuid, name),
                bool(persistent),
                saved,
                bool(paused),
                restarts,
            )
            for uuid, name, text, made, persistent, saved, paused, restarts in rows
        ]

    def _definition(self, text: str, uuid: str, name: str) -> Definition:
        try:
            found = read_definition(msgspec.json.decode(text))
            if (str(found.uuid), found.name) != (uuid, name):
                raise DefinitionError(f"it is of another domain than {name}, whose UUID is {uuid}")
            return found
        except (msgspec.DecodeError, DefinitionError) as error:
            raise HostFailed(
                f"the database {self._path} has a domain with a definition that is none: {error}. Move it away to "
                "begin anew"
            ) from None

    def put(self, definition: Definition, made: Definition, persistent: bool, paused: bool = False) -> None:
        """Keep the definition of a domain with that UUID, in the place of an older one, and that of its machine. The
        machine of a new one is ``paused`` or not.
        """
        text, text_made = (msgspec.json.encode(plain(one)).decode() for one in (definition, made))
        with self._database.writing() as database:
            database.execute(
                "INSERT INTO domains (uuid, name, definition, made, persistent, paused) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (uuid) DO UPDATE SET name = excluded.name, definition = excluded.definition, "
                "made = excluded.made, persistent = excluded.persistent",
                (str(definition.uuid), definition.name, text, text_made, int(persistent), int(paused)),
            )

    def set_managed_save(self, uuid: UUID, path: str | None) -> None:
        """Say with which snapshot the next start goes on."""
        with self._database.writing() as database:
            database.execute("UPDATE domains SET managed_save = ? WHERE uuid = ?", (path, str(uuid)))

    def set_paused(self, uuid: UUID, paused: bool) -> None:
        """Say whether its user has suspended the machine of a domain."""
        with self._database.writing() as database:
            database.execute("UPDATE domains SET paused = ? WHERE uuid = ?", (int(paused), str(uuid)))

    def set_restarts(self, uuid: UUID, snapshot: str | None) -> None:
        """Say that a machine is about to be ended for another one, and where that goes on; or None when it is there."""
        with self._database.writing() as database:
            database.execute("UPDATE domains SET restarts = ? WHERE uuid = ?", (snapshot, str(uuid)))

    def remove(self, uuid: UUID) -> None:
        """Forget a domain, with its snapshots. Their files stay."""
        with self._database.writing() as database:
            database.execute("DELETE FROM domains WHERE uuid = ?", (str(uuid),))

    def snapshots(self, uuid: UUID) -> list[Snapshot]:
        """Return the snapshots of a domain, from the oldest on."""
        query = "SELECT name, created, state, path FROM snapshots WHERE domain = ? ORDER BY rowid"
        return [Snapshot(*row) for row in self._database.rows(query, str(uuid))]

    def saved_files(self) -> set[str]:
        """Return the paths of all saved machines and snapshots."""
        query = "SELECT managed_save FROM domains WHERE managed_save IS NOT NULL UNION SELECT path FROM snapshots"
        return {path for (path,) in self._database.rows(query)}

    def add_snapshot(self, uuid: UUID, snapshot: Snapshot) -> None:
        """Keep a snapshot of a domain that has none of that name."""
        with self._database.writing() as database:
            database.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)",
                (str(uuid), snapshot.name, snapshot.created, snapshot.state, snapshot.path),
            )

    def remove_snapshot(self, uuid: UUID, name: str) -> None:
        """Forget a snapshot. Its file stays."""
        with self._database.writing() as database:
            database.execute("DELETE FROM snapshots WHERE domain = ? AND name = ?", (str(uuid), name))
