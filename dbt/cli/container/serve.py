"""``dbt container serve``: the process of the engine."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Sequence
from typing import Final

import dbt
from dbt.cli.container.connection import READY
from dbt.cli.status import CommandError, Status
from dbt.containers.engine.errors import EngineError
from dbt.containers.engine.places import Places
from dbt.containers.engine.service import AlreadyRunning, serve
from dbt.containers.images.errors import ImageError
from dbt.containers.network.errors import NetworkFailure

#: How long an engine that was started on demand stays without running containers and clients, in seconds.
_IDLE_S: Final = 300.0


def serve_engine(socket: str | None, on_demand: bool, insecure: Sequence[str]) -> int:
    """Run the engine until a signal ends it, or until it has had nothing to do for long. ``insecure`` are registries
    whose certificates are not checked.
    """
    places = Places.of_user(socket)
    os.umask(0o077)
    pipe = None
    try:
        pipe = _leave_terminal(places) if on_demand else None
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)  # what it says has what registries keep in addresses
        gc.freeze()
        idle_s = _IDLE_S if on_demand else None
        asyncio.run(serve(places, dbt.__version__, lambda: _announce(places, pipe), idle_s, insecure))
    except AlreadyRunning as error:
        raise _failure(f"{error}.", pipe) from None
    except (EngineError, ImageError, NetworkFailure, OSError) as error:
        text = str(error).removesuffix(".")
        raise _failure(f"the engine cannot start: {text}.", pipe) from None
    return Status.DONE


def _leave_terminal(places: Places) -> int:
    """Let messages go to the log. Return what standard output was: the pipe to who waits for the engine."""
    pipe = os.dup(1)
    places.prepare()
    log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir("/")
    return pipe


def _announce(places: Places, pipe: int | None) -> None:
    """Say that clients can connect, to who waits for it if there is somebody."""
    logging.info("the engine listens at %s, and keeps what it has in %s", places.socket, places.directory)
    if pipe is None:
        print(f"export DOCKER_HOST=unix://{places.socket}", flush=True)
    else:
        os.write(pipe, READY)
        os.close(pipe)


def _failure(text: str, pipe: int | None) -> CommandError:
    """Return the error, and tell it to who waits for the engine."""
    if pipe is not None:
        os.write(pipe, text.encode())
    return CommandError(text, Status.FAILURE)
