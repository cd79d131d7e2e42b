"""The process of a service that commands start on demand, and talk to."""

from __future__ import annotations

import logging
import os

from dbt.cli.service import READY
from dbt.cli.status import CommandError, Status
from dbt.daemon.service_places import ServicePlaces


class Starter:
    """Who has started a service: a user, or with ``on_demand`` a command that waits until the service is ready."""

    def __init__(self, places: ServicePlaces, on_demand: bool) -> None:
        """With ``on_demand``, let messages go to the log from now on. Raise CommandError."""
        self._places = places
        self._pipe = os.dup(1) if on_demand else None
        os.umask(0o077)
        if on_demand:
            try:
                _leave_terminal(places)
            except OSError as error:
                raise self.cannot(error) from None
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def is_ready(self, text: str) -> None:
        """Say that clients can connect. A user sees ``text``, if there is any."""
        if self._pipe is not None:
            os.write(self._pipe, READY)
            os.close(self._pipe)
        elif text:
            print(text, flush=True)

    def cannot(self, error: Exception) -> CommandError:
        """Return an error that says why the service cannot start, and tell it to who waits for the service."""
        return self.failed(f"the {self._places.noun} cannot start: {str(error).removesuffix('.')}.")

    def failed(self, text: str) -> CommandError:
        """Return the error, and tell it to who waits for the service."""
        if self._pipe is not None:
            os.write(self._pipe, text.encode())
        return CommandError(text, Status.FAILURE)


def _leave_terminal(places: ServicePlaces) -> None:
    places.prepare()
    log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir("/")
