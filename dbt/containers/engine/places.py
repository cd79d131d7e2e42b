"""Where the engine keeps what it has, and where its socket is."""

from __future__ import annotations

import os
from typing import ClassVar

from dbt.containers import VARIABLE
from dbt.daemon.service_places import PlacesError, ServicePlaces


class Places(ServicePlaces):
    """The directory with everything that the engine remembers, and the path of its socket."""

    noun: ClassVar = "engine"
    variable: ClassVar = VARIABLE
    folder: ClassVar = "containers"
    socket_name: ClassVar = "docker.sock"
    shorter: ClassVar = "Choose another one with --socket"

    @property
    def database(self) -> str:
        return self.of("containers.sqlite")

    @property
    def images(self) -> str:
        """The directory of the image store."""
        return self.of("images")

    @property
    def volumes(self) -> str:
        """The directory of volumes."""
        return self.of("volumes")

    @property
    def recordings(self) -> str:
        """The directory of recordings of containers."""
        return self.of("recordings")

    @property
    def spool(self) -> str:
        """The directory of archives on their way. It is emptied when the engine starts."""
        return self.of("spool")

    def container(self, id: str) -> str:
        """Return the directory of a container: its disk, its log, its checkpoints."""
        return os.path.join(self.directory, "containers", id)

    def prepare(self) -> None:
        """Make the directories, which nobody but this user may enter. Raise PlacesError.

        The directory of a socket that the user has chosen is made too, and may be entered by others: who connects has
        to be this user or root.
        """
        self.make_private(
            (self.directory, self.volumes, self.spool, self.leases, self.recordings, self.of("containers"))
        )
        try:
            os.makedirs(os.path.dirname(self.socket), mode=0o700, exist_ok=True)
        except OSError as error:
            raise PlacesError(f"the directory of the socket {self.socket} cannot be made: {error.strerror}") from None
        self.check_socket(self.socket)
