"""``dbt container serve``: the process of the engine."""

from __future__ import annotations

import asyncio
import gc
import logging
import os

import dbt
from dbt.cli.status import CommandError, Status
from dbt.containers.engine.errors import EngineError
from dbt.containers.engine.places import Places
from dbt.containers.engine.service import AlreadyRunning, serve
from dbt.containers.images.errors import ImageError


def serve_engine(socket: str | None) -> int:
    """Run the engine until a signal ends it."""
    places = Places.of_user(socket)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        gc.freeze()
        asyncio.run(serve(places, dbt.__version__, lambda: _announce(places)))
    except AlreadyRunning as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None
    except (EngineError, ImageError, OSError) as error:
        text = str(error).removesuffix(".")
        raise CommandError(f"the engine cannot start: {text}.", Status.FAILURE) from None
    return Status.DONE


def _announce(places: Places) -> None:
    print(f"export DOCKER_HOST=unix://{places.socket}", flush=True)
    logging.info("the engine listens at %s, and keeps what it has in %s", places.socket, places.directory)
