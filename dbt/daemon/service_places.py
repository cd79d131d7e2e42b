"""Where a service of one user keeps what it has, and where its socket is: the daemon of machines, or of containers."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable
from time import monotonic, sleep
from typing import ClassVar, Final

from dbt.host.endpoint import LONGEST_PATH

#: How long a service may take to end, and how often it is looked whether it has, in seconds.
_ENDING_S: Final = 10.0
_LOOK_S: Final = 0.05


class PlacesError(OSError):
    """Raised for a directory that the service cannot use. The text says why, and what to do."""


class ServicePlaces(ABC):
    """The directory with everything that a service remembers, and the path of its socket.

    If the environment has ``variable``, everything is in the directory that it names. Otherwise the directory is
    ``folder`` in ``dbt`` in XDG_STATE_HOME, which is ``~/.local/state`` by default, and the socket is in ``dbt`` in
    XDG_RUNTIME_DIR, if that is set.
    """

    #: What texts call the service.
    noun: ClassVar[str]
    variable: ClassVar[str]
    folder: ClassVar[str]
    socket_name: ClassVar[str]
    #: What a user does about a socket whose path is too long.
    shorter: ClassVar[str]
    #: Why others may not enter the directory.
    secret: ClassVar[str] = ""

    def __init__(self, socket: str | None = None) -> None:
        """Find the places of this user, with another ``socket`` if one is given."""
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        if chosen := os.environ.get(self.variable):
            self.directory = os.path.abspath(chosen)
            runtime = None
        else:
            state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
            self.directory = os.path.join(os.path.abspath(state), "dbt", self.folder)
        usual = os.path.join(runtime, "dbt") if runtime else self.directory
        self.socket = os.path.abspath(socket) if socket else os.path.join(usual, self.socket_name)

    def of(self, name: str) -> str:
        """Return the path of something in the directory."""
        return os.path.join(self.directory, name)

    @property
    def lock(self) -> str:
        return self.of("lock")

    def take_lock(self) -> int | None:
        """Return the descriptor of the lock that one service at a time has, or None if another one has it. One that has
        it and does not listen is about to end, so this waits for it.
        """
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = monotonic() + _ENDING_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if monotonic() > end or self._is_listening():
                    os.close(descriptor)
                    return None
            sleep(_LOOK_S)

    def _is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.socket)
            except BlockingIOError:  # others wait to be accepted
                return True
            except OSError:
                return False
        return True

    @property
    def start_lock(self) -> str:
        """The file that a command locks while it starts the service."""
        return self.of("start-lock")

    @property
    def log(self) -> str:
        return self.of("log")

    @property
    def leases(self) -> str:
        """The directory by which the processes of machines are found again."""
        return self.of("machines")

    @abstractmethod
    def prepare(self) -> None:
        """Make the directories. Raise PlacesError."""

    def make_private(self, paths: Iterable[str]) -> None:
        """Make directories that nobody but this user may enter. Raise PlacesError."""
        for path in paths:
            self._make_private(path)

    def check_socket(self, path: str) -> None:
        """Raise PlacesError if a socket cannot have this path."""
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise PlacesError(
                f"the path of the {self.noun}'s socket has more than {LONGEST_PATH} bytes, which no socket can "
                f"have: {self.socket}. {self.shorter}"
            )

    def _make_private(self, path: str) -> None:
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            found = os.stat(path)
        except OSError as error:
            raise PlacesError(
                f"the {self.noun}'s directory {path} cannot be made: {error.strerror}. "
                f"Let {self.variable} name another one"
            ) from None
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PlacesError(
                f"the {self.noun}'s directory {path} can be entered by others than you{self.secret}. "
                f"Say `chmod 700 {path}`, or let {self.variable} name another one"
            )
