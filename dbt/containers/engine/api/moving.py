"""Containers that move between engines. Docker's API has nothing of it: these paths are dbt's own."""

from __future__ import annotations

import asyncio

from dbt.containers.engine.body_source import BodySource
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.offer import Offer
from dbt.containers.engine.peers import ARRIVALS, IMAGES, Peer
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.images.loading import load
from dbt.containers.runtime.checkpoint import PortState
from dbt.daemon.http_messages import Answer, Response
from dbt.hypervisor.migration import Place

_NOTHING = Response(204)


def moving_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Moving(engine)
    return [
        Route("POST", "/dbt/containers/{id}/migrate", api.migrate),
        Route("POST", "/dbt/containers/{id}/resume", api.resume),
        *arrival_routes(engine),
    ]


def arrival_routes(engine: Engine, gate: Place | None = None) -> list[Route]:
    """Return the routes for another engine that moves a container here. With a ``gate``, it comes through that from
    another host, and these routes are all that it may use.
    """
    api = _Arriving(engine, gate)
    return [
        Route("GET", f"{IMAGES}/{{id}}", api.find_image),
        Route("POST", IMAGES, api.take_image, has_stream=True),
        Route("POST", ARRIVALS, api.offer),
        Route("POST", f"{ARRIVALS}/{{id}}/log", api.take_log, has_stream=True),
        Route("POST", f"{ARRIVALS}/{{id}}", api.complete),
        Route("GET", f"{ARRIVALS}/{{id}}", api.standing),
        Route("DELETE", f"{ARRIVALS}/{{id}}", api.give_up),
    ]


class _Moving:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def migrate(self, call: Call) -> Answer:
        peer = Peer.parse(call.text("destination"), call.text("tlscreds"))
        if peer.text == f"unix:{self._engine.places.socket}":
            raise BadParameter("the container is at this engine already")
        containers = self._engine.containers
        await containers.move(containers.find(call.parts["id"]), peer)
        return _NOTHING

    async def resume(self, call: Call) -> Answer:
        container = self._engine.containers.find(call.parts["id"])
        if not call.flag("force"):
            await container.unpause()
        else:
            await container.decide()
        return _NOTHING


class _Arriving:
    def __init__(self, engine: Engine, gate: Place | None) -> None:
        self._engine, self._gate = engine, gate

    async def find_image(self, call: Call) -> Answer:
        await asyncio.to_thread(self._engine.store.by_id, call.parts["id"])
        return _NOTHING

    async def take_image(self, call: Call) -> Answer:
        source, store = BodySource(call.body), self._engine.store

        def take() -> None:
            for _ in load(store, source, renames=False):
                pass  # each is there once it is yielded

        with self._engine.adding_layers():
            await asyncio.to_thread(take)
        return _NOTHING

    async def offer(self, call: Call) -> Answer:
        door = await self._engine.arrivals.offer(call.json(Offer), self._gate)
        return json_answer({"Door": door, "Engine": self._engine.id}, 201)

    async def take_log(self, call: Call) -> Answer:
        await self._engine.arrivals.take_log(call.parts["id"], BodySource(call.body))
        return _NOTHING

    async def complete(self, call: Call) -> Answer:
        port = call.json(PortState) if call.request.body.strip() else None
        await self._engine.arrivals.complete(call.parts["id"], port)
        return _NOTHING

    async def standing(self, call: Call) -> Answer:
        standing = self._engine.arrivals.standing(call.parts["id"])
        return json_answer({"Standing": standing.value, "Engine": self._engine.id})

    async def give_up(self, call: Call) -> Answer:
        await self._engine.arrivals.give_up(call.parts["id"])
        return _NOTHING
