"""``dbt vm daemon``: the process of the daemon."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys

import dbt
from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_count, parse_seconds
from dbt.cli.vm.connection import READY
from dbt.cli.vm.machines import OptionMachines
from dbt.daemon.daemon import AlreadyRunning, Daemon
from dbt.daemon.errors import RequestError
from dbt.daemon.places import Places, PlacesError

#: How long a daemon that was started on demand stays without anything to do, in seconds.
_IDLE_S = 300.0


def serve(cores: str | None, rate: str, idle: str | None, on_demand: bool) -> int:
    """Run the daemon until a signal or a request ends it."""
    places = Places.of_user()
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    idle_s = parse_seconds("--idle-exit", idle) if idle is not None else _IDLE_S if on_demand else None
    try:
        daemon = Daemon(
            places,
            OptionMachines(),
            dbt.__version__,
            len(os.sched_getaffinity(0)) if cores is None else parse_count("--cores", cores, "cores"),
            parse_count("--rate", rate),
            idle_s,
        )
        gc.freeze()
        asyncio.run(daemon.run(lambda: _announce(places, on_demand)))
    except AlreadyRunning as error:
        raise CommandError(f"{error}: `dbt vm daemon --stop` ends it.", Status.FAILURE) from None
    except (RequestError, PlacesError, ValueError) as error:
        raise CommandError(f"the daemon cannot start: {str(error).removesuffix('.')}.", Status.FAILURE) from None
    return Status.DONE


def _announce(places: Places, on_demand: bool) -> None:
    """Say that others can connect. A daemon that was started on demand leaves the terminal to itself then."""
    if not on_demand:
        logging.info("the daemon listens at %s", places.socket)
        return
    log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(1, READY)
    sys.stdout.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir("/")
