"""The engine: its parts, their beginning and end."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from typing import Any

from dbt.containers.engine.container import Container
from dbt.containers.engine.containers import Containers
from dbt.containers.engine.events import Events
from dbt.containers.engine.parts import Parts
from dbt.containers.engine.places import Places
from dbt.containers.engine.records import Records
from dbt.containers.images.store import ImageStore
from dbt.containers.network.volumes import Volumes
from dbt.containers.runtime.runtime import Runtime
from dbt.containers.runtime.spec import RuntimeFailure

_log = logging.getLogger(__name__)


@dataclass
class Engine(Parts):
    """Everything that a route may ask for. It belongs to one event loop. ``version`` is that of dbt."""

    containers: Containers
    version: str
    started_ns: int
    id: str

    @classmethod
    async def open(cls, places: Places, version: str) -> Engine:
        """Return the engine of a directory that no other process has. Raise EngineError, ImageError, NetworkFailure,
        PlacesError or OSError.
        """
        places.prepare()
        shutil.rmtree(places.spool)
        os.mkdir(places.spool, 0o700)
        parts = Parts(
            places,
            Records(places.database),
            Events(),
            Runtime(places.leases, say=_log.warning),
            ImageStore(places.images),
            Volumes(places.volumes),
        )
        containers = Containers(parts)
        await containers.open()
        return cls(**vars(parts), containers=containers, version=version, started_ns=time.time_ns(), id=_id_of(places))

    async def warm_up(self) -> None:
        """Do what the first container would wait for."""
        try:
            await self.runtime.prepare()
        except RuntimeFailure as failure:
            _log.error("no container can start: %s", failure)

    async def close(self) -> None:
        """End all containers, and what belongs to this process."""
        self.events.close()
        await self.containers.close()
        await self.runtime.close()
        self.volumes.close()
        self.store.close()
        self.records.close()

    # -- networks ------------------------------------------------------------------------------

    def network_names(self, container: Container) -> list[str]:
        """Return the names and ids of the networks in which a container is."""
        return []

    def networks_of(self, container: Container) -> dict[str, Any]:
        """Return what docker says of the networks in which a container is, by their names."""
        return {}

    def ports_of(self, container: Container) -> list[dict[str, Any]]:
        """Return docker's list of a container's ports."""
        return []

    def network_settings(self, container: Container) -> dict[str, Any]:
        """Return docker's description of a container's network."""
        return {"Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": {}, "Networks": self.networks_of(container)}


def _id_of(places: Places) -> str:
    """Return the engine's id, which is made once."""
    path = places.of("id")
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        made = secrets.token_hex(16)
        made = "-".join((made[:8], made[8:12], made[12:16], made[16:20], made[20:]))
        with open(path, "w", encoding="ascii") as file:
            file.write(made)
        return made
