"""Images on their way: from and to registries, and in archives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from dbt.containers.build.downloads import fetch
from dbt.containers.engine.body_source import BodySource
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.progress import told
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.images.changes import apply_changes
from dbt.containers.images.errors import ImageError, ImageNotFound
from dbt.containers.images.history import import_tar
from dbt.containers.images.image import Image
from dbt.containers.images.loading import load
from dbt.containers.images.reference import Reference, familiar, id_prefix
from dbt.containers.images.registry.credentials import Credentials, read_credentials
from dbt.containers.images.saving import Saved, save
from dbt.containers.images.unpacking import ByteSource
from dbt.daemon.http_messages import Answer, Stream

_TAR = "application/x-tar"
_Report = Callable[[dict[str, Any]], None]


def transfer_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Transfers(engine)
    return [
        Route("POST", "/images/create", api.create, has_stream=True),
        Route("POST", "/images/load", api.load, has_stream=True),
        Route("GET", "/images/get", api.get_several),
        Route("GET", "/images/search", api.search),
        Route("GET", "/images/{name:path}/get", api.get),
        Route("POST", "/images/{name:path}/push", api.push),
        Route("GET", "/distribution/{name:path}/json", api.describe),
        Route("POST", "/auth", api.auth),
    ]


def _credentials(call: Call) -> Credentials:
    return read_credentials(call.request.headers.get("x-registry-auth", ""))


def _with_tag(repository: str, tag: str) -> Reference:
    """Return a reference to what a client names in two parameters. A tag may be a digest."""
    reference = Reference.parse(repository)
    if tag:
        reference = Reference.parse(f"{reference.repository}{'@' if ':' in tag else ':'}{tag}")
    return reference


class _Transfers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._registries = engine.registries

    # -- registries ----------------------------------------------------------------------------

    async def create(self, call: Call) -> Answer:
        if call.text("fromSrc"):
            return await self._import(call)
        if not call.text("fromImage"):
            raise BadParameter("invalid reference format")
        reference = _with_tag(call.text("fromImage"), call.text("tag"))

        async def pull(report: _Report) -> None:
            with self._engine.adding_layers():
                if reference.tag or reference.digest:
                    await self._registries.pull(reference, report, _credentials(call), call.text("platform"))
                else:
                    await self._registries.pull_all(reference, report, _credentials(call), call.text("platform"))
            self._engine.events.tell("image", "pull", reference.familiar, {"name": reference.familiar_repository})

        return await told(pull)

    async def push(self, call: Call) -> Answer:
        reference = _with_tag(call.parts["name"], call.text("tag"))

        async def push(report: _Report) -> None:
            await self._registries.push(reference, report, _credentials(call))
            self._engine.events.tell("image", "push", reference.familiar, {"name": reference.familiar_repository})

        return await told(push)

    async def describe(self, call: Call) -> Answer:
        return json_answer(await self._registries.describe(Reference.parse(call.parts["name"]), _credentials(call)))

    async def search(self, call: Call) -> Answer:
        term = call.text("term")
        if not term:
            raise BadParameter("invalid search term: it is empty")
        found = await self._registries.search(term, call.number("limit") or 25, _credentials(call))
        return json_answer(found)

    async def auth(self, call: Call) -> Answer:
        token = await self._registries.login(call.json(Credentials, has_any_type=True))
        return json_answer({"Status": "Login Succeeded", "IdentityToken": token})

    # -- archives ------------------------------------------------------------------------------

    async def _import(self, call: Call) -> Answer:
        source = call.text("fromSrc")
        name = _with_tag(call.text("repo"), call.text("tag")).with_default_tag() if call.text("repo") else None
        config = apply_changes({}, call.texts("changes"))
        message = call.text("message") or f"Imported from {source}"

        def make(tar: BinaryIO | ByteSource) -> Image:
            names = [str(name)] if name else []
            return import_tar(self._engine.store, tar, datetime.now(UTC), message, config, names)

        async def work(report: _Report) -> None:
            with self._engine.adding_layers():
                if source == "-":
                    image = await asyncio.to_thread(make, BodySource(call.body))
                else:
                    url = source if "://" in source else f"http://{source}"
                    fetched = await asyncio.to_thread(fetch, url, self._engine.places.spool)
                    with fetched.file as file:
                        report({"status": f"Downloading from {url}"})
                        image = await asyncio.to_thread(make, cast("BinaryIO", file))
            self._engine.events.tell("image", "import", image.id, {"name": name.familiar if name else image.id})
            report({"status": image.id})

        return await told(work)

    async def load(self, call: Call) -> Answer:
        source, loop = BodySource(call.body), asyncio.get_running_loop()

        def add(report: _Report) -> None:
            def say(text: str) -> None:
                loop.call_soon_threadsafe(report, {"stream": f"{text}\n"})

            for image, names, renamed in load(self._engine.store, source):
                for name, old in renamed:
                    say(
                        f"The image {familiar(name)} already exists, renaming the old one with ID {old} to empty string"
                    )
                for name in names:
                    say(f"Loaded image: {familiar(name)}")
                if not names:
                    say(f"Loaded image ID: {image.id}")
                loop.call_soon_threadsafe(
                    self._engine.events.tell,
                    "image",
                    "load",
                    image.id,
                    {"name": familiar(names[0]) if names else image.id},
                )

        async def work(report: _Report) -> None:
            try:
                with self._engine.adding_layers():
                    await asyncio.to_thread(add, report)
            except ImageError as error:  # it is a message, as docker has it, also if it is the first one
                text = f"Error processing tar file: {error}"
                report({"errorDetail": {"message": text}, "error": text})

        return await told(work)

    async def get(self, call: Call) -> Answer:
        return await self._saved([call.parts["name"]])

    async def get_several(self, call: Call) -> Answer:
        return await self._saved(call.texts("names"))

    async def _saved(self, texts: list[str]) -> Answer:
        store = self._engine.store
        wanted = [await asyncio.to_thread(self._wanted, text) for text in texts]
        for saved in (one for some in wanted for one in some):
            self._engine.events.tell("image", "save", saved.image.id, {"name": saved.image.id})
        return Stream(_pieces(save(store, [one for some in wanted for one in some])), _TAR)

    def _wanted(self, text: str) -> list[Saved]:
        """Return the images that a text means, with the names that they are saved under."""
        store = self._engine.store
        prefix = id_prefix(text)
        try:
            reference = Reference.parse(text)
            if not reference.tag and not reference.digest:
                start = f"{reference.repository}:"
                images = [(image, [name for name in image.names if name.startswith(start)]) for image in store.images()]
                if found := [Saved(image, names) for image, names in images if names]:
                    return found
            image = store.find(text)
        except ImageNotFound:
            raise ImageNotFound(f"No such image: {text}") from None
        if prefix and image.id.removeprefix("sha256:").startswith(prefix):
            return [Saved(image, [])]
        return [Saved(image, [str(reference.with_default_tag())] if not reference.digest else [])]


async def _pieces(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        if piece:
            yield piece
