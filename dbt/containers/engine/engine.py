"""The engine: its parts, their beginning and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dbt.containers.engine.arrivals import Arrivals
from dbt.containers.engine.containers import Containers
from dbt.containers.engine.events import Events
from dbt.containers.engine.parts import Parts
from dbt.containers.engine.places import Places
from dbt.containers.engine.records import Records
from dbt.containers.images.errors import ImageError
from dbt.containers.images.registry.registries import Registries
from dbt.containers.images.store import ImageStore
from dbt.containers.network.membership import Switchboard
from dbt.containers.network.networks import Networks
from dbt.containers.network.volumes import Volumes
from dbt.containers.runtime.runtime import Runtime
from dbt.containers.runtime.spec import RuntimeFailure

#: After so many seconds, who has failed has let go of what it had.
_LETS_GO_S: Final = 0.2
_log = logging.getLogger(__name__)


@dataclass
class Engine(Parts):
    """Everything that a route may ask for. It belongs to one event loop. ``version`` is that of dbt."""

    containers: Containers
    arrivals: Arrivals
    version: str
    started_ns: int
    id: str
    _collecting: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    async def open(cls, places: Places, version: str, insecure: Sequence[str] = ()) -> Engine:
        """Return the engine of a directory that no other process has. ``insecure`` are registries whose certificates
        are not checked. Raise EngineError, ImageError, NetworkFailure, PlacesError or OSError.
        """
        places.prepare()
        shutil.rmtree(places.spool)
        os.mkdir(places.spool, 0o700)
        store = ImageStore(places.images)
        for text in store.lost:
            _log.error("%s", text)
        parts = Parts(
            places,
            Records(places.database),
            Events(),
            Runtime(places.leases, say=_log.warning),
            store,
            Registries(store, places.spool, insecure),
            Volumes(places.volumes),
            Switchboard(Networks(places.of("networks.sqlite")), _log.warning),
        )
        containers = Containers(parts)
        await containers.open()
        return cls(
            **vars(parts),
            containers=containers,
            arrivals=Arrivals(parts, containers),
            version=version,
            started_ns=time.time_ns(),
            id=_id_of(places),
        )

    @contextlib.contextmanager
    def adding_layers(self) -> Iterator[None]:
        """Let the block add layers. If it raises, those that no image has got are removed soon afterwards, when nothing
        of the block refers to them any more.
        """
        try:
            yield
        except BaseException:
            self.collect_soon()
            raise

    def collect_soon(self) -> None:
        """Remove the layers that no image has, soon, when nothing of what has failed refers to them any more."""
        task = asyncio.get_running_loop().create_task(self._collect())
        self._collecting.add(task)
        task.add_done_callback(self._collecting.discard)

    async def _collect(self) -> None:
        await asyncio.sleep(_LETS_GO_S)
        try:  # in a thread: others have the store, and wait for the event loop
            await asyncio.to_thread(self.store.collect)
        except ImageError as error:  # the next removal or start does it
            _log.error("layers that no image has are there still: %s", error)

    async def warm_up(self) -> None:
        """Do what the first container would wait for."""
        try:
            await self.runtime.prepare()
        except RuntimeFailure as failure:
            _log.error("no container can start: %s", failure)

    async def close(self) -> None:
        """End all containers, and what belongs to this process."""
        self.events.close()
        await self.arrivals.close()
        await asyncio.gather(*self._collecting)
        await self.containers.close()
        await self.runtime.close()
        await self.board.close()
        self.board.networks.close()
        self.volumes.close()
        self.store.close()
        self.records.close()


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
