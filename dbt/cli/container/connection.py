"""The way to the engine, which is started if there is none."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from dbt.cli.status import CommandError, Status
from dbt.containers.engine.client import Client, RequestFailed
from dbt.containers.engine.places import Places, PlacesError

#: What an engine that was started on demand says once others can connect.
READY: Final = b"ready\n"


def connect() -> Client:
    """Return a connection to this user's engine. One is started if there is none."""
    places = Places.of_user()
    try:
        return Client(places.socket)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    except OSError as error:
        raise _unreachable(places, error) from None
    try:
        return _started(places)
    except PlacesError as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None
    except OSError as error:
        raise _unreachable(places, error) from None


def ask(method: str, path: str, body: object = None, **query: object) -> Any:
    """Return the engine's answer to one request. Raise CommandError for an error."""
    try:
        with connect() as client:
            return client.ask(method, path, body, **query)
    except RequestFailed as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None
    except ConnectionError as error:
        raise CommandError(f"{error}. Its log is {Places.of_user().log}.", Status.FAILURE) from None


def _unreachable(places: Places, error: OSError) -> CommandError:
    text = f"there is no engine at {places.socket}: {error.strerror}. `dbt container serve` starts one."
    return CommandError(text, Status.FAILURE)


def _started(places: Places) -> Client:
    """Return a connection to an engine that is started here, or that another process has started at the same time."""
    import fcntl

    places.prepare()
    with open(places.start_lock, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return Client(places.socket)
        except (FileNotFoundError, ConnectionRefusedError):
            _start(places)
        return Client(places.socket)


def _start(places: Places) -> None:
    """Start an engine, and wait until it is ready."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    command = [sys.executable, "-P", "-m", "dbt", "container", "serve", "--on-demand"]
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
        raise CommandError(text or f"the engine has ended at once; its log is {places.log}.", Status.FAILURE)
