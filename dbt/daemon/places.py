"""Where the daemon keeps what it has, and where its socket is."""

from __future__ import annotations

import os
from typing import ClassVar

from dbt.daemon.service_places import ServicePlaces


class Places(ServicePlaces):
    """The directory with the database, saved machines and the log, and the path of the socket."""

    noun: ClassVar = "daemon"
    variable: ClassVar = "DBT_VM_DIR"
    folder: ClassVar = "vm"
    socket_name: ClassVar = "vm.sock"
    shorter: ClassVar = "Let DBT_VM_DIR name a directory with a shorter path"
    secret: ClassVar = ": who can reach the socket controls the machines"

    @property
    def migration_socket(self) -> str:
        """Where daemons of this host send machines to."""
        return migration_socket(self.socket)

    @property
    def database(self) -> str:
        return self.of("vm.sqlite")

    @property
    def states(self) -> str:
        """The directory of saved machines and snapshots."""
        return self.of("states")

    @property
    def disks(self) -> str:
        """The directory of the disks that other daemons copy to this one."""
        return self.of("disks")

    @property
    def moves(self) -> str:
        """The directory of what is remembered of migrations."""
        return self.of("moves")

    def prepare(self) -> None:
        """Make the directories, which nobody but this user may enter. Raise PlacesError."""
        self.make_private((self.directory, self.states, self.disks, self.leases, os.path.dirname(self.socket)))
        self.check_socket(self.migration_socket)


def migration_socket(socket: str) -> str:
    """Return where the daemon with the socket ``socket`` takes machines."""
    return f"{socket.removesuffix('.sock')}-in.sock"
