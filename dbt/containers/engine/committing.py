"""Images that are made of containers: docker commit."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from dbt.containers.engine.container import Container
from dbt.containers.engine.spool import fill, spool_file
from dbt.containers.engine.timestamps import now
from dbt.containers.images.changes import apply_changes
from dbt.containers.images.errors import InvalidReference
from dbt.containers.images.image import Image, Layer
from dbt.containers.images.reference import Reference

if TYPE_CHECKING:
    from dbt.containers.engine.engine import Engine

#: Fields of a container's configuration that are no image's.
_OWN = (
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Hostname",
    "Domainname",
    "Image",
    "OpenStdin",
    "StdinOnce",
    "Tty",
)


class CommitWish(NamedTuple):
    """What a client wants: a name, which may be empty, and lines of a Dockerfile as ``changes``. ``pauses``: programs
    of the container stand still while its files are read.
    """

    repository: str
    tag: str
    comment: str
    author: str
    changes: list[str]
    pauses: bool


async def commit(engine: Engine, container: Container, wish: CommitWish) -> Image:
    """Make an image of a container's files, and of its configuration. Raise ImageError or EngineError."""
    name = _name_of(wish)
    with spool_file(engine.places.spool) as file:
        async with container.vm_with_files() as vm, container.frozen() if wish.pauses else nullcontext():
            await fill(file, await vm.diff_layer(), engine.places.spool)
        layer = await asyncio.to_thread(engine.store.add_layer, file)
    document = _document(container, layer, wish)
    names = [str(name)] if name else []
    image = await asyncio.to_thread(engine.store.add_image, document, names, container.image.id)
    container.tell("commit", comment=wish.comment, imageID=image.id, imageRef=name.familiar if name else "")
    return image


def _name_of(wish: CommitWish) -> Reference | None:
    if not wish.repository:
        return None
    name = Reference.parse(wish.repository)
    if name.tag or name.digest:
        raise InvalidReference("refusing to create a tag with a digest reference" if name.digest else "repo has a tag")
    return Reference.parse(f"{wish.repository}:{wish.tag}" if wish.tag else wish.repository).with_default_tag()


def _document(container: Container, layer: Layer, wish: CommitWish) -> bytes:
    """Return the configuration of the new image: the parent's, with another layer and the container's settings."""
    made, moment = container.record.definition, now()
    document: dict[str, Any] = container.image.json()
    settings = {name: value for name, value in made.config.json().items() if name not in _OWN}
    document["config"] = apply_changes(settings, wish.changes)
    document["created"] = moment
    document["author"], document["comment"] = wish.author, wish.comment
    document["container"] = made.id
    step = {"created": moment, "created_by": " ".join([made.path, *made.args])}
    step |= {name: value for name, value in (("author", wish.author), ("comment", wish.comment)) if value}
    document["history"] = [*(document.get("history") or []), step]
    layers = [*container.image.config.diff_ids, layer.diff_id]
    document["rootfs"] = {"type": "layers", "diff_ids": layers}
    return msgspec.json.encode(document)
