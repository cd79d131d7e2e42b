"""``dbt container serve``: the process of the engine."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import dbt
from dbt.cli.service_process import Starter
from dbt.cli.status import CommandError, Status
from dbt.containers.engine.places import Places
from dbt.hypervisor.process.zygote_start import begin_zygote
from dbt.linux.template import Hardware, begin_reading_template

if TYPE_CHECKING:
    from dbt.hypervisor.migration import Place

#: How long an engine that was started on demand stays without running containers and clients, in seconds.
_IDLE_S: Final = 300.0


def serve_engine(
    socket: str | None, on_demand: bool, insecure: Sequence[str], migration: str | None, credentials: str | None
) -> int:
    """Run the engine until a signal ends it, or until it has had nothing to do for long. ``insecure`` are registries
    whose certificates are not checked. At the place ``migration``, containers of other hosts are taken, by TLS with the
    certificates in the directory ``credentials``.
    """
    places = Places(socket)
    starter = Starter(places, on_demand)
    try:  # what goes on in other processes while this one imports the engine
        begin_reading_template(Hardware(for_container=True))
        begin_zygote()
    except OSError as error:
        raise starter.cannot(error) from None
    import asyncio

    from dbt.containers.engine.errors import EngineError
    from dbt.containers.engine.service import AlreadyRunning, serve
    from dbt.containers.images.errors import ImageError
    from dbt.containers.network.errors import NetworkFailure
    from dbt.hypervisor.migration import MigrationError

    gate = None if migration is None else _gate(migration, credentials)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # what it says has what registries keep in addresses

    def announce() -> None:
        logging.info("the engine listens at %s, and keeps what it has in %s", places.socket, places.directory)
        starter.is_ready(f"export DOCKER_HOST=unix://{places.socket}")

    try:
        gc.freeze()
        asyncio.run(serve(places, dbt.__version__, announce, _IDLE_S if on_demand else None, insecure, gate))
    except AlreadyRunning as error:
        raise starter.failed(f"{error}.") from None
    except (EngineError, ImageError, MigrationError, NetworkFailure, OSError) as error:
        raise starter.cannot(error) from None
    return Status.DONE


def _gate(text: str, credentials: str | None) -> Place:
    """Return where containers of other hosts are taken. Raise CommandError if anybody could send some."""
    if not credentials or not text.startswith("tcp:"):
        raise CommandError(
            f"--migration {text}: write tcp:HOST:PORT, and give the directory with the certificates (--tls-creds): "
            "whoever can connect there has this engine run containers.",
            Status.USAGE,
        )
    from dbt.host.endpoint import WrongEndpoint
    from dbt.hypervisor.migration import Place

    try:
        return Place.parse(text, credentials)
    except WrongEndpoint as error:
        raise CommandError(f"--migration {error}.", Status.USAGE) from None
