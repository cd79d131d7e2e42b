"""Volumes: listed, described, made and removed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from dbt.containers.engine.engine import Engine
from dbt.containers.engine.filters import Filters
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.engine.timestamps import text_of
from dbt.containers.network.volumes import Volume
from dbt.daemon.http_messages import Answer, Response

_NS = 10**9
_LIST_FILTERS = frozenset({"dangling", "driver", "label", "label!", "name"})
_PRUNE_FILTERS = frozenset({"all", "label", "label!"})


def volume_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Volumes(engine)
    return [
        Route("GET", "/volumes", api.list_all),
        Route("POST", "/volumes/create", api.create),
        Route("POST", "/volumes/prune", api.prune),
        Route("GET", "/volumes/{name:path}", api.inspect),
        Route("DELETE", "/volumes/{name:path}", api.remove),
    ]


def volume_json(volume: Volume) -> dict[str, Any]:
    """Return docker's description of a volume."""
    return {
        "CreatedAt": text_of(int(volume.created) * _NS),
        "Driver": volume.driver,
        "Labels": dict(volume.labels),
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Options": dict(volume.options),
        "Scope": "local",
    }


class _Wish(msgspec.Struct, rename="pascal"):
    """A volume that a client wants."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}


class _Volumes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_all(self, call: Call) -> Answer:
        filters = call.filters(_LIST_FILTERS)
        volumes = await asyncio.to_thread(self._engine.volumes.all)
        found = [volume_json(volume) for volume in volumes if self._passes(volume, filters)]
        return json_answer({"Volumes": found, "Warnings": None})

    def _passes(self, volume: Volume, filters: Filters) -> bool:
        dangling = filters.boolean("dangling")
        return (
            filters.matches("name", volume.name)
            and filters.exact("driver", volume.driver)
            and filters.labels(volume.labels)
            and filters.no_labels(volume.labels)
            and (dangling is None or dangling == (not self._engine.containers.of_volume(volume.name)))
        )

    async def create(self, call: Call) -> Answer:
        wish, volumes = call.json(_Wish, _Wish()), self._engine.volumes
        known = {volume.name for volume in await asyncio.to_thread(volumes.all)}
        volume = await asyncio.to_thread(volumes.create, wish.name, wish.driver, wish.labels, wish.driver_opts)
        if volume.name not in known:
            self._tell("create", volume)
        return json_answer(volume_json(volume), 201)

    async def inspect(self, call: Call) -> Answer:
        return json_answer(volume_json(await asyncio.to_thread(self._engine.volumes.find, call.parts["name"])))

    def _users(self) -> dict[str, list[str]]:
        """Return the containers of each volume, as they are now."""
        found: dict[str, list[str]] = {}
        for one in self._engine.containers:
            for point in one.record.definition.mounts:
                if point.type == "volume":
                    found.setdefault(point.name, []).append(one.id)
        return found

    async def remove(self, call: Call) -> Answer:
        users = self._users()
        volume = await asyncio.to_thread(
            self._engine.volumes.remove, call.parts["name"], lambda name: users.get(name, []), call.flag("force")
        )
        if volume is not None:
            self._tell("destroy", volume)
        return Response(204)

    async def prune(self, call: Call) -> Answer:
        filters, users = call.filters(_PRUNE_FILTERS), self._users()
        everything = call.version < (1, 42) or filters.boolean("all") is True

        def is_wanted(volume: Volume) -> bool:
            return (
                (everything or volume.is_anonymous)
                and filters.labels(volume.labels)
                and filters.no_labels(volume.labels)
            )

        removed, room = await asyncio.to_thread(self._engine.volumes.prune, lambda name: users.get(name, []), is_wanted)
        for volume in removed:
            self._tell("destroy", volume)
        self._engine.events.tell("volume", "prune", "", {"reclaimed": str(room)})
        return json_answer({"VolumesDeleted": [volume.name for volume in removed], "SpaceReclaimed": room})

    def _tell(self, action: str, volume: Volume) -> None:
        self._engine.events.tell("volume", action, volume.name, {"driver": volume.driver})
