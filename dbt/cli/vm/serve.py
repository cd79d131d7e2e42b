"""``dbt vm daemon``: the process of the daemon."""

from __future__ import annotations

import asyncio
import gc
import logging
import os

import dbt
from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_choice, parse_count, parse_seconds
from dbt.cli.vm.connection import READY
from dbt.cli.vm.machines import OptionMachines
from dbt.daemon.daemon import AlreadyRunning, Daemon, Settings
from dbt.daemon.errors import RequestError
from dbt.daemon.places import Places, PlacesError
from dbt.host.endpoint import WrongEndpoint
from dbt.hypervisor.jail.measures import Strictness
from dbt.hypervisor.migration import Place

#: How long a daemon that was started on demand stays without anything to do, in seconds.
_IDLE_S = 300.0


def serve(
    cores: str | None,
    rate: str,
    idle: str | None,
    jail: str,
    on_demand: bool,
    migration: str | None = None,
    credentials: str | None = None,
) -> int:
    """Run the daemon until a signal or a request ends it."""
    places = Places.of_user()
    os.umask(0o077)
    pipe = _leave_terminal(places) if on_demand else None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    idle_s = parse_seconds("--idle-exit", idle) if idle is not None else _IDLE_S if on_demand else None
    try:
        settings = Settings(
            len(os.sched_getaffinity(0)) if cores is None else parse_count("--cores", cores, "cores"),
            parse_count("--rate", rate),
            idle_s,
            Strictness(parse_choice("--jail", jail, [one.value for one in Strictness])),
            None if migration is None else _place(migration, credentials),
        )
        daemon = Daemon(places, OptionMachines(places.leases), dbt.__version__, settings)
        gc.freeze()
        asyncio.run(daemon.run(lambda: _announce(places, pipe)))
    except AlreadyRunning as error:
        raise _failure(pipe, f"{error}: `dbt vm daemon --stop` ends it.") from None
    except (RequestError, PlacesError, ValueError) as error:
        raise _failure(pipe, f"the daemon cannot start: {str(error).removesuffix('.')}.") from None
    return Status.DONE


def _place(text: str, credentials: str | None) -> Place:
    """Return where machines of other hosts are taken. Raise CommandError if anybody of this host could send some."""
    try:
        place = Place.parse(text, credentials or "")
    except WrongEndpoint as error:
        raise CommandError(f"--migration {error}.", Status.USAGE) from None
    if place.endpoint.path:
        raise CommandError(f"--migration {text}: daemons of this host need none. Write tcp:HOST:PORT.", Status.USAGE)
    if not place.credentials and not place.plain:
        raise CommandError(
            f"--migration {text}: whoever can connect there could have this daemon run machines. Give the directory "
            "with the certificates (--tls-creds), or say that the line is a safe one (,plain).",
            Status.USAGE,
        )
    return place


def _leave_terminal(places: Places) -> int:
    """Let messages go to the log. Return what standard output was: the pipe to who waits for the daemon."""
    pipe = os.dup(1)
    places.prepare()
    log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir("/")
    return pipe


def _announce(places: Places, pipe: int | None) -> None:
    """Say that others can connect, to who waits for it if there is somebody."""
    logging.info("the daemon listens at %s", places.socket)
    if pipe is not None:
        os.write(pipe, READY)
        os.close(pipe)


def _failure(pipe: int | None, text: str) -> CommandError:
    """Return the error, and tell it to who waits for the daemon."""
    if pipe is not None:
        os.write(pipe, text.encode())
    return CommandError(text, Status.FAILURE)
