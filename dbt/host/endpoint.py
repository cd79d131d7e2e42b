"""Where somebody connects from outside, or where the other side listens: ``[HOST:]PORT`` or ``unix:PATH``."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
#: The most connections that wait to be accepted.
_BACKLOG = 4
#: The seconds after which somebody who does not answer counts as not there.
_CONNECT_TIMEOUT_S = 10.0


class WrongEndpoint(ValueError):
    """Raised for a text that names no place to listen at. The message is one paragraph."""


class Listener(socket.socket):
    """A listening socket. A unix socket's path is removed when it is closed, unless it is somebody else's by then."""

    _path = ""
    _file: tuple[int, int] | None = None  # device and inode of what is at the path

    def bind(self, address: object) -> None:
        super().bind(address)  # type: ignore[arg-type]
        if isinstance(address, str):
            self._path, self._file = address, _identity(address)

    def close(self) -> None:
        if self._file is not None and _identity(self._path) == self._file:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._file = None
        super().close()


class Endpoint(NamedTuple):
    """A host and a TCP port, 0 for any that is free; or the path of a unix socket."""

    host: str = LOOPBACK
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Return the endpoint that a text names. Raises WrongEndpoint.

        Without a host it is this host alone. An IPv6 address stands in brackets.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path or "\0" in path or len(os.fsencode(path)) > 107:
                raise WrongEndpoint(f"{text}: the path of a unix socket has 1 to 107 bytes")
            return cls(path=path)
        host, colon, digits = text.rpartition(":")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5 and int(digits) <= 65535):
            raise WrongEndpoint(f"{text}: write PORT, HOST:PORT or unix:PATH; a port is a number up to 65535")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise WrongEndpoint(f"{text}: an IPv6 address stands in brackets, as in [::1]:1234")
        if colon and not host:
            host = LOOPBACK
        return cls(host or LOOPBACK, int(digits))

    def listen(self) -> Listener:
        """Return a listening socket. Raise OSError if the host refuses, or if the path is in use."""
        if self.path:
            return _listen_unix(self.path)
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = Listener(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def connect(self) -> socket.socket:
        """Return a socket that is connected to who listens here. Raise OSError if nobody does."""
        if not self.path:
            return socket.create_connection((self.host, self.port), _CONNECT_TIMEOUT_S)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CONNECT_TIMEOUT_S)
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection


def describe(listener: socket.socket) -> str:
    """Return where a socket listens, as gdb's ``target remote`` takes it."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(name)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


def _listen_unix(path: str) -> Listener:
    """Listen at a path, for this user alone. A socket that nobody listens at any more is replaced."""
    _remove_abandoned(path)
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener


def _remove_abandoned(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # to bind fails: the path is in use
    except OSError:
        return
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)  # somebody with a full queue would have us wait
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)
        except OSError:
            return


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
