"""The requests about saved machines: what of :class:`dbt.daemon.states.SavedStates` each of them calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dbt.daemon.domains import Domains
from dbt.daemon.errors import DefinitionError
from dbt.daemon.http_messages import Answer, Response
from dbt.daemon.migrations import Migrations
from dbt.daemon.routes import Call, Route, json_answer
from dbt.daemon.states import SavedStates
from dbt.daemon.store import Snapshot
from dbt.daemon.views import DomainInfo, File, Migration, MigrationReport, Named

#: Calls a function in a thread, because it takes time.
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
_ONE = "/v1/domains/{name}"


def state_routes(domains: Domains, states: SavedStates, migrations: Migrations, in_thread: InThread) -> list[Route]:
    """Return the table."""

    def verb(work: Callable[[str, Any], object]) -> Callable[[Call], Awaitable[Answer]]:
        """Return what does something with a domain, and answers with what it is then."""

        async def answer(call: Call) -> Answer:
            record = domains.get(call.parts["name"])
            await in_thread(lambda: work(record.name, call.body))
            return json_answer(DomainInfo.of(record))

        return answer

    async def restore(call: Call) -> Answer:
        return json_answer(DomainInfo.of(await in_thread(lambda: states.restore(call.body.path))))

    async def listed(call: Call) -> Answer:
        return json_answer(states.snapshots(call.parts["name"]))

    async def create(call: Call) -> Answer:
        return json_answer(await in_thread(lambda: states.create_snapshot(call.parts["name"], call.body.name)), 201)

    async def revert(call: Call) -> Answer:
        await in_thread(lambda: states.revert(call.parts["name"], call.parts["snapshot"]))
        return json_answer(DomainInfo.of(domains.get(call.parts["name"])))

    async def delete(call: Call) -> Answer:
        await in_thread(lambda: states.delete_snapshot(call.parts["name"], call.parts["snapshot"]))
        return Response(204)

    async def clone(call: Call) -> Answer:
        if call.body.name is None:
            raise DefinitionError("the clone needs a name")
        return json_answer(
            DomainInfo.of(await in_thread(lambda: states.clone(call.parts["name"], call.body.name))), 201
        )

    async def migrate(call: Call) -> Answer:
        record = domains.get(call.parts["name"])
        return json_answer(await in_thread(lambda: migrations.migrate(record.name, call.body)))

    def save_for_next_start(name: str, body: Any) -> None:
        with domains.use_persistent(name, "it has no next start: `dbt vm save` writes it to a file"):
            states.managed_save(name)

    save, dump = verb(lambda name, body: states.save(name, body.path)), verb(lambda n, body: states.dump(n, body.path))
    managed = verb(save_for_next_start)
    return [
        Route("POST", f"{_ONE}/save", "Write the machine to a file and end it", save, takes=File, gives=DomainInfo),
        Route("POST", "/v1/restore", "Go on from such a file", restore, takes=File, gives=DomainInfo),
        Route("POST", f"{_ONE}/dump", "Write the machine to a file; it goes on", dump, takes=File, gives=DomainInfo),
        Route("POST", f"{_ONE}/managedsave", "Save for the next start, and end", managed, gives=DomainInfo),
        Route("GET", f"{_ONE}/snapshots", "The snapshots of a domain", listed, gives=list[Snapshot]),
        Route("POST", f"{_ONE}/snapshots", "Make a snapshot", create, takes=Named, gives=Snapshot, status=201),
        Route("DELETE", f"{_ONE}/snapshots/{{snapshot}}", "Forget a snapshot", delete, status=204),
        Route("POST", f"{_ONE}/snapshots/{{snapshot}}/revert", "Go back to a snapshot", revert, gives=DomainInfo),
        Route(
            "POST", f"{_ONE}/migrate", "Move the machine to another daemon", migrate, takes=Migration,
            gives=MigrationReport,
        ),
        Route("POST", f"{_ONE}/clone", "Make a domain as this one", clone, takes=Named, gives=DomainInfo, status=201),
    ]  # fmt: skip
