"""The way to the engine, which is started if there is none."""

from __future__ import annotations

from typing import Any

from dbt.cli.service import reach
from dbt.cli.status import CommandError, Status
from dbt.containers.engine.client import EngineClient
from dbt.containers.engine.places import Places
from dbt.daemon.client import Client, RequestFailed


def connect() -> Client:
    """Return a connection to this user's engine. One is started if there is none."""
    return reach(Places(), ("container", "serve"), EngineClient)


def ask(method: str, path: str, body: object = None, **query: object) -> Any:
    """Return the engine's answer to one request. Raise CommandError for an error."""
    try:
        with connect() as client:
            return client.ask(method, path, body, **query)
    except RequestFailed as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None
    except ConnectionError as error:
        raise CommandError(f"{error}. Its log is {Places().log}.", Status.FAILURE) from None
