"""The way to the daemon, which is started if there is none."""

from __future__ import annotations

import json
import os
from typing import Any

from dbt.cli.service import reach
from dbt.cli.status import CommandError, Status
from dbt.daemon.client import Client, RequestFailed
from dbt.daemon.places import Places


def connect(starts: bool = True) -> Client:
    """Return a connection to this user's daemon. Unless ``starts`` is False, one is started if there is none."""
    return reach(Places(), ("vm", "daemon"), Client, starts)


def ask(method: str, path: str, body: object = None, starts: bool = True) -> Any:
    """Return the daemon's answer to one request. Raise CommandError for an error."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CommandError(
            f"{error.object.strip()!a} is no text in UTF-8, which the daemon needs.", Status.USAGE
        ) from None
    try:
        with connect(starts) as client:
            return client.ask(method, path, body)
    except RequestFailed as error:
        raise as_command_error(error) from None
    except ConnectionError as error:
        raise CommandError(f"{error}. Its log is {Places().log}.", Status.FAILURE) from None


def of_domain(name: str, *more: str) -> str:
    """Return the path of a domain, or of something of it. Raise CommandError for what nothing can be called."""
    from urllib.parse import quote  # which takes some milliseconds, and a list names no domain

    for part in (name, *more):
        if not part or "/" in part:
            raise CommandError(f"nothing can have the name {part!r}: `dbt vm list --all` shows domains.", Status.USAGE)
    return "/".join(("/v1/domains", *(quote(os.fsencode(part), safe="") for part in (name, *more))))


def as_command_error(error: RequestFailed) -> CommandError:
    status = Status.FAILURE
    if error.status == 422:
        status = Status.BAD_INPUT
    elif error.status in (400, 404, 405):
        status = Status.USAGE
    return CommandError(str(error), status)
