"""How the two sides of a migration reach each other: ``unix:PATH`` or ``tcp:HOST:PORT``, with TLS where others listen.

Credentials are in a directory under the names that QEMU's tls-creds-x509 has: ``ca-cert.pem``, and for either side
``server-cert.pem`` and ``server-key.pem`` or ``client-cert.pem`` and ``client-key.pem``. Each side proves who it is to
the other. Without them TCP is accepted on the loopback alone, unless the user says ``plain``: whoever can read the line
reads the guest's memory, and whoever can connect has this host run a machine of theirs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from typing import Final, NamedTuple

from dbt.host.endpoint import Endpoint, Listener, WrongEndpoint, describe
from dbt.hypervisor.migration.channel import TIMEOUT_S, Channel
from dbt.hypervisor.migration.errors import MigrationError
from dbt.memory.closing import Closing

_CA: Final = "ca-cert.pem"


class Place(NamedTuple):
    """Where a destination listens, and how the two sides trust each other.

    - ``credentials``: the directory with certificates and keys, or an empty text for no TLS.
    - ``plain``: whether TCP without TLS may leave this host.
    """

    endpoint: Endpoint
    credentials: str = ""
    plain: bool = False

    @classmethod
    def parse(cls, text: str, credentials: str = "", plain: bool = False) -> Place:
        """Return the place that ``unix:PATH`` or ``tcp:HOST:PORT`` names, to which ``,plain`` may be added. Raise
        WrongEndpoint for another text, for credentials that have no use, and for TCP without TLS to another host.
        """
        if text.startswith("tcp:") and text.endswith(",plain"):
            text, plain = text.removesuffix(",plain"), True
        if text.startswith("unix:"):
            if credentials:
                raise WrongEndpoint(f"{text}: a unix socket needs no TLS: it is open to this user alone")
            return cls(Endpoint.parse(text))
        if not text.startswith("tcp:"):
            raise WrongEndpoint(f"{text}: write unix:PATH or tcp:HOST:PORT")
        endpoint = Endpoint.parse(text)
        if not credentials and not plain and not _is_loopback(endpoint.host):
            raise WrongEndpoint(
                f"{text}: a machine's memory does not leave this host without TLS. Give the directory with the "
                "certificates, or say that the line is a safe one (plain)"
            )
        return cls(endpoint, credentials, plain)

    @property
    def is_local(self) -> bool:
        """Whether it is on this host for certain."""
        return bool(self.endpoint.path)

    @property
    def text(self) -> str:
        """The place as :meth:`parse` reads it, but for how the two sides trust each other."""
        host, port, path = self.endpoint
        if path:
            return f"unix:{os.path.abspath(path)}"
        return f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"

    def at(self, host: str) -> Place:
        """Return the same at another host."""
        return self._replace(endpoint=self.endpoint._replace(host=host))

    def connect(self) -> Channel:
        """Return a channel to the destination. Raise MigrationError if it is not there, or not whom we trust."""
        try:
            return Channel(self.connection())
        except OSError as error:
            raise MigrationError(f"cannot connect to the destination: {error.strerror or error}") from None

    def connection(self) -> socket.socket:
        """Return a connection to whoever listens there. Raise OSError if nobody does, and MigrationError if it is not
        whom we trust.
        """
        context = self.context(is_server=False) if self.credentials else None
        connection = self.endpoint.connect()
        return connection if context is None else _with_tls(connection, context, server_hostname=self.endpoint.host)

    def context(self, is_server: bool) -> ssl.SSLContext:
        """Return what TLS is spoken with. Raise MigrationError if the directory has not what it takes."""
        side = "server" if is_server else "client"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(os.path.join(self.credentials, _CA))
            context.load_cert_chain(*(os.path.join(self.credentials, f"{side}-{what}.pem") for what in ("cert", "key")))
        except (OSError, ssl.SSLError) as error:
            raise MigrationError(
                f"{self.credentials}: the certificates cannot be used: {error.strerror or error}. There have to be "
                f"{_CA}, {side}-cert.pem and {side}-key.pem"
            ) from None
        return context


class Door(Closing):
    """Where a destination listens. Raise OSError if the host refuses."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._context = place.context(is_server=True) if place.credentials else None
        self._listener: Listener = place.endpoint.listen()

    @property
    def address(self) -> str:
        """Where the source finds it."""
        kind = "unix" if self._listener.family == socket.AF_UNIX else "tcp"
        return f"{kind}:{describe(self._listener)}"

    def wait(self, timeout: float | None = None) -> socket.socket:
        """Return the connection of whoever connects. Raise TimeoutError after so many seconds."""
        self._listener.settimeout(timeout)
        connection, _ = self._listener.accept()
        return connection

    def channel(self, connection: socket.socket) -> Channel:
        """Return a channel over a connection. Raise MigrationError for somebody who cannot prove who they are."""
        if self._context is None:
            return Channel(connection)
        return Channel(_with_tls(connection, self._context, server_side=True))

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        """Listen no longer, also where a thread waits. A second call does nothing."""
        if self._listener.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _with_tls(
    connection: socket.socket, context: ssl.SSLContext, server_side: bool = False, server_hostname: str | None = None
) -> ssl.SSLSocket:
    connection.settimeout(TIMEOUT_S)
    try:
        return context.wrap_socket(connection, server_side=server_side, server_hostname=server_hostname)
    except OSError as error:
        connection.close()
        raise MigrationError(f"the other side cannot be trusted: {error.strerror or error}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
