"""How an image came to be, as docker shows it, and the making of images of one archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple

import msgspec

from dbt.containers.images.errors import ImageError
from dbt.containers.images.image import Image, seconds_of
from dbt.containers.images.store import ImageStore
from dbt.containers.images.unpacking import ByteSource

#: What an image can be of here, if nothing else is said.
ARCHITECTURE, VARIANT, SYSTEM = "arm", "v5", "linux"


class HistoryRow(NamedTuple):
    """A step: the id of the image that it made or "<missing>", when in seconds since 1970, how, and the size of its
    layer in bytes. ``tags`` are the names of that image as docker shows them.
    """

    id: str
    created: int
    created_by: str
    tags: list[str]
    size: int
    comment: str


def history(store: ImageStore, image: Image) -> list[HistoryRow]:
    """Return the steps of an image, the last one first. Raise ImageError for more steps with a layer than layers."""
    steps = image.config.history or []
    sizes = [layer.size for layer in image.layers]
    if sum(not step.empty_layer for step in steps) > len(sizes):
        raise ImageError("too many non-empty layers in History section")
    layers = iter(sizes)
    measured = [(step, 0 if step.empty_layer else next(layers)) for step in steps]
    rows, now = [], store.by_id(image.id) if steps else None
    for step, size in reversed(measured):
        made, tags = (now.id, now.repo_tags) if now else ("<missing>", [])
        rows.append(HistoryRow(made, seconds_of(step.created), step.created_by, tags, size, step.comment))
        now = next((one for one in store.images() if now and one.id == now.parent), None)
    return rows


def import_tar(
    store: ImageStore,
    tar: BinaryIO | ByteSource,
    created: datetime,
    message: str = "",
    run_config: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    platform: tuple[str, str, str] = (SYSTEM, ARCHITECTURE, VARIANT),
) -> Image:
    """Make an image of a tar archive, compressed or not, as its only layer. Raise what the store raises.

    - ``created``: the time that the image tells, with a zone.
    - ``run_config``: with what a container of it starts, under docker's names.
    - ``platform``: system, architecture and its variant, which may be empty.
    """
    layer = store.add_layer(tar)
    system, architecture, variant = platform
    time = created.isoformat().replace("+00:00", "Z")
    document = {
        "architecture": architecture,
        **({"variant": variant} if variant else {}),
        "comment": message,
        "config": dict(run_config or {}),
        "created": time,
        "history": [{"created": time, **({"comment": message} if message else {})}],
        "os": system,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    return store.add_image(msgspec.json.encode(document), names)
