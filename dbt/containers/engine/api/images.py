"""Images: listed, described, named and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from dbt.containers.engine.engine import Engine
from dbt.containers.engine.image_lists import LIST_FILTERS, PRUNE_FILTERS, listed, passes
from dbt.containers.engine.image_views import document, history_row, summary
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.images.errors import ImageNotFound
from dbt.containers.images.history import history
from dbt.containers.images.image import Image
from dbt.containers.images.reference import Reference
from dbt.containers.images.removal import Removal, User, prune, remove
from dbt.daemon.http_messages import Answer, Response


def image_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Images(engine)
    one = "/images/{name:path}"
    return [
        Route("GET", "/images/json", api.list_all),
        Route("POST", "/images/prune", api.prune),
        Route("GET", f"{one}/json", api.inspect),
        Route("GET", f"{one}/history", api.history),
        Route("POST", f"{one}/tag", api.tag),
        Route("DELETE", one, api.remove),
    ]


class _Images:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def _find(self, call: Call) -> Image:
        return await asyncio.to_thread(self._engine.store.find, call.parts["name"])

    async def list_all(self, call: Call) -> Answer:
        filters = call.filters(LIST_FILTERS)
        found = await asyncio.to_thread(listed, self._engine.store, filters, call.flag("all"))
        return json_answer([summary(image, call.version) for image in found])

    async def inspect(self, call: Call) -> Answer:
        try:
            image = await self._find(call)
        except ImageNotFound as error:
            raise ImageNotFound(f"no such image: {call.parts['name']}: {error}") from None
        return json_answer(document(image, call.version))

    async def history(self, call: Call) -> Answer:
        image = await self._find(call)
        rows = await asyncio.to_thread(history, self._engine.store, image)
        return json_answer([history_row(row) for row in rows])

    async def tag(self, call: Call) -> Answer:
        image = await self._find(call)
        reference = Reference.parse(call.text("repo"))
        if tag := call.text("tag"):
            reference = Reference.parse(f"{reference.repository}:{tag}")
        reference = reference.with_default_tag()
        await asyncio.to_thread(self._engine.store.tag, image, reference)
        self._engine.events.tell("image", "tag", image.id, {"name": reference.familiar})
        return Response(201)

    def _users(self) -> dict[str, list[User]]:
        """Return the containers of each image, as they are now."""
        found: dict[str, list[User]] = {}
        for one in self._engine.containers:
            found.setdefault(one.image.id, []).append(User(one.id, one.record.state.running))
        return found

    async def remove(self, call: Call) -> Answer:
        users = self._users()
        removed = await asyncio.to_thread(
            remove,
            self._engine.store,
            call.parts["name"],
            call.flag("force"),
            lambda image: users.get(image, []),
            not call.flag("noprune"),
        )
        self._tell(removed)
        return json_answer([{removal.kind: removal.what} for removal in removed])

    async def prune(self, call: Call) -> Answer:
        filters, users = call.filters(PRUNE_FILTERS), self._users()
        dangling = filters.boolean("dangling")
        removed, room = await asyncio.to_thread(
            prune,
            self._engine.store,
            dangling is not False,
            lambda image: users.get(image, []),
            passes(filters),
        )
        self._tell(removed)
        self._engine.events.tell("image", "prune", "", {"reclaimed": str(room)})
        found = [{removal.kind: removal.what} for removal in removed] or None
        return json_answer({"ImagesDeleted": found, "SpaceReclaimed": room})

    def _tell(self, removed: Iterable[Removal]) -> None:
        for removal in removed:
            if removal.image is not None:
                action = "untag" if removal.kind == "Untagged" else "delete"
                self._engine.events.tell("image", action, removal.image, {"name": removal.image})
