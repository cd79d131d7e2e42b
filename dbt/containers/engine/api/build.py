"""Builds of images, by docker's classic builder."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qs

from dbt.containers.build.builds import build
from dbt.containers.build.options import BuildOptions, read_options
from dbt.containers.engine.building import BuildMachines
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.router import Call, Route, json_stream
from dbt.containers.engine.spool import pieces_of
from dbt.containers.images.errors import ImageNotFound
from dbt.daemon.http_messages import Answer


def build_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    return [Route("POST", "/build", _Builds(engine).build, has_stream=True)]


class _Builds:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def build(self, call: Call) -> Answer:
        engine = self._engine
        query = parse_qs(call.request.raw_query, keep_blank_values=True)
        options = read_options(query, call.request.headers.get("x-registry-config", ""))
        machines = BuildMachines(engine.runtime, engine.board, options.network, options.hosts)
        context = pieces_of(call.body)
        messages = build(engine.store, machines, engine.registries, engine.places.spool, context, options)
        with engine.adding_layers():
            first = await anext(messages)  # what fails before it has a status of its own
        return json_stream(self._told(first, messages, options))

    async def _told(
        self, first: dict[str, Any], messages: AsyncGenerator[dict[str, Any], None], options: BuildOptions
    ) -> AsyncGenerator[object, None]:
        last = first
        with self._engine.adding_layers():
            try:
                yield first
                async for last in messages:
                    yield last
            finally:
                await messages.aclose()
        if "error" in last:
            self._engine.collect_soon()
        else:
            self._tell_names(options)

    def _tell_names(self, options: BuildOptions) -> None:
        """Tell the events of names that the image has got."""
        for name in options.names:
            try:
                image = self._engine.store.find(str(name))
            except ImageNotFound:
                continue  # somebody has taken it away already
            self._engine.events.tell("image", "tag", image.id, {"name": name.familiar})
