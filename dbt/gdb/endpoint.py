"""Where the debugger connects: ``[HOST:]PORT`` or ``unix:PATH``."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import NamedTuple

LOOPBACK = "127.0.0.1"


class WrongEndpoint(ValueError):
    """Raised for a text that names no place to listen at. The message is one paragraph."""


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

    def listen(self) -> socket.socket:
        """Return a listening socket. Raise OSError if the host refuses, or if the path is in use."""
        if self.path:
            return _listen_unix(self.path)
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(4)
        except OSError:
            listener.close()
            raise
        return listener


def describe(listener: socket.socket) -> str:
    """Return where a socket listens, as gdb's ``target remote`` takes it."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(name)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


def _listen_unix(path: str) -> socket.socket:
    """Listen at a path, for this user alone. A socket that nobody listens at any more is replaced."""
    _remove_abandoned(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(4)
    return listener


def _remove_abandoned(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # to bind fails: the path is in use
    except OSError:
        return
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)
