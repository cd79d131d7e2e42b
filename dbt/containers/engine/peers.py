"""Other engines: at a unix socket of this host, or where they take containers of other hosts, by TLS."""

from __future__ import annotations

import socket
from enum import Enum
from typing import Final, NamedTuple

from dbt.containers.engine.client import EngineClient
from dbt.containers.engine.errors import BadParameter, EngineError
from dbt.daemon.client import RequestFailed
from dbt.host.endpoint import WrongEndpoint
from dbt.hypervisor.migration import MigrationError, Place

#: Where containers on their way are spoken of, and the images that they need.
ARRIVALS: Final = "/dbt/arrivals"
IMAGES: Final = "/dbt/images"
#: How long another engine may take to say whether it has a container, in seconds.
_ANSWER_S: Final = 5.0
#: After so many seconds of silence it is looked whether the other host is there, and so often, so many seconds apart.
_IDLE_S, _PROBES, _INTERVAL_S = 30, 3, 10


class Standing(Enum):
    """How far a container is at an engine to which another one moves it."""

    UNKNOWN = "unknown"
    COMING = "coming"
    #: Its machine is here, and stands still, because this engine was killed before it was told whose it is.
    UNDECIDED = "undecided"
    HERE = "here"


class Peer(NamedTuple):
    """Another engine, and how it is reached."""

    place: Place

    @classmethod
    def parse(cls, text: str, credentials: str = "") -> Peer:
        """Return the engine at ``unix:///PATH`` or ``tcp://HOST:PORT``. For the latter, ``credentials`` are the
        directory with the certificates. Raise BadParameter.
        """
        kind, colon, rest = ("unix", ":", text) if text.startswith("/") else text.partition(":")
        if not colon or kind not in ("unix", "tcp"):
            raise BadParameter(f"the destination {text} is no engine: write unix:///PATH or tcp://HOST:PORT")
        path = rest.removeprefix("//")
        if kind == "unix" and not path.startswith("/"):
            raise BadParameter(f"the destination {text} is no engine: the path of a socket begins with /")
        if kind == "tcp" and not credentials:
            raise BadParameter(
                f"the destination {text} may be another host, and a container does not go there without TLS: give the "
                "directory with the certificates (--tls-creds)"
            )
        try:
            return cls(Place.parse(f"{kind}:{path}", credentials))
        except WrongEndpoint as error:
            raise BadParameter(f"the destination {text} is no engine: {error}") from None

    @property
    def is_local(self) -> bool:
        """Whether it is on this host for certain, and has the same files."""
        return self.place.is_local

    @property
    def text(self) -> str:
        """The engine as :meth:`parse` reads it."""
        return self.place.text

    def client(self) -> EngineClient:
        """Return a connection for one request. Raise OSError if there is no engine, MigrationError if it is not one
        that we trust.
        """
        connection = self.place.connection()
        connection.settimeout(None)
        if not self.is_local:  # a host that is switched off does not close its connections
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (
                (socket.TCP_KEEPIDLE, _IDLE_S),
                (socket.TCP_KEEPINTVL, _INTERVAL_S),
                (socket.TCP_KEEPCNT, _PROBES),
            ):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        return EngineClient(connection)

    def standing(self, container: str, engine: str) -> Standing:
        """Return how far a container is at the engine with an id. Raise EngineError if there is no telling."""
        found = self._answer("GET", container)
        if engine and found["Engine"] != engine:
            raise EngineError(f"at {self.text} is another engine now than the one that the container was going to")
        return Standing(found["Standing"])

    def keep_out(self, container: str) -> None:
        """Tell the engine that a container which is undecided there does not come. Raise EngineError if that fails."""
        self._answer("DELETE", container)

    def _answer(self, method: str, container: str) -> dict[str, str]:
        try:
            with self.client() as client:
                client.socket.settimeout(_ANSWER_S)
                return client.ask(method, f"{ARRIVALS}/{container}") or {}
        except (RequestFailed, MigrationError) as error:
            raise EngineError(f"the engine at {self.text} does not say it: {error}") from None
        except TimeoutError:
            raise EngineError(f"the engine at {self.text} does not answer") from None
        except OSError as error:
            raise EngineError(f"there is no engine at {self.text}: {error.strerror}") from None
