"""``dbt xenstore``: looks at the XenStore of a domain of Xen, and changes it.

The domain is one of ``dbt vm``, or what ``dbt run --xen --xenstore`` runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from typing import Final

from dbt.cli.status import CommandError, Status
from dbt.host.endpoint import Endpoint, WrongEndpoint
from dbt.hypervisor.xen.store.server import Type, message
from dbt.hypervisor.xen.store.transaction_log import HEADER, LARGEST_PAYLOAD
from dbt.inspector.symbols import printable

OPERATIONS: Final = {"ls": Type.DIRECTORY, "read": Type.READ, "write": Type.WRITE, "rm": Type.RM, "watch": Type.WATCH}
_MEANINGS: Final = {
    "ENOENT": "there is no such node (a domain has its nodes when its kernel has looked for Xen)",
    "EINVAL": "this is no path of a node",
    "EEXIST": "it is there already",
    "EBUSY": "as many programs are connected as can be",
    "E2BIG": "there is more than an answer can hold",
}
_TOKEN: Final = b"dbt"


def xenstore(domain: str, operation: str, node: str, value: str | None) -> int:
    """Do an operation on a node, and print what it returns. ``watch`` goes on until the domain ends, or Ctrl-C.

    ``domain`` is a domain of ``dbt vm``, or the path of a socket.
    """
    place = domain if "/" in domain or domain.startswith("unix:") or _is_socket(domain) else _place_of(domain)
    payload = os.fsencode(node) + b"\0"
    if operation == "write":
        payload += os.fsencode(value or "")
    elif operation == "watch":
        payload += _TOKEN + b"\0"
    if len(payload) > LARGEST_PAYLOAD:
        raise CommandError(f"NODE and VALUE have at most {LARGEST_PAYLOAD - 1} bytes together.", Status.USAGE)
    with _connected(place) as connection:
        with contextlib.suppress(ConnectionError):  # what is received says why
            connection.sendall(message(OPERATIONS[operation], 1, 0, payload))
        while True:
            kind, data = _receive(connection, place)
            match kind:
                case Type.ERROR:
                    name = data.rstrip(b"\0").decode("latin-1")
                    raise CommandError(f"{operation} {node}: XenStore says {_explained(name)}.", Status.FAILURE)
                case Type.WATCH_EVENT:
                    _print(data.partition(b"\0")[0])
                case Type.WATCH:
                    pass
                case Type.DIRECTORY:
                    for child in data.split(b"\0")[:-1]:
                        _print(child)
                    return 0
                case Type.READ:
                    _print(data)
                    return 0
                case _:
                    return 0


def _explained(name: str) -> str:
    """Return XenStore's name of an error, with what it means for what a user has typed."""
    meaning = _MEANINGS.get(name)
    return name if meaning is None else f"{name}: {meaning}"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _place_of(domain: str) -> str:
    """Return the socket of a domain's XenStore."""
    from dbt.cli.vm.connection import ask, of_domain

    found = ask("GET", of_domain(domain))["xenstore"]
    if found is None:
        raise CommandError(f"{domain} is no domain of Xen that has a machine, so it has no XenStore.", Status.FAILURE)
    return f"unix:{found}"


def _connected(place: str) -> socket.socket:
    try:
        connection = Endpoint.parse(place if place.startswith("unix:") else f"unix:{place}").connect()
    except WrongEndpoint as error:
        raise CommandError(f"{error}.", Status.USAGE) from None
    except OSError as error:
        message_ = f"{place}: no domain's XenStore is there: {error.strerror or error}."
        raise CommandError(message_, Status.FAILURE) from None
    connection.settimeout(None)
    return connection


def _receive(connection: socket.socket, place: str) -> tuple[int, bytes]:
    """Return type and payload of the next message."""
    kind, _, _, size = HEADER.unpack(_receive_bytes(connection, HEADER.size, place))
    return kind, _receive_bytes(connection, size, place)


def _receive_bytes(connection: socket.socket, size: int, place: str) -> bytes:
    data = b""
    while len(data) < size:
        try:
            piece = connection.recv(size - len(data))
        except ConnectionError:
            piece = b""
        if not piece:
            raise CommandError(f"{place}: the domain has ended.", Status.FAILURE)
        data += piece
    return data


def _print(text: bytes) -> None:
    """Print what the guest may have written: as it is, but nothing that a terminal would obey."""
    if sys.stdout.isatty():
        text = printable(text.decode(errors="replace")).encode()
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.buffer.flush()
