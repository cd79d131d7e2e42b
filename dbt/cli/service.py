"""The way from a command to a service of the same user, which is started if there is none."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

from dbt.cli.status import CommandError, Status
from dbt.daemon.client import Client
from dbt.daemon.service_places import PlacesError, ServicePlaces

#: What a service that was started on demand says once others can connect.
READY: Final = b"ready\n"


def send_input(connection: socket.socket, data: bytes) -> bool:
    """Send what was typed to a service. Return False at the end of it, or if nobody takes it any more."""
    try:
        if data:
            connection.sendall(data)
        else:
            connection.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return bool(data)


def reach(places: ServicePlaces, words: Sequence[str], open_: Callable[[str], Client], starts: bool = True) -> Client:
    """Return a connection to the service at ``places``, by ``open_`` from the path of its socket.

    Unless ``starts`` is False, one is started if there is none: by the command ``dbt`` with ``words``. Raise
    CommandError.
    """
    try:
        return open_(places.socket)
    except OSError as error:
        if not starts or not isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            raise _unreachable(places, words, error) from None
    try:
        return _started(places, words, open_)
    except PlacesError as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None
    except OSError as error:
        raise _unreachable(places, words, error) from None


def _unreachable(places: ServicePlaces, words: Sequence[str], error: OSError) -> CommandError:
    text = (
        f"there is no {places.noun} at {places.socket}: {error.strerror}. `dbt {' '.join(words)}` starts one; its log "
        f"is {places.log}."
    )
    return CommandError(text, Status.FAILURE)


def _started(places: ServicePlaces, words: Sequence[str], open_: Callable[[str], Client]) -> Client:
    """Return a connection to a service that is started here, or that another process has started at the same time."""
    import fcntl

    places.prepare()
    with open(places.start_lock, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return open_(places.socket)
        except (FileNotFoundError, ConnectionRefusedError):
            _start(places, words)
        return open_(places.socket)


def _start(places: ServicePlaces, words: Sequence[str]) -> None:
    """Start a service, and wait until it is ready."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    command = [sys.executable, "-P", "-m", "dbt", *words, "--on-demand"]
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsid=True)
    os.close(null)
    os.close(writer)
    said = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while not said.endswith(READY) and (piece := pipe.read(4096)):
            said += piece
    if not said.endswith(READY):
        text = said.decode(errors="replace").strip().removeprefix("dbt: ")
        raise CommandError(text or f"the {places.noun} has ended at once; its log is {places.log}.", Status.FAILURE)
