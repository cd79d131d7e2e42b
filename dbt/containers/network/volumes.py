"""Named directories that outlive containers: where they are, and what is remembered of them.

A volume's files are in the directory ``_data`` of one that has its name. The record comes after the directory and goes
before it, so that a process which is killed leaves a directory that belongs to nobody at worst; the next start removes
it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import msgspec

from dbt.containers import VARIABLE
from dbt.containers.network.errors import Conflict, Forbidden, Invalid, NetworkFailure, NotFound
from dbt.daemon.database import Database

_VERSION: Final = 1
_TABLES: Final = "CREATE TABLE volumes (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;"
_DATA: Final = "_data"
_RECORDS: Final = "metadata.db"
_CHARACTERS: Final = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME: Final = re.compile(rf"{_CHARACTERS}+")
_LONGEST_NAME: Final = 255
#: The label that docker gives volumes whose names nobody has chosen.
ANONYMOUS: Final = "com.docker.volume.anonymous"


@dataclass(frozen=True)
class Volume:
    """A volume. ``created`` is in seconds since 1970, and ``path`` the directory with its files."""

    name: str
    path: str
    created: float
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    driver: str = "local"

    @property
    def is_anonymous(self) -> bool:
        return ANONYMOUS in self.labels


class Volumes:
    """The volumes below ``folder``, which is made if it does not exist. Any thread may use them."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.abspath(folder)
        try:
            os.makedirs(self._folder, 0o711, exist_ok=True)
        except OSError as error:
            raise NetworkFailure(f"the directory of volumes {folder} cannot be made: {error.strerror}") from None
        self._database = Database(os.path.join(self._folder, _RECORDS), _TABLES, _VERSION, NetworkFailure, VARIABLE)
        self._remove_unrecorded()

    def close(self) -> None:
        self._database.close()

    def _remove_unrecorded(self) -> None:
        """Remove what a process has left that was killed while it made or removed a volume."""
        names = {volume.name for volume in self.all()}
        for entry in os.scandir(self._folder):
            if entry.is_dir(follow_symlinks=False) and entry.name not in names:
                _remove_tree(entry.path)

    def all(self) -> list[Volume]:
        """Return all volumes, by their names."""
        rows = self._database.rows("SELECT record FROM volumes ORDER BY name")
        return [msgspec.json.decode(record, type=Volume) for (record,) in rows]

    def find(self, name: str) -> Volume:
        """Return the volume of that name. Raise NotFound."""
        rows = self._database.rows("SELECT record FROM volumes WHERE name = ?", name)
        if not rows:
            raise NotFound(f"get {name}: no such volume")
        return msgspec.json.decode(rows[0][0], type=Volume)

    def create(
        self,
        name: str = "",
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one that there is. Without a name it gets one that is nobody else's. Raise
        Invalid for a name that cannot be one, Conflict for one that has another driver, and NetworkFailure if the host
        has no room.
        """
        labels = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            labels[ANONYMOUS] = ""
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        _check_name(name)
        _check_options(name, options or {})
        with self._database.writing() as database:
            try:
                return self.find(name)
            except NotFound:
                volume = Volume(name, os.path.join(self._folder, name, _DATA), time.time(), labels, dict(options or {}))
                self._make(database, volume)
        return volume

    @staticmethod
    def _make(database: sqlite3.Connection, volume: Volume) -> None:
        try:
            os.makedirs(volume.path, 0o755)
            os.chmod(volume.path, 0o755)  # whatever the umask is
        except OSError as error:
            raise NetworkFailure(f"create {volume.name}: the directory cannot be made: {error.strerror}") from None
        database.execute(
            "INSERT INTO volumes VALUES (?, ?)", (volume.name, msgspec.json.encode(asdict(volume)).decode())
        )

    def remove(self, name: str, users: Callable[[str], Sequence[str]], force: bool = False) -> Volume | None:
        """Remove a volume and its files. ``users`` returns the ids of containers that have a volume. Raise Conflict if
        there are any, and NotFound, or return None with ``force``, if there is no such volume.
        """
        with self._database.writing() as database:
            try:
                volume = self.find(name)
            except NotFound:
                if force:
                    return None
                raise
            if found := users(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(found)}]")
            database.execute("DELETE FROM volumes WHERE name = ?", (name,))
        _remove_tree(os.path.dirname(volume.path))
        return volume

    def prune(
        self, users: Callable[[str], Sequence[str]], is_wanted: Callable[[Volume], bool] = lambda volume: True
    ) -> tuple[list[Volume], int]:
        """Remove the volumes that no container has and that are ``is_wanted``. Return them, and their bytes."""
        removed, room = [], 0
        for volume in self.all():
            if not is_wanted(volume) or users(volume.name):
                continue
            size = self.size(volume)
            try:
                if self.remove(volume.name, users, force=True) is not None:
                    removed.append(volume)
                    room += size
            except Conflict:  # a container has just got it
                continue
        return removed, room

    @staticmethod
    def size(volume: Volume) -> int:
        """Return how many bytes the files of a volume have."""
        total, folders = 0, [volume.path]
        while folders:
            try:
                entries = list(os.scandir(folders.pop()))
            except OSError:  # it has gone, or a container lets nobody read it
                continue
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif stat.S_ISREG((found := entry.stat(follow_symlinks=False)).st_mode):
                        total += found.st_size
                except OSError:
                    continue
        return total


def _check_name(name: str) -> None:
    if len(name) < 2:
        raise Invalid(f"create {name}: volume name is too short, names should be at least two alphanumeric characters")
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise Invalid(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only "{_CHARACTERS}" are '
            "allowed. If you intended to pass a host directory, use absolute path"
        )
    if name == _RECORDS or name.startswith(f"{_RECORDS}-"):
        raise Conflict(f"create {name}: volume name is reserved")


def _check_options(name: str, options: Mapping[str, str]) -> None:
    """A volume is a directory: there is nothing that could be mounted."""
    for option in options:
        raise Forbidden(
            f'create {name}: the option "{option}" cannot be had: a volume is a directory below the engine\'s own, and '
            "nothing is mounted for it"
        )


def _remove_tree(path: str) -> None:
    """Remove a directory, also where a container has left directories that nobody may read or write."""
    try:
        try:
            shutil.rmtree(path)
        except PermissionError:
            for folder, names, _ in os.walk(path):
                for inside in (os.path.join(folder, name) for name in names):
                    if not os.path.islink(inside):
                        os.chmod(inside, 0o700)
            shutil.rmtree(path)
    except OSError as error:
        raise NetworkFailure(f"the files of the volume {os.path.basename(path)} cannot be removed: {error}") from None
