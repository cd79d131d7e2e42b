"""The engine's parts, and their beginning and end."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from dataclasses import dataclass

from dbt.containers.engine.events import Events
from dbt.containers.engine.places import Places
from dbt.containers.engine.records import Records
from dbt.containers.runtime.runtime import Runtime

_log = logging.getLogger(__name__)


@dataclass
class Engine:
    """Everything that a route may ask for. It belongs to one event loop. ``version`` is that of dbt."""

    places: Places
    version: str
    records: Records
    events: Events
    runtime: Runtime
    started_ns: int
    id: str

    @classmethod
    async def open(cls, places: Places, version: str) -> Engine:
        """Return the engine of a directory that no other process has. Raise EngineError, PlacesError, OSError."""
        places.prepare()
        shutil.rmtree(places.spool)
        os.mkdir(places.spool, 0o700)
        records = Records(places.database)
        runtime = Runtime(places.leases, say=_log.warning)
        return cls(places, version, records, Events(), runtime, time.time_ns(), _id_of(places))

    async def close(self) -> None:
        """End what belongs to this process, and the VMs."""
        self.events.close()
        await self.runtime.close()
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
