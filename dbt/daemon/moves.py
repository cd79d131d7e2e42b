"""What a daemon remembers of migrations: whose machine it was in the end, for the other daemon that may ask.

It outlives a daemon that is killed, and is changed while guests stand still, so it is a small file for each migration
and not the database: nothing waits for the disk. If the whole host ends, the machines are gone with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from enum import Enum
from typing import Final
from uuid import UUID

import msgspec

#: How long a migration is remembered that is decided, in seconds, and how many are.
_KEPT_S: Final = 7 * 24 * 3600
_MOST: Final = 4096
_NEW: Final = ".new"


class Whose(Enum):
    """Whose a machine is, as far as this daemon knows."""

    #: It is not decided, or was not when this was written.
    OPEN = "open"
    HERE = "here"
    #: It is not this daemon's, and will not be.
    THERE = "there"


class Moved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One migration.

    - ``number``: that of the migration, and ``domain`` the UUID of what is moved.
    - ``is_source``: whether it goes away from here.
    - ``peers``: where the other daemon takes machines, and may be asked. ``credentials`` and ``plain`` are as in
      :class:`dbt.hypervisor.migration.transport.Place`.
    - ``persistent``: whether the definition stays here when the machine is gone.
    - ``paused``: whether its user had paused it.
    """

    number: bytes
    domain: UUID
    is_source: bool
    whose: Whose
    peers: tuple[str, ...] = ()
    credentials: str = ""
    plain: bool = False
    persistent: bool = False
    paused: bool = False


class Moves:
    """The migrations that are remembered in a directory, which is made if it does not exist. Any thread may use it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._known = dict(self._read())

    def put(self, moved: Moved) -> None:
        """Remember a migration, in the place of what was known of it."""
        path = self._path(moved.number)
        with open(f"{path}{_NEW}", "wb") as file:
            file.write(msgspec.msgpack.encode(moved))
        os.replace(f"{path}{_NEW}", path)
        self._known[moved.number] = moved

    def get(self, number: bytes) -> Moved | None:
        """Return what is known of the migration with this number."""
        return self._known.get(number)

    def decide(self, number: bytes, whose: Whose) -> None:
        """Remember whose the machine of a migration is, if that is remembered."""
        moved = self.get(number)
        if moved is not None and moved.whose is not whose:
            self.put(msgspec.structs.replace(moved, whose=whose))

    def all(self) -> list[Moved]:
        """Return all migrations that are remembered, from the oldest on."""
        return list(self._known.values())

    def last_of(self, domain: UUID) -> Moved | None:
        """Return the last migration of a domain."""
        return next((moved for moved in reversed(self.all()) if moved.domain == domain), None)

    def _path(self, number: bytes) -> str:
        return os.path.join(self._directory, number.hex())

    def _read(self) -> Iterator[tuple[bytes, Moved]]:
        """Yield the migrations that are remembered. Forget those of which nobody will ask any more."""
        found = sorted((entry.stat().st_mtime, entry.path) for entry in os.scandir(self._directory))
        oldest = time.time() - _KEPT_S
        for left, (changed, path) in zip(range(len(found), 0, -1), found, strict=True):
            moved = None if path.endswith(_NEW) else _decoded(path)
            if moved is None or (moved.whose is not Whose.OPEN and (changed < oldest or left > _MOST)):
                os.unlink(path)
            else:
                yield moved.number, moved


def _decoded(path: str) -> Moved | None:
    """Return the migration in a file, or None if it has none that this version understands."""
    with open(path, "rb") as file:
        try:
            return msgspec.msgpack.decode(file.read(), type=Moved)
        except msgspec.DecodeError:
            return None
