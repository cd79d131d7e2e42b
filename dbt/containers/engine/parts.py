"""What every container needs of the engine."""

from __future__ import annotations

from dataclasses import dataclass

from dbt.containers.engine.events import Events
from dbt.containers.engine.places import Places
from dbt.containers.engine.records import Records
from dbt.containers.images.registry.registries import Registries
from dbt.containers.images.store import ImageStore
from dbt.containers.network.membership import Switchboard
from dbt.containers.network.volumes import Volumes
from dbt.containers.runtime.runtime import Runtime


@dataclass
class Parts:
    """The engine's parts that containers stand on. They belong to one event loop."""

    places: Places
    records: Records
    events: Events
    runtime: Runtime
    store: ImageStore
    registries: Registries
    volumes: Volumes
    board: Switchboard
