"""Where the daemon keeps what it has, and where its socket is."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

#: The longest path of a unix socket, in bytes.
_LONGEST_SOCKET = 107


class PlacesError(OSError):
    """Raised for a directory that the daemon cannot use. The text says why, and what to do."""


class Places(NamedTuple):
    """The directory with the database, saved machines and the log, and the path of the socket."""

    directory: str
    socket: str

    @classmethod
    def of_user(cls) -> Places:
        """Return the places of this user.

        With the variable DBT_VM_DIR, everything is in that directory. Otherwise the directory is ``dbt/vm`` in
        XDG_STATE_HOME, which is ``~/.local/state`` by default, and the socket ``dbt/vm.sock`` in XDG_RUNTIME_DIR, if
        that is set.
        """
        if chosen := os.environ.get("DBT_VM_DIR"):
            directory = os.path.abspath(chosen)
            return cls(directory, os.path.join(directory, "vm.sock"))
        state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        directory = os.path.join(os.path.abspath(state), "dbt", "vm")
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        return cls(
            directory, os.path.join(runtime, "dbt", "vm.sock") if runtime else os.path.join(directory, "vm.sock")
        )

    @property
    def migration_socket(self) -> str:
        """Where daemons of this host send machines to."""
        return migration_socket(self.socket)

    @property
    def database(self) -> str:
        return os.path.join(self.directory, "vm.sqlite")

    @property
    def lock(self) -> str:
        return os.path.join(self.directory, "lock")

    @property
    def start_lock(self) -> str:
        """The file that a command locks while it starts the daemon."""
        return os.path.join(self.directory, "start-lock")

    @property
    def log(self) -> str:
        return os.path.join(self.directory, "log")

    @property
    def leases(self) -> str:
        """The directory by which the processes of machines are found again."""
        return os.path.join(self.directory, "machines")

    @property
    def states(self) -> str:
        """The directory of saved machines and snapshots."""
        return os.path.join(self.directory, "states")

    @property
    def disks(self) -> str:
        """The directory of the disks that other daemons copy to this one."""
        return os.path.join(self.directory, "disks")

    def prepare(self) -> None:
        """Make the directories, which nobody but this user may enter. Raise PlacesError."""
        for path in (self.directory, self.states, self.disks, self.leases, os.path.dirname(self.socket)):
            _make_private(path)
        if len(os.fsencode(self.migration_socket)) > _LONGEST_SOCKET:
            raise PlacesError(
                f"the path of the daemon's socket has more than {_LONGEST_SOCKET} bytes, which no socket can have: "
                f"{self.socket}. Let DBT_VM_DIR name a directory with a shorter path"
            )


def migration_socket(socket: str) -> str:
    """Return where the daemon with the socket ``socket`` takes machines."""
    return f"{socket.removesuffix('.sock')}-in.sock"


def _make_private(path: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.stat(path)
    except OSError as error:
        raise PlacesError(
            f"the daemon's directory {path} cannot be made: {error.strerror}. Let DBT_VM_DIR name another one"
        ) from None
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PlacesError(
            f"the daemon's directory {path} can be entered by others than you: who can reach the socket controls the "
            f"machines. Say `chmod 700 {path}`, or let DBT_VM_DIR name another one"
        )
