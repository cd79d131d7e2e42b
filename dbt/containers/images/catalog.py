"""The store's database: which layers and images there are, and what they are called. SQLite keeps it whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from dbt.containers.images.disk import no_room
from dbt.containers.images.errors import StoreError

_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE layers (diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT;
CREATE TABLE images (id TEXT PRIMARY KEY, document BLOB NOT NULL, parent TEXT, tagged REAL NOT NULL) STRICT;
CREATE TABLE names (name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images (id)) STRICT;
CREATE TABLE holds (owner TEXT NOT NULL, diff_id TEXT NOT NULL REFERENCES layers (diff_id),
                    PRIMARY KEY (owner, diff_id)) STRICT;
"""


class StoredImage(NamedTuple):
    """A row. ``names`` are full names with a tag or a digest."""

    id: str
    document: bytes
    parent: str | None
    tagged: float
    names: tuple[str, ...]


class Catalog:
    """The database at ``path``, which is made if it does not exist. The caller sees to it that one thread at a time
    uses it. Every method may raise StoreError. What is in a :meth:`change` is on the disk when that ends, or not done.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with _errors(path):
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            try:
                self._prepare(path)
            except BaseException:
                self._database.close()
                raise

    def _prepare(self, path: str) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("PRAGMA foreign_keys = ON")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise StoreError(f"{path} is of version {version} of the store of images, and this is version {_VERSION}")

    @contextmanager
    def change(self) -> Iterator[None]:
        """Do what is in the block in one transaction. In a block, another one is part of the outer."""
        if self._database.in_transaction:
            yield
            return
        with _errors(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    # -- layers ------------------------------------------------------------------------------------

    def layers(self) -> dict[str, int]:
        """Return the size of each layer."""
        with _errors(self._path):
            return dict(self._database.execute("SELECT diff_id, size FROM layers"))

    def add_layer(self, diff_id: str, size: int) -> None:
        self._database.execute("INSERT INTO layers VALUES (?, ?)", (diff_id, size))

    def remove_layers(self, diff_ids: Sequence[str]) -> None:
        for table in ("holds", "layers"):
            self._database.executemany(f"DELETE FROM {table} WHERE diff_id = ?", [(one,) for one in diff_ids])

    # -- holds -------------------------------------------------------------------------------------

    def holds(self) -> dict[str, set[str]]:
        """Return the layers that each owner holds."""
        found: dict[str, set[str]] = {}
        with _errors(self._path):
            for owner, diff_id in self._database.execute("SELECT owner, diff_id FROM holds"):
                found.setdefault(owner, set()).add(diff_id)
        return found

    def hold(self, owner: str, diff_ids: Iterable[str]) -> None:
        self._database.executemany("INSERT OR IGNORE INTO holds VALUES (?, ?)", [(owner, one) for one in diff_ids])

    def release(self, owner: str) -> None:
        self._database.execute("DELETE FROM holds WHERE owner = ?", (owner,))

    # -- images ------------------------------------------------------------------------------------

    def images(self) -> list[StoredImage]:
        names: dict[str, list[str]] = {}
        with _errors(self._path):
            for name, image in self._database.execute("SELECT name, image FROM names ORDER BY name"):
                names.setdefault(image, []).append(name)
            rows = self._database.execute("SELECT id, document, parent, tagged FROM images ORDER BY rowid").fetchall()
        return [
            StoredImage(image, document, parent, tagged, tuple(names.get(image, ())))
            for image, document, parent, tagged in rows
        ]

    def add_image(self, image: str, document: bytes, parent: str | None) -> None:
        self._database.execute("INSERT INTO images VALUES (?, ?, ?, 0)", (image, document, parent))

    def set_parent(self, image: str, parent: str) -> None:
        self._database.execute("UPDATE images SET parent = ? WHERE id = ?", (parent, image))

    def name(self, name: str, image: str, now: float) -> None:
        self._database.execute("INSERT OR REPLACE INTO names VALUES (?, ?)", (name, image))
        self._database.execute("UPDATE images SET tagged = ? WHERE id = ?", (now, image))

    def forget_name(self, name: str) -> None:
        self._database.execute("DELETE FROM names WHERE name = ?", (name,))

    def remove_image(self, image: str) -> None:
        self._database.execute("DELETE FROM names WHERE image = ?", (image,))
        self._database.execute("DELETE FROM images WHERE id = ?", (image,))

    def close(self) -> None:
        self._database.close()


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StoreError(no_room("the database of images", path)) from None
        raise StoreError(f"the database of images {path} cannot be used: {error}") from None
