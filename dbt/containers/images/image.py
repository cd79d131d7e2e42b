"""What the store gives out: images and layers, as values that do not change."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from dbt.containers.images.config import ImageConfig
from dbt.containers.images.reference import familiar

#: What docker says for an image that does not tell when it was made.
NO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, weakref_slot=True, slots=True)
class Layer:
    """A layer in the store. As long as somebody holds this object, the layer stays there.

    ``diff_id`` is the SHA-256 of its tar archive. ``erofs`` is the path of its file system, a read-only file whose size
    is a multiple of 4096 bytes. ``size`` is what its files have, in bytes, as docker counts it.
    """

    diff_id: str
    erofs: str
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the store.

    ``id`` is the SHA-256 of ``document``, the JSON of its configuration, and ``config`` that as checked values. The
    lowest of ``layers`` is the first. ``names`` are full names with tags, ``digests`` full names with the digest of a
    registry's manifest. ``parent`` is the id of the image that it was built on here, and ``tagged`` when it last got a
    name, in seconds since 1970.
    """

    id: str
    config: ImageConfig
    layers: tuple[Layer, ...]
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    parent: str | None = None
    tagged: float = 0.0
    document: bytes = field(default=b"", repr=False)

    @property
    def size(self) -> int:
        """What the files of all layers have, in bytes."""
        return sum(layer.size for layer in self.layers)

    @property
    def repo_tags(self) -> list[str]:
        """The names as docker shows them."""
        return [familiar(name) for name in self.names]

    @property
    def repo_digests(self) -> list[str]:
        """The names with digests as docker shows them."""
        return [familiar(name) for name in self.digests]

    @property
    def created(self) -> str:
        """When the image was made, as its configuration says it: a time by RFC 3339."""
        return self.config.created or NO_TIME

    @property
    def created_seconds(self) -> int:
        """The same in seconds since 1970. What is no time is docker's time of an image that has none."""
        return seconds_of(self.created)

    def json(self) -> dict[str, Any]:
        """Return the whole configuration as plain values, for who makes another one of it."""
        found = msgspec.json.decode(self.document)
        assert isinstance(found, dict)
        return found


def seconds_of(text: str) -> int:
    """Return a time by RFC 3339 in seconds since 1970. What is no time is docker's time of what has none."""
    for one in (text, NO_TIME):
        try:
            time = datetime.fromisoformat(one)
        except ValueError:
            continue
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    raise AssertionError(NO_TIME)
