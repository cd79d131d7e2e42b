"""How much of the host's disk images, containers and volumes take, and the cache of builds."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from dbt.containers.engine import image_views, views
from dbt.containers.engine.api.volumes import volume_json
from dbt.containers.engine.container import Container
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.engine.timestamps import ZERO
from dbt.containers.engine.versions import ApiVersion
from dbt.containers.images.image import Image
from dbt.daemon.http_messages import Answer

_KINDS = ("container", "image", "volume", "build-cache")


def disk_use_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _DiskUse(engine)
    return [Route("GET", "/system/df", api.disk_use), Route("POST", "/build/prune", api.prune)]


class _DiskUse:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def disk_use(self, call: Call) -> Answer:
        chosen = call.texts("type") or _KINDS
        images = await asyncio.to_thread(self._engine.store.images)
        found: dict[str, Any] = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None}
        if "image" in chosen:
            layers = {layer.diff_id: layer.size for image in images for layer in image.layers}
            found |= {"LayersSize": sum(layers.values()), "Images": self._images(images, call)}
        if "container" in chosen:
            found["Containers"] = [await self._container(one, call.version) for one in self._engine.containers]
        if "volume" in chosen:
            found["Volumes"] = await asyncio.to_thread(self._volumes)
        found["BuildCache"] = None
        return json_answer(found | ({"BuilderSize": 0} if call.version < (1, 42) else {}))

    def _images(self, images: list[Image], call: Call) -> list[dict[str, Any]]:
        users = Counter(layer.diff_id for image in images for layer in image.layers)
        containers = Counter(one.image.id for one in self._engine.containers)
        parents = {image.parent for image in images}
        return [
            image_views.summary(
                image,
                call.version,
                containers[image.id],
                sum(layer.size for layer in image.layers if users[layer.diff_id] > 1),
            )
            for image in images
            if image.names or image.digests or image.id not in parents
        ]

    async def _container(self, container: Container, version: ApiVersion) -> dict[str, Any]:
        own = await asyncio.to_thread(container.disk_size)
        networks = container.networks.json(version, container.record.state.started != ZERO)
        found = views.summary(container, networks, container.networks.ports_json())
        return found | {"SizeRw": own, "SizeRootFs": container.image.size + own}

    def _volumes(self) -> list[dict[str, Any]]:
        volumes = self._engine.volumes
        return [
            volume_json(one)
            | {"UsageData": {"Size": volumes.size(one), "RefCount": len(self._engine.containers.of_volume(one.name))}}
            for one in volumes.all()
        ]

    async def prune(self, call: Call) -> Answer:
        """Images of steps are the cache of builds here. They go with the images that were built on them."""
        return json_answer({"CachesDeleted": None, "SpaceReclaimed": 0})
