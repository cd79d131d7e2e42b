"""Where the engine keeps what it has, and where its socket is."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from dbt.containers import VARIABLE

#: The longest path of a unix socket, in bytes.
_LONGEST_SOCKET = 107


class PlacesError(OSError):
    """Raised for a directory that the engine cannot use. The text says why, and what to do."""


class Places(NamedTuple):
    """The directory with everything that the engine remembers, and the path of its socket."""

    directory: str
    socket: str

    @classmethod
    def of_user(cls, socket: str | None = None) -> Places:
        """Return the places of this user, with another ``socket`` if one is given.

        With the variable DBT_CONTAINER_DIR, everything is in that directory. Otherwise the directory is
        ``dbt/containers`` in XDG_STATE_HOME, which is ``~/.local/state`` by default, and the socket ``dbt/docker.sock``
        in XDG_RUNTIME_DIR, if that is set.
        """
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        if chosen := os.environ.get(VARIABLE):
            directory = os.path.abspath(chosen)
            usual = os.path.join(directory, "docker.sock")
        else:
            state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
            directory = os.path.join(os.path.abspath(state), "dbt", "containers")
            usual = os.path.join(runtime, "dbt", "docker.sock") if runtime else os.path.join(directory, "docker.sock")
        return cls(directory, os.path.abspath(socket) if socket else usual)

    def of(self, name: str) -> str:
        """Return the path of something in the directory."""
        return os.path.join(self.directory, name)

    @property
    def database(self) -> str:
        return self.of("containers.sqlite")

    @property
    def lock(self) -> str:
        return self.of("lock")

    @property
    def start_lock(self) -> str:
        """The file that a command locks while it starts the engine."""
        return self.of("start-lock")

    @property
    def log(self) -> str:
        return self.of("log")

    @property
    def images(self) -> str:
        """The directory of the image store."""
        return self.of("images")

    @property
    def volumes(self) -> str:
        """The directory of volumes."""
        return self.of("volumes")

    @property
    def spool(self) -> str:
        """The directory of archives on their way. It is emptied when the engine starts."""
        return self.of("spool")

    @property
    def leases(self) -> str:
        """The directory by which the VMs of containers are found again."""
        return self.of("machines")

    def container(self, id: str) -> str:
        """Return the directory of a container: its disk, its log, its checkpoints."""
        return os.path.join(self.directory, "containers", id)

    def prepare(self) -> None:
        """Make the directories, which nobody but this user may enter. Raise PlacesError.

        The directory of a socket that the user has chosen is made too, and may be entered by others: who connects has
        to be this user or root.
        """
        for path in (self.directory, self.volumes, self.spool, self.leases, self.of("containers")):
            _make_private(path)
        try:
            os.makedirs(os.path.dirname(self.socket), mode=0o700, exist_ok=True)
        except OSError as error:
            raise PlacesError(f"the directory of the socket {self.socket} cannot be made: {error.strerror}") from None
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise PlacesError(
                f"the path of the engine's socket has more than {_LONGEST_SOCKET} bytes, which no socket can have: "
                f"{self.socket}. Choose another one with --socket"
            )


def _make_private(path: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
    except OSError as error:
        raise PlacesError(
            f"the engine's directory {path} cannot be made: {error.strerror}. Let DBT_CONTAINER_DIR name another one"
        ) from None
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PlacesError(
            f"the engine's directory {path} can be entered by others than you. Say `chmod 700 {path}`, or let "
            "DBT_CONTAINER_DIR name another one"
        )
