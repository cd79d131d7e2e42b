"""What the next engine has to know of a container that runs, if this one is killed: a small file that outlives its
process, and not its host. It is written often, so it is no part of the database.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import Final, NamedTuple

from dbt.containers.runtime.spec import Ended

_POSITION: Final = struct.Struct("<Q")
_END: Final = struct.Struct("<BiB")  # whether it has ended, its exit code, and whether memory was the reason


class Notes(NamedTuple):
    """``place`` is the position in what the guest sends up to which its output is in the log, if that is known.
    ``ended`` is how the container has ended, although its record does not say it.
    """

    place: int | None = None
    ended: Ended | None = None


class RunningNotes:
    """The file ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> Notes:
        data = b""
        with suppress(FileNotFoundError), open(self._path, "rb") as file:
            data = file.read(_POSITION.size + _END.size)
        if len(data) < _POSITION.size:
            return Notes()
        (place,) = _POSITION.unpack_from(data)
        if len(data) < _POSITION.size + _END.size:
            return Notes(place)
        has_ended, code, oom_killed = _END.unpack_from(data, _POSITION.size)
        return Notes(place, Ended(code, bool(oom_killed)) if has_ended else None)

    def forget(self) -> None:
        """Have none, as another guest begins."""
        self.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def note_place(self, position: int) -> None:
        """Raise OSError."""
        self._write(_POSITION.pack(position), 0)

    def note_end(self, ended: Ended) -> None:
        """Raise OSError."""
        self._write(_END.pack(1, ended.exit_code, ended.oom_killed), _POSITION.size)

    def _write(self, data: bytes, at: int) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.pwrite(self._file, data, at)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
