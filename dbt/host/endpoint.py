"""Where somebody connects from outside, or where the other side listens: ``[tcp:][HOST:]PORT`` or ``unix:PATH``."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
#: The longest path that a unix socket can have, and the longest last part of one that is reached by its directory.
LONGEST_PATH, _LONGEST_NAME = 107, 80
#: The most connections that wait to be accepted. Others to a unix socket are refused at once if they have a timeout.
_BACKLOG = 128
#: The seconds after which somebody who does not answer counts as not there.
_CONNECT_TIMEOUT_S = 10.0


class WrongEndpoint(ValueError):
    """Raised for a text that names no place to listen at. The message is one paragraph."""


class Listener(socket.socket):
    """A listening socket. A unix socket's path is removed when it is closed, unless it is somebody else's by then."""

    _path = ""
    _file: tuple[int, int] | None = None  # device and inode of what is at the path

    def listen_at(self, path: str) -> None:
        """Listen at a path, which may be longer than that of a socket can be. Raise OSError if something is there.

        A socket that is bound, and does not listen yet, looks as one that somebody has abandoned. So it is at the path
        only when it listens.
        """
        first = os.path.join(os.path.dirname(path), f".{os.urandom(8).hex()}")
        with _reachable(first) as address:
            self.bind(address)
        try:
            self.listen(_BACKLOG)
            os.link(first, path, follow_symlinks=False)
        except FileExistsError:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path) from None
        finally:
            os.unlink(first)
        self._path, self._file = path, _identity(path)

    @property
    def path(self) -> str:
        """The path of a unix socket."""
        return self._path

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

        Without a host it is this host alone. An IPv6 address stands in brackets. ``tcp:`` may stand before, as in QEMU.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if "\0" in path or not 1 <= len(os.fsencode(os.path.basename(path))) <= _LONGEST_NAME:
                raise WrongEndpoint(f"{text}: a unix socket has a path, and a name of 1 to {_LONGEST_NAME} bytes in it")
            return cls(path=path)
        host, colon, digits = text.removeprefix("tcp:").rpartition(":")
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
            with _reachable(self.path) as address:
                connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection


def accepted(listener: socket.socket) -> socket.socket:
    """Return a connection that waits at a listener which does not wait itself. The connection does not wait either. A
    jailed process may call it. Raise OSError if there is none.
    """
    connection, _ = listener.accept()
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_NONBLOCK)
    return connection


def describe(listener: socket.socket) -> str:
    """Return where a socket listens, as gdb's ``target remote`` takes it."""
    if isinstance(listener, Listener) and listener.path:
        return listener.path
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(name)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


@contextlib.contextmanager
def _reachable(path: str) -> Iterator[str]:
    """Give a path by which a unix socket can be reached: the path itself or, if it is too long, one that goes by its
    open directory.
    """
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    directory = os.open(folder or ".", os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)


def _listen_unix(path: str) -> Listener:
    """Listen at a path, for this user alone. A socket that nobody listens at any more is replaced."""
    remove_abandoned(path)
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.listen_at(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def remove_abandoned(path: str) -> None:
    """Remove a unix socket that nobody listens at any more. Raise OSError for what is none, which stays."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file of that name, which is no socket", path)
    except FileNotFoundError:
        return
    found = _identity(path)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)  # somebody with a full queue would have us wait
        try:
            with _reachable(path) as address:
                probe.connect(address)
        except ConnectionRefusedError:
            if _identity(path) == found:  # and not the one of somebody who has replaced it meanwhile
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
