"""Containers: made, listed, described, started, stopped, changed and removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from dbt.containers.engine.config import CreateBody, RestartPolicy
from dbt.containers.engine.container import Container
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter, Conflict, NotFound
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.engine.signals import signal_number
from dbt.containers.engine.timestamps import ZERO, ns_of
from dbt.containers.engine.versions import ApiVersion
from dbt.containers.engine.views import LIST_FILTERS, Chosen, inspect, summary
from dbt.containers.engine.waiting import Exit
from dbt.daemon.http_messages import Answer, Response, Stream

_NOTHING = Response(204)
_CONDITIONS = ("", "not-running", "next-exit", "removed")


def container_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Containers(engine)
    one = "/containers/{id}"
    return [
        Route("POST", "/containers/create", api.create),
        Route("GET", "/containers/json", api.list),
        Route("POST", "/containers/prune", api.prune),
        Route("GET", f"{one}/json", api.inspect),
        Route("POST", f"{one}/start", api.start),
        Route("POST", f"{one}/stop", api.stop),
        Route("POST", f"{one}/restart", api.restart),
        Route("POST", f"{one}/kill", api.kill),
        Route("POST", f"{one}/pause", api.pause),
        Route("POST", f"{one}/unpause", api.unpause),
        Route("POST", f"{one}/wait", api.wait),
        Route("POST", f"{one}/rename", api.rename),
        Route("POST", f"{one}/update", api.update),
        Route("POST", f"{one}/resize", api.resize),
        Route("DELETE", one, api.remove),
    ]


class _Update(msgspec.Struct, rename="pascal"):
    """What of a container can be changed while it lives."""

    cpu_shares: int | None = None
    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    nano_cpus: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    pids_limit: int | None = None
    blkio_weight: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    cpu_realtime_period: int | None = None
    cpu_realtime_runtime: int | None = None
    restart_policy: RestartPolicy | None = None


class _Containers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, call: Call) -> Container:
        return self._engine.containers.find(call.parts["id"])

    async def create(self, call: Call) -> Answer:
        platform = call.text("platform") if call.version >= (1, 41) else ""
        container, warnings = await self._engine.containers.create(call.text("name"), call.json(CreateBody), platform)
        return json_answer({"Id": container.id, "Warnings": warnings}, 201)

    async def list(self, call: Call) -> Answer:
        filters, engine = call.filters(LIST_FILTERS), self._engine
        ends: dict[str, Container | None] = {"before": None, "since": None}
        for name in ends:
            for text in filters.get(name):
                ends[name] = engine.containers.find(text)
        limit = call.number("limit") or 0
        chosen = Chosen(filters, call.flag("all") or limit > 0, ends["before"], ends["since"])
        everything = sorted(engine.containers, key=lambda one: ns_of(one.record.definition.created), reverse=True)
        found = [one for one in everything if chosen(one, one.networks.names())]
        rows = []
        for one in found[:limit] if limit > 0 else found:
            row = summary(
                one, one.networks.json(call.version, one.record.state.started != ZERO), one.networks.ports_json()
            )
            if call.flag("size"):
                row |= await self._sizes(one)
            rows.append(row)
        return json_answer(rows)

    async def _sizes(self, container: Container) -> dict[str, int]:
        own = await asyncio.to_thread(container.disk_size)
        return {"SizeRw": own, "SizeRootFs": container.image.size + own}

    async def inspect(self, call: Call) -> Answer:
        container = self._find(call)
        found = inspect(container, call.version)
        if call.flag("size"):
            found |= await self._sizes(container)
        return json_answer(found)

    async def start(self, call: Call) -> Answer:
        container = self._find(call)
        checkpoint = call.text("checkpoint")
        await container.start(
            container.checkpoints.path(checkpoint, call.text("checkpoint-dir")) if checkpoint else None
        )
        return _NOTHING

    async def stop(self, call: Call) -> Answer:
        await self._find(call).stop(call.number("t"), call.text("signal"))
        return _NOTHING

    async def restart(self, call: Call) -> Answer:
        await self._find(call).restart(call.number("t"), call.text("signal"))
        return _NOTHING

    async def kill(self, call: Call) -> Answer:
        number = signal_number(call.text("signal") or "SIGKILL")
        try:
            await self._find(call).kill(number)
        except (NotFound, Conflict) as error:
            raise type(error)(f"Cannot kill container: {call.parts['id']}: {error}") from None
        return _NOTHING

    async def pause(self, call: Call) -> Answer:
        await self._find(call).pause()
        return _NOTHING

    async def unpause(self, call: Call) -> Answer:
        await self._find(call).unpause()
        return _NOTHING

    async def wait(self, call: Call) -> Answer:
        container, condition = self._find(call), call.text("condition")
        if condition not in _CONDITIONS:
            raise BadParameter(f'invalid condition: "{condition}"')
        if condition == "removed":
            waited = container.removals.add()
        elif condition == "next-exit" or container.record.state.running:
            waited = container.exits.add()
        else:
            waited = asyncio.get_running_loop().create_future()
            waited.set_result(container.last_exit)

        async def pieces() -> AsyncGenerator[bytes, None]:  # the head goes first, so that the client knows that we wait
            try:
                yield msgspec.json.encode(_exit_json(await waited, call.version)) + b"\n"
            finally:
                waited.cancel()

        return Stream(pieces(), "application/json")

    async def rename(self, call: Call) -> Answer:
        if not call.text("name"):
            raise BadParameter("Neither old nor new names may be empty")
        self._engine.containers.rename(self._find(call), call.text("name"))
        return _NOTHING

    async def update(self, call: Call) -> Answer:
        container, wish = self._find(call), call.json(_Update)
        changes = {name: value for name, value in msgspec.structs.asdict(wish).items() if value}
        return json_answer({"Warnings": await container.update(changes) or None})

    async def resize(self, call: Call) -> Answer:
        container = self._find(call)
        rows, columns = call.number("h"), call.number("w")
        if rows is None or columns is None:
            raise BadParameter('strconv.Atoi: parsing "": invalid syntax')
        await container.running_vm().main.resize(rows, columns)
        return Response(200, b"", "")

    async def remove(self, call: Call) -> Answer:
        if call.flag("link"):
            raise NotFound(f"no such link: {call.parts['id']}")
        await self._engine.containers.remove(self._find(call), call.flag("force"), call.flag("v"))
        return _NOTHING

    async def prune(self, call: Call) -> Answer:
        filters = call.filters({"until", "label", "label!"})
        removed, room = await self._engine.containers.prune(filters)
        return json_answer({"ContainersDeleted": removed or None, "SpaceReclaimed": room})


def _exit_json(exit: Exit, version: ApiVersion) -> dict[str, Any]:
    error = {"Error": {"Message": exit.error}} if exit.error else {"Error": None} if version < (1, 42) else {}
    return {"StatusCode": exit.code, **error}
