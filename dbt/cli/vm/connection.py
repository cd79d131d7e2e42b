"""The way to the daemon, which is started if there is none."""

from __future__ import annotations

import os
import sys
from typing import Any, Final
from urllib.parse import quote

from dbt.cli.status import CommandError, Status
from dbt.daemon.client import Client, RequestFailed
from dbt.daemon.places import Places, PlacesError

#: What a daemon that was started on demand says once others can connect.
READY: Final = b"ready\n"


def connect(starts: bool = True) -> Client:
    """Return a connection to this user's daemon. Unless ``starts`` is False, one is started if there is none."""
    places = Places.of_user()
    try:
        return Client(places.socket)
    except OSError as error:
        if not starts or not isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            raise _unreachable(places, error) from None
    try:
        return _started(places)
    except PlacesError as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None
    except OSError as error:
        raise _unreachable(places, error) from None


def ask(method: str, path: str, body: object = None, starts: bool = True) -> Any:
    """Return the daemon's answer to one request. Raise CommandError for an error."""
    client = connect(starts)
    try:
        return client.request(method, path, body)
    except RequestFailed as error:
        raise as_command_error(error) from None
    except ConnectionError as error:
        raise CommandError(
            f"the daemon has gone: {error}. Its log is {Places.of_user().log}.", Status.FAILURE
        ) from None
    finally:
        client.close()


def of_domain(name: str, *more: str) -> str:
    """Return the path of a domain, or of something of it."""
    return "/".join(("/v1/domains", quote(name, safe=""), *more))


def as_command_error(error: RequestFailed) -> CommandError:
    status = Status.FAILURE
    if error.status == 422:
        status = Status.BAD_INPUT
    elif error.status in (400, 404, 405):
        status = Status.USAGE
    return CommandError(str(error), status)


def _unreachable(places: Places, error: OSError) -> CommandError:
    text = (
        f"there is no daemon at {places.socket}: {error.strerror}. `dbt vm daemon` starts one; its log is {places.log}."
    )
    return CommandError(text, Status.FAILURE)


def _started(places: Places) -> Client:
    """Return a connection to a daemon that is started here, or that another process has started at the same time."""
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
    """Start a daemon, and wait until it is ready."""
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    command = [sys.executable, "-P", "-m", "dbt", "vm", "daemon", "--on-demand"]
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
        raise CommandError(text or f"the daemon has ended at once; its log is {places.log}.", Status.FAILURE)
