"""A SQLite database of records: any thread may use it, and each change is made as a whole or not at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import RLock
from typing import Any


class Database:
    """The database at ``path``, which is made of ``tables`` if it does not exist.

    Raise ``failure`` if the file is none of this ``version``, and where what is to be remembered cannot be written.
    ``variable`` is that of the environment which names another directory. ``steps`` have for older versions what makes
    the next one of them.
    """

    def __init__(
        self,
        path: str,
        tables: str,
        version: int,
        failure: type[Exception],
        variable: str,
        steps: Mapping[int, str] | None = None,
    ) -> None:
        self._path, self._failure, self._variable = path, failure, variable
        self._lock = RLock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise failure(f"the database {path} cannot be opened: {error}") from None
        try:
            self._prepare(tables, version, steps or {})
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, tables: str, version: int, steps: Mapping[int, str]) -> None:
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found == 0:
                self._connection.executescript(f"BEGIN; {tables} PRAGMA user_version = {version}; COMMIT;")
            while found and found < version and found in steps:
                self._connection.executescript(f"BEGIN; {steps[found]} PRAGMA user_version = {found + 1}; COMMIT;")
                found += 1
            if found not in (0, version):
                raise self._failure(
                    f"the database {self._path} has version {found}, and this dbt knows {version}: use the dbt that "
                    f"made it, or let {self._variable} name another directory"
                )
        except sqlite3.DatabaseError as error:
            text = f"the database {self._path} cannot be used: {error}. Move it away to begin anew"
            raise self._failure(text) from None

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise self._failure(f"the database {self._path} cannot be read: {error}") from None

    @contextmanager
    def writing(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Let nobody else read or write meanwhile. Afterwards the change is on the disk. If it is not ``durable``, it
        survives the end of this process, and may be lost when the host loses its power. Raise the failure if
        it cannot be written.
        """
        with self._lock:
            try:
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.IntegrityError:
                raise  # what is to be written breaks a rule: that is no fault of the file
            except sqlite3.DatabaseError as error:
                why = str(error)
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                    why = f"there is no room left on the disk of {os.path.dirname(self._path)}. Make some there"
                raise self._failure(f"the database {self._path} cannot be written: {why}") from None
            finally:
                if self._connection.in_transaction:  # SQLite itself ends one for which the disk has no room
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        with self._lock:
            self._connection.close()
