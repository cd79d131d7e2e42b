"""A registry on loopback, for the scene that needs one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.containers.golden.expected import Play
from tests.containers.images.registry.real import docker_registry


@contextmanager
def registry_for(play: Play, folder: Path) -> Iterator[str]:
    """Yield the address of an empty registry, or an empty text for a scene without one."""
    if play.scene != "registry":
        yield ""
        return
    place = folder / ".registry"
    place.mkdir()
    with docker_registry(place) as address:
        yield address
