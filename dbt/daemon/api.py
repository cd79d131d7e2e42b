"""The requests that the daemon answers: what of :class:`dbt.daemon.domains.Domains` each of them calls."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from dbt.daemon import console, disks, metrics
from dbt.daemon.definition import Definition, MachineLimits, plain, read_definition
from dbt.daemon.domains import Domains
from dbt.daemon.errors import Conflict, RequestError
from dbt.daemon.events import Event, Events, as_server_sent
from dbt.daemon.http_messages import Answer, Hijack, RawStream, Request, Response, Stream
from dbt.daemon.known_domains import Record
from dbt.daemon.machines import MachineMaker
from dbt.daemon.migrations import Migrations
from dbt.daemon.routes import Call, Route, Routes, Wrong, json_answer
from dbt.daemon.state_routes import state_routes
from dbt.daemon.states import SavedStates
from dbt.daemon.views import (
    Autostart,
    Boots,
    Disk,
    DomainInfo,
    DomainStats,
    HostInfo,
    LimitsChange,
    Memory,
    Resuming,
    ShareChange,
    Shutdown,
    Wanted,
    stats_of,
)
from dbt.hypervisor.domain import Domain
from dbt.hypervisor.lifecycle import ALIVE

#: How often the shares are told to those who listen, in seconds.
_SHARES_S = 0.5
_ONE = "/v1/domains/{name}"
_EVENT_STREAM = "text/event-stream"

T = TypeVar("T")


class Api:
    """Answers requests. ``stop`` ends the daemon. ``more`` are further routes."""

    def __init__(
        self,
        domains: Domains,
        events: Events,
        machines: MachineMaker,
        directory: str,
        version: str,
        states: SavedStates,
        migrations: Migrations,
        stop: Callable[[], None],
        more: Sequence[Route],
    ) -> None:
        self._domains = domains
        self._migrations = migrations
        self._events = events
        self._machines = machines
        self._directory = directory
        self._version = version
        self._stop = stop
        self._workers = ThreadPoolExecutor(32, "dbt-verb")
        of_states = state_routes(domains, states, migrations, self._in_thread)
        self._routes = Routes(
            [*self._of_daemon(), *self._of_definitions(), *self._of_life(), *self._of_consoles(), *of_states, *more]
        )

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def handle(self, request: Request) -> Answer:
        """Answer a request. What it raises is a failure of the daemon itself."""
        try:
            route, call = self._routes.find(request)
            return await route.answer(call)
        except RequestError as error:
            return json_answer({"error": f"{str(error).removesuffix('.')}."}, error.status)

    # -- the tables ----------------------------------------------------------------------------

    def _of_daemon(self) -> list[Route]:
        after = {"after": "the number of the last event that is known"}
        return [
            Route("GET", "/v1", "The host and the daemon", self._host, gives=HostInfo),
            Route("GET", "/v1/openapi.json", "This description", self._openapi, gives=dict[str, Any]),
            Route("GET", "/v1/stats", "What all domains have used", self._stats, gives=list[DomainStats]),
            Route("GET", "/metrics", "The same for Prometheus", self._metrics, media=metrics.MEDIA),
            Route(
                "GET", "/v1/events", "What happens to domains, as it happens", self._listen, gives=Event, query=after,
                media=_EVENT_STREAM,
            ),
            Route(
                "GET", "/v1/shares", "What domains use, twice a second", self._shares, gives=list[DomainStats],
                media=_EVENT_STREAM,
            ),
            Route("POST", "/v1/stop", "End the daemon; machines go on", self._end),
        ]  # fmt: skip

    def _of_definitions(self) -> list[Route]:
        return [
            Route("GET", "/v1/domains", "All domains", self._list, gives=list[DomainInfo]),
            Route("POST", "/v1/domains", "Define a domain", self._define, takes=Wanted, gives=DomainInfo, status=201),
            Route(
                "POST", "/v1/create", "Define and start a domain that is forgotten when it ends", self._create,
                takes=Wanted, gives=DomainInfo, status=201,
            ),
            Route("GET", _ONE, "One domain", self._info, gives=DomainInfo),
            Route("GET", f"{_ONE}/definition", "A domain's definition", self._definition, gives=Definition),
            Route("DELETE", _ONE, "Forget a domain", self._undefine, status=204),
            Route("POST", f"{_ONE}/autostart", "Start it with the daemon", self._autostart, takes=Autostart),
            Route("GET", f"{_ONE}/stats", "What a domain has used", self._one_stats, gives=DomainStats),
            Route("POST", f"{_ONE}/share", "Change a share", self._share, takes=ShareChange, gives=DomainInfo),
            Route(
                "POST", f"{_ONE}/limits", "Change the limits of memory and devices", self._limits, takes=LimitsChange,
                gives=MachineLimits,
            ),
            Route("POST", f"{_ONE}/memory", "Ask the guest to have so much memory", self._memory, takes=Memory),
            Route("POST", f"{_ONE}/disks", "Give it a disk, from its next start on", self._attach, takes=Disk),
            Route("POST", f"{_ONE}/disks/detach", "Take a disk from it, likewise", self._detach, takes=Disk),
        ]  # fmt: skip

    def _of_life(self) -> list[Route]:
        plain = {
            "suspend": ("Let the guest stand still", self._domains.suspend),
            "destroy": ("End the machine at once", self._domains.destroy),
            "reset": ("Switch the machine off and on again", self._domains.reset),
        }
        routes = [
            Route("POST", f"{_ONE}/{verb}", about, self._verb(method), gives=DomainInfo)
            for verb, (about, method) in plain.items()
        ]
        routes.append(
            Route("POST", f"{_ONE}/resume", "Let the guest go on", self._resume, takes=Resuming, gives=DomainInfo)
        )
        routes.append(Route("POST", f"{_ONE}/start", "Start a domain", self._start, takes=Boots, gives=DomainInfo))
        for verb, about, reboots in (
            ("shutdown", "shut down", False),
            ("reboot", "shut down, and start it again", True),
        ):
            answer = self._shutdown(reboots)
            text = f"Ask the guest to {about}"
            routes.append(Route("POST", f"{_ONE}/{verb}", text, answer, takes=Shutdown, gives=DomainInfo))
        return routes

    def _of_consoles(self) -> list[Route]:
        position = {"position": "the position from which on output is wanted; 0 is all that is kept"}
        return [
            Route(
                "POST", f"{_ONE}/console", "The console as a raw stream, with Upgrade: tcp", self._console,
                query=position, status=101,
            ),
            Route(
                "GET", f"{_ONE}/console", "What the guest writes, as it does", self._watch_console,
                gives=console.Output, query=position, media=_EVENT_STREAM,
            ),
            Route("POST", f"{_ONE}/console/input", "Type", self._type, takes=bytes),
        ]  # fmt: skip

    # -- the daemon ----------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def _host(self, call: Call) -> Answer:
        host = self._domains.host
        count = len(self._domains.all())
        return json_answer(HostInfo(host.cores, host.rate, os.getpid(), self._version, self._directory, count))

    async def _openapi(self, call: Call) -> Answer:
        options = {"type": "object", "properties": self._machines.option_schemas(), "additionalProperties": False}
        found = self._routes.describe(self._version, {"Machine": options})
        schemas = found["components"]["schemas"]
        # Both are checked by hand, for errors that a person can read.
        schemas["Wanted"]["properties"]["definition"] = {"$ref": "#/components/schemas/Definition"}
        schemas["Definition"]["properties"]["machine"] = {"$ref": "#/components/schemas/Machine"}
        return json_answer(found)

    async def _stats(self, call: Call) -> Answer:
        return json_answer(stats_of(self._domains.host, self._domains.all()))

    async def _metrics(self, call: Call) -> Answer:
        return Response(200, metrics.text(self._domains), metrics.MEDIA)

    async def _listen(self, call: Call) -> Answer:
        last = call.request.headers.get("last-event-id") or call.request.query.get("after")
        after = None if last is None else _number("after", last)

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b": listening\n\n"  # a client that has read this misses nothing
            async for event in self._events.listen(after):
                yield as_server_sent(event.event, event, event.number)

        return Stream(pieces(), _EVENT_STREAM)

    async def _shares(self, call: Call) -> Answer:
        async def pieces() -> AsyncGenerator[bytes, None]:
            while True:
                yield as_server_sent("shares", stats_of(self._domains.host, self._domains.all()))
                await asyncio.sleep(_SHARES_S)

        return Stream(pieces(), _EVENT_STREAM)

    async def _end(self, call: Call) -> Answer:
        self._stop()
        return Response(204)

    # -- definitions ---------------------------------------------------------------------------

    async def _list(self, call: Call) -> Answer:
        return json_answer([DomainInfo.of(record) for record in self._domains.all()])

    async def _define(self, call: Call) -> Answer:
        definition = read_definition(call.body.definition)
        record = await self._in_thread(lambda: self._domains.define(definition))
        return json_answer(DomainInfo.of(record), 201)

    async def _create(self, call: Call) -> Answer:
        definition = read_definition(call.body.definition)
        record = await self._in_thread(lambda: self._domains.create(definition))
        return json_answer(DomainInfo.of(record), 201)

    def _record(self, call: Call) -> Record:
        return self._domains.get(call.parts["name"])

    async def _info(self, call: Call) -> Answer:
        return json_answer(DomainInfo.of(self._record(call)))

    async def _definition(self, call: Call) -> Answer:
        return json_answer(self._record(call).definition)

    async def _undefine(self, call: Call) -> Answer:
        await self._in_thread(lambda: self._domains.undefine(call.parts["name"]))
        return Response(204)

    async def _autostart(self, call: Call) -> Answer:
        await self._in_thread(lambda: self._domains.set_autostart(call.parts["name"], call.body.autostart))
        return Response(204)

    async def _one_stats(self, call: Call) -> Answer:
        return json_answer(stats_of(self._domains.host, [self._record(call)])[0])

    async def _share(self, call: Call) -> Answer:
        wanted: ShareChange = call.body

        def change(old: Definition) -> Definition:
            share = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
            if share.get("cap") == 1:
                share["cap"] = None
            return _changed(old, "share", share)

        return json_answer(DomainInfo.of(await self._change(call, change)))

    async def _limits(self, call: Call) -> Answer:
        wanted: LimitsChange = call.body

        def change(old: Definition) -> Definition:
            limits = {name: value for name, value in msgspec.to_builtins(wanted).items() if value is not None}
            return _changed(old, "limits", {name: value or None for name, value in limits.items()})

        return json_answer((await self._change(call, change)).definition.limits)

    async def _memory(self, call: Call) -> Answer:
        await self._in_thread(lambda: self._domains.set_memory(call.parts["name"], call.body.size))
        return Response(204)

    async def _attach(self, call: Call) -> Answer:
        await self._change(call, lambda old: disks.with_disk(old, call.body.drive))
        return Response(204)

    async def _detach(self, call: Call) -> Answer:
        await self._change(call, lambda old: disks.without_disk(old, call.body.drive))
        return Response(204)

    async def _change(self, call: Call, change: Callable[[Definition], Definition]) -> Record:
        return await self._in_thread(lambda: self._domains.change(call.parts["name"], change))

    # -- life ----------------------------------------------------------------------------------

    def _verb(self, method: Callable[[str], None]) -> Callable[[Call], Any]:
        async def answer(call: Call) -> Answer:
            record = self._record(call)
            await self._in_thread(lambda: method(record.name))
            return json_answer(DomainInfo.of(record))

        return answer

    async def _resume(self, call: Call) -> Answer:
        record = self._record(call)
        await self._in_thread(lambda: self._migrations.resume(record.name, call.body.force))
        return json_answer(DomainInfo.of(record))

    async def _start(self, call: Call) -> Answer:
        record = self._record(call)
        await self._in_thread(lambda: self._domains.start(record.name, call.body.force_boot))
        return json_answer(DomainInfo.of(record))

    def _shutdown(self, reboots: bool) -> Callable[[Call], Any]:
        async def answer(call: Call) -> Answer:
            record = self._record(call)
            await self._in_thread(lambda: self._domains.shutdown(record.name, call.body.timeout, reboots))
            return json_answer(DomainInfo.of(record))

        return answer

    # -- consoles ------------------------------------------------------------------------------

    def _console_of(self, call: Call, position: int) -> Domain:
        """Return the domain whose console is wanted. Raise Conflict if there is nothing to see, nor will be."""
        record = self._record(call)
        if record.domain.state not in ALIVE and position >= record.domain.console.written:
            raise Conflict(f"the domain {record.name} has no machine, so it has no console: `dbt vm start` starts it")
        return record.domain

    async def _console(self, call: Call) -> Answer:
        position = _number("position", call.request.query.get("position", "0"))
        domain = self._console_of(call, position)

        async def carry(stream: RawStream) -> None:
            await console.carry(domain, stream, position)

        return Hijack(carry)

    async def _watch_console(self, call: Call) -> Answer:
        position = _number("position", call.request.query.get("position", "0"))
        domain = self._console_of(call, position)

        async def pieces() -> AsyncGenerator[bytes, None]:
            async for data, behind in console.output(domain, position):
                yield as_server_sent("output", console.Output(data.decode("latin-1"), behind))
            yield as_server_sent("end", None)

        return Stream(pieces(), _EVENT_STREAM)

    async def _type(self, call: Call) -> Answer:
        domain = self._record(call).domain
        await console.type_all(self._console_of(call, domain.console.written), call.body)
        return Response(204)


def _changed(old: Definition, section: str, change: Mapping[str, object]) -> Definition:
    """Return a definition in which some fields of a section are others. Raise DefinitionError for wrong ones."""
    values = plain(old)
    return read_definition({**values, section: {**values[section], **change}})


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Wrong(f"{name}={text:.40} is no whole number")
    return int(text)
