"""Where a guest's serial line goes, as ``--serial`` says it in QEMU's words."""

from __future__ import annotations

from typing import NamedTuple

from dbt.host.endpoint import Endpoint, WrongEndpoint

_SWITCHES = {"": True, "on": True, "off": False, "yes": True, "no": False, "true": True, "false": False}


class SerialLine(NamedTuple):
    """The end of a serial line. ``kind`` is "stdio", "null", "file", "unix" or "tcp".

    ``place`` is a path or, for a socket, an endpoint as :meth:`dbt.host.endpoint.Endpoint.parse` reads it. A ``server``
    listens there, else the line connects to it. With ``waits``, the guest does not start before somebody has connected.
    """

    kind: str
    place: str = ""
    server: bool = False
    waits: bool = False

    @property
    def is_socket(self) -> bool:
        """True if the other end is a connection."""
        return self.kind in ("unix", "tcp")

    @classmethod
    def parse(cls, text: str) -> SerialLine:
        """Return what a text says. Raise WrongEndpoint, with one paragraph, if it says nothing.

        It is ``stdio``, ``null``, ``file:PATH``, or a socket with options (:func:`socket_options`).
        """
        kind, colon, rest = text.partition(":")
        if not colon and kind in ("stdio", "null"):
            return cls(kind)
        if kind == "file" and rest:
            return cls(kind, rest)
        if kind in ("unix", "tcp") and rest:
            place, server, waits = socket_options(text)
            place = place.removeprefix("tcp:")
            try:
                endpoint = Endpoint.parse(place)
            except WrongEndpoint as error:
                raise WrongEndpoint(f"{text}: {str(error).removeprefix(f'{place}: ')}") from None
            if not (server or endpoint.path or endpoint.port):
                raise WrongEndpoint(f"{text}: port 0 is for a server, which takes any that is free: add ,server")
            return cls(kind, place, bool(server), bool(server) if waits is None else waits)
        raise WrongEndpoint(f"{text}: write stdio, null, file:PATH, unix:PATH[,server] or tcp:HOST:PORT[,server]")


def socket_options(text: str) -> tuple[str, bool | None, bool | None]:
    """Return the parts of ``PLACE[,server[=on|off]][,wait[=on|off]][,nowait]``: the place, and what is said of server
    and wait, or None if nothing is. Raise WrongEndpoint.

    A comma of the place is written twice. ``nodelay`` is always on.
    """
    first, *options = (piece.replace("\0", ",") for piece in text.replace(",,", "\0").split(","))
    server: bool | None = None
    waits: bool | None = None
    for option in options:
        name, _, value = option.partition("=")
        if name.startswith("no") and name != "nodelay":
            name, value = name[2:], {"": "off"}.get(value, "?")
        switch = _SWITCHES.get(value)
        if switch is None or name not in ("server", "wait", "nodelay"):
            message = f"{text}: {option} is none of server, wait and nodelay, each with =on or =off"
            raise WrongEndpoint(message)
        if name == "server":
            server = switch
        elif name == "wait":
            waits = switch
    if waits is not None and not server:
        raise WrongEndpoint(f"{text}: wait is for a server: add ,server")
    return first, server, waits
