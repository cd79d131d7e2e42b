"""What a daemon remembers of migrations: whose machine it was in the end, for the other daemon that may ask.

It outlives a daemon that is killed, and is changed while guests stand still, so it is a small file for each migration
and not the database: nothing waits for the disk. If the whole host ends, the machines are gone with it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from enum import Enum
from itertools import islice
from threading import Lock
from typing import Final
from uuid import UUID

import msgspec

#: How long a migration is remembered that is decided, in seconds, and how many are.
_KEPT_S: Final = 7 * 24 * 3600
_MOST: Final = 4096
#: How many are forgotten at most when another one is remembered, because a guest may stand still meanwhile.
_AT_ONCE: Final = 4
_NEW: Final = ".new"
_log = logging.getLogger(__name__)


class Whose(Enum):
    """Whose a machine is, as far as this daemon knows. All words have one length: see :meth:`Moves.decide`."""

    #: It is not decided, or was not when this was written.
    OPEN = "open"
    HERE = "here"
    #: It is not this daemon's, and will not be.
    THERE = "away"


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
    """The migrations that are remembered in a directory, which is made if it does not exist. Any thread may use it.

    What is decided is forgotten when it is old, or when there is too much of it. What is open is not.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = Lock()
        self._known: dict[bytes, Moved] = {}
        self._decided: dict[bytes, float] = {}  # when each was, by the host's time of day, from the oldest on
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for changed, moved in self._read():
            self._note(moved, changed)
        self._forget(len(self._known))

    def put(self, moved: Moved) -> None:
        """Remember a migration, in the place of what was known of it. Forget some of which nobody will ask any more.
        Raise OSError.
        """
        path = self._path(moved.number)
        with self._lock:
            with open(f"{path}{_NEW}", "wb") as file:
                file.write(msgspec.msgpack.encode(moved))
            os.replace(f"{path}{_NEW}", path)
            self._note(moved, time.time())
            self._forget(_AT_ONCE)

    def _note(self, moved: Moved, changed: float) -> None:
        self._known[moved.number] = moved
        self._decided.pop(moved.number, None)
        if moved.whose is not Whose.OPEN:
            self._decided[moved.number] = changed

    def _forget(self, most: int) -> None:
        """Forget at most so many migrations of which nobody will ask any more."""
        oldest = time.time() - _KEPT_S
        for number, changed in list(islice(self._decided.items(), most)):
            if changed >= oldest and len(self._decided) <= _MOST:
                return
            os.unlink(self._path(number))
            del self._known[number], self._decided[number]

    def get(self, number: bytes) -> Moved | None:
        """Return what is known of the migration with this number."""
        return self._known.get(number)

    def decide(self, number: bytes, whose: Whose) -> None:
        """Remember whose the machine of a migration is, if that is remembered. What cannot be written is known to this
        daemon alone; the next one finds it out.
        """
        moved = self.get(number)
        if moved is None or moved.whose is whose:
            return
        moved = msgspec.structs.replace(moved, whose=whose)
        with self._lock:
            self._note(moved, time.time())
            try:
                self._overwrite(moved)
                self._forget(_AT_ONCE)
            except OSError as error:
                _log.error("it cannot be written whose the machine of %s is now: %s", moved.domain, error)

    def _overwrite(self, moved: Moved) -> None:
        """Write what differs in one word from what is in the file. A guest stands still, and some file systems write a
        file to the disk that takes the place of another one.
        """
        file = os.open(self._path(moved.number), os.O_WRONLY)
        try:
            os.write(file, msgspec.msgpack.encode(moved))
        finally:
            os.close(file)

    def all(self) -> list[Moved]:
        """Return all migrations that are remembered, from the oldest on."""
        with self._lock:
            return list(self._known.values())

    def last_of(self, domain: UUID) -> Moved | None:
        """Return the last migration of a domain."""
        return next((moved for moved in reversed(self.all()) if moved.domain == domain), None)

    def _path(self, number: bytes) -> str:
        return os.path.join(self._directory, number.hex())

    def _read(self) -> Iterator[tuple[float, Moved]]:
        """Yield the migrations that are remembered, from the oldest on, and when each was changed. Remove files that
        have none, and leave alone what is no file.
        """
        with os.scandir(self._directory) as entries:
            found = [(entry.stat().st_mtime, entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
        for changed, path in sorted(found):
            moved = None if path.endswith(_NEW) else _decoded(path)
            if moved is None or path != self._path(moved.number):
                os.unlink(path)
            else:
                yield changed, moved


def _decoded(path: str) -> Moved | None:
    """Return the migration in a file, or None if it has none that this version understands."""
    with open(path, "rb") as file:
        try:
            return msgspec.msgpack.decode(file.read(), type=Moved)
        except msgspec.DecodeError:
            return None
