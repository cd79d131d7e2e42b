"""``dbt vm daemon``: the process of the daemon."""

from __future__ import annotations

import asyncio
import gc
import logging
import os

import dbt
from dbt.cli.service_process import Starter
from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_choice, parse_count, parse_seconds
from dbt.cli.vm.machines import OptionMachines
from dbt.daemon.daemon import AlreadyRunning, Daemon, Settings
from dbt.daemon.errors import RequestError
from dbt.daemon.places import Places
from dbt.daemon.service_places import PlacesError
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
    places = Places()
    starter = Starter(places, on_demand)

    def announce() -> None:
        logging.info("the daemon listens at %s", places.socket)
        starter.is_ready("")

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
        asyncio.run(daemon.run(announce))
    except AlreadyRunning as error:
        raise starter.failed(f"{error}: `dbt vm daemon --stop` ends it.") from None
    except (RequestError, PlacesError, ValueError) as error:
        raise starter.cannot(error) from None
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
