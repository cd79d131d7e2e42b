"""Containers that move between engines. Docker's API has nothing of it: these paths are dbt's own."""

from __future__ import annotations

from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.moving import Arrivals, Offer
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.runtime.checkpoint import PortState
from dbt.daemon.http_messages import Answer, Response

_NOTHING = Response(204)


def moving_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Moving(engine)
    return [
        Route("POST", "/dbt/containers/{id}/migrate", api.migrate),
        Route("POST", "/dbt/containers/{id}/resume", api.resume),
        Route("POST", "/dbt/arrivals", api.offer),
        Route("POST", "/dbt/arrivals/{id}", api.complete),
        Route("GET", "/dbt/arrivals/{id}", api.standing),
        Route("DELETE", "/dbt/arrivals/{id}", api.give_up),
    ]


class _Moving:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._arrivals = Arrivals(engine, engine.containers)

    async def migrate(self, call: Call) -> Answer:
        destination = call.text("destination").removeprefix("unix://")
        if not destination.startswith("/"):
            raise BadParameter("the destination is the path of another engine's socket, as unix:///PATH")
        if destination == self._engine.places.socket:
            raise BadParameter("the container is at this engine already")
        containers = self._engine.containers
        await containers.move(containers.find(call.parts["id"]), destination)
        return _NOTHING

    async def resume(self, call: Call) -> Answer:
        container = self._engine.containers.find(call.parts["id"])
        if not call.flag("force"):
            await container.unpause()
        else:
            await container.decide()
        return _NOTHING

    async def offer(self, call: Call) -> Answer:
        return json_answer({"Door": await self._arrivals.offer(call.json(Offer))}, 201)

    async def complete(self, call: Call) -> Answer:
        await self._arrivals.complete(call.parts["id"], call.json(PortState))
        return _NOTHING

    async def standing(self, call: Call) -> Answer:
        return json_answer(self._arrivals.standing(call.parts["id"]))

    async def give_up(self, call: Call) -> Answer:
        await self._arrivals.give_up(call.parts["id"])
        return _NOTHING
