"""What runs in containers, what it uses, and checkpoints of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from dbt.containers.engine.container import Container
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter, Conflict, EngineError
from dbt.containers.engine.router import Call, Route, json_answer, json_stream
from dbt.containers.engine.timestamps import ZERO, now
from dbt.containers.runtime.spec import RuntimeFailure, Stats
from dbt.daemon.http_messages import Answer, Response

#: How often statistics are told, in seconds.
_INTERVAL_S = 1.0


def observing_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Observing(engine)
    one = "/containers/{id}"
    return [
        Route("GET", f"{one}/top", api.top),
        Route("GET", f"{one}/stats", api.stats),
        Route("GET", f"{one}/checkpoints", api.checkpoints),
        Route("POST", f"{one}/checkpoints", api.make_checkpoint),
        Route("DELETE", f"{one}/checkpoints/{{name}}", api.remove_checkpoint),
    ]


class _CheckpointWish(
    msgspec.Struct, rename={"checkpoint_id": "CheckpointID", "folder": "CheckpointDir", "exit": "Exit"}
):
    """The body of the request for a checkpoint: with ``exit``, the container ends."""

    checkpoint_id: str = ""
    folder: str = ""
    exit: bool = False


class _Observing:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _find(self, call: Call) -> Container:
        return self._engine.containers.find(call.parts["id"])

    async def top(self, call: Call) -> Answer:
        container = self._find(call)
        if container.vm is None:
            raise Conflict(f"Container {container.id} is not running")
        async with container.vm_with_files() as vm:
            try:
                titles, rows = await vm.top(call.text("ps_args"))
            except RuntimeFailure as failure:
                raise BadParameter(f"ps: {failure}") from None
        if "PID" not in titles:
            raise BadParameter("Couldn't find PID field in ps output")
        container.tell("top")
        return json_answer({"Titles": titles, "Processes": rows})

    async def stats(self, call: Call) -> Answer:
        container = self._find(call)
        if call.flag("stream", True):
            return json_stream(self._samples(container))
        before = await _sample(container)
        if not call.flag("one-shot") and container.vm is not None:
            await asyncio.sleep(_INTERVAL_S)
            return json_answer(_stats_json(container, await _sample(container), before))
        return json_answer(_stats_json(container, before, None))

    async def _samples(self, container: Container) -> AsyncGenerator[object, None]:
        before = None
        while True:
            try:
                sample = await _sample(container)
            except EngineError:
                return  # it is being removed
            yield _stats_json(container, sample, before)
            before = sample
            await asyncio.sleep(_INTERVAL_S)

    async def checkpoints(self, call: Call) -> Answer:
        names = self._find(call).checkpoints.names(call.text("dir"))
        return json_answer([{"Name": name} for name in names])

    async def make_checkpoint(self, call: Call) -> Answer:
        wish = call.json(_CheckpointWish)
        await self._find(call).checkpoint(wish.checkpoint_id, wish.folder, wish.exit)
        return Response(201, b"", "")

    async def remove_checkpoint(self, call: Call) -> Answer:
        container = self._find(call)
        await asyncio.to_thread(container.checkpoints.remove, call.parts["name"], call.text("dir"))
        return Response(204)


class _Sample(msgspec.Struct):
    time: str
    stats: Stats | None


async def _sample(container: Container) -> _Sample:
    """Return what a container uses now. A paused one uses what it did before."""
    if container.vm is not None and not container.shown_state.paused:
        try:
            container.last_stats = await container.vm.stats()
        except RuntimeFailure:
            container.last_stats = None  # it has just ended
    return _Sample(now(), container.last_stats if container.vm is not None else None)


def _stats_json(container: Container, sample: _Sample, before: _Sample | None) -> dict[str, Any]:
    """Return docker's description of what a container uses."""
    stats, old = sample.stats, before.stats if before else None
    found: dict[str, Any] = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": sample.time if stats else ZERO,
        "preread": before.time if before and old else ZERO,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "blkio_stats": {"io_service_bytes_recursive": None, "io_serviced_recursive": None},
        "cpu_stats": _cpu(stats),
        "precpu_stats": _cpu(old),
        "memory_stats": {},
    }
    if stats is not None:
        limit = {} if stats.pids_limit is None else {"limit": stats.pids_limit}
        found["pids_stats"] = {"current": stats.pids, **limit}
        found["memory_stats"] = {
            "usage": stats.memory,
            "stats": dict(stats.memory_stat),
            "limit": stats.memory_limit,
        }
        found["blkio_stats"] = {
            "io_service_bytes_recursive": _operations(stats.block_read, stats.block_written),
            "io_serviced_recursive": _operations(stats.block_reads, stats.block_writes),
        }
        found["networks"] = {
            name: net._asdict() for name, net in stats.nets.items() if name in container.networks.cards
        }
    return found


def _cpu(stats: Stats | None) -> dict[str, Any]:
    usage: dict[str, Any] = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
    found: dict[str, Any] = {
        "cpu_usage": usage,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }
    if stats is not None:
        usage["total_usage"] = stats.cpu_ns
        usage["usage_in_kernelmode"], usage["usage_in_usermode"] = stats.cpu_system_ns, stats.cpu_user_ns
        found |= {"system_cpu_usage": stats.system_ns, "online_cpus": 1}
    return found


def _operations(read: int, written: int) -> list[dict[str, Any]]:
    """Return a counter of the container's own disk, which the guest knows as vdb."""
    pairs = (("read", read), ("write", written))
    return [{"major": 254, "minor": 16, "op": name, "value": value} for name, value in pairs]
