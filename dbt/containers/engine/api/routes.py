"""All routes."""

from __future__ import annotations

from dbt.containers.engine.api.archives import archive_routes
from dbt.containers.engine.api.build import build_routes
from dbt.containers.engine.api.containers import container_routes
from dbt.containers.engine.api.disk_use import disk_use_routes
from dbt.containers.engine.api.elsewhere import elsewhere_routes
from dbt.containers.engine.api.execs import exec_routes
from dbt.containers.engine.api.images import image_routes
from dbt.containers.engine.api.moving import moving_routes
from dbt.containers.engine.api.networks import network_routes
from dbt.containers.engine.api.observing import observing_routes
from dbt.containers.engine.api.streams import stream_routes
from dbt.containers.engine.api.system import system_routes
from dbt.containers.engine.api.transfers import transfer_routes
from dbt.containers.engine.api.volumes import volume_routes
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.router import Route


def all_routes(engine: Engine) -> list[Route]:
    """Return the routes of all subjects. The first that fits answers."""
    return [
        *system_routes(engine),
        *container_routes(engine),
        *stream_routes(engine),
        *exec_routes(engine),
        *archive_routes(engine),
        *observing_routes(engine),
        *build_routes(engine),
        *image_routes(engine),
        *transfer_routes(engine),
        *network_routes(engine),
        *volume_routes(engine),
        *disk_use_routes(engine),
        *moving_routes(engine),
        *elsewhere_routes(),
    ]
