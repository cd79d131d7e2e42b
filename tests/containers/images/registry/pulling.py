"""Pulls of tests, from a registry that they can let lie."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dbt.containers.images.image import Image
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.credentials import NOBODY, Credentials
from dbt.containers.images.registry.registries import Registries
from dbt.containers.images.store import ImageStore
from tests.containers.images.registry.lying import LyingRegistry, lying_registry


class Puller:
    """Pulls from a registry, and keeps what is reported."""

    def __init__(self, registry: LyingRegistry, folder: Path) -> None:
        self.registry = registry
        self.underway = folder / "underway"
        self.underway.mkdir()
        self.store = ImageStore(str(folder / "store"))
        self.registries = Registries(self.store, str(self.underway))
        self.said: list[dict[str, Any]] = []

    async def pull(self, name: str = "x:1", who: Credentials = NOBODY, platform: str = "") -> Image:
        self.said.clear()
        reference = Reference.parse(f"{self.registry.domain}/{name}")
        image = await self.registries.pull(reference, self.said.append, who, platform)
        await asyncio.sleep(0)  # what threads have reported is still to come
        return image

    def texts(self, id: str | None = None) -> list[str]:
        """Return what was said of something, each text once where it comes several times in a row."""
        said = [line["status"] for line in self.said if line.get("id") == id]
        return [text for place, text in enumerate(said) if said[place - 1 : place] != [text]]


def with_registry(folder: Path, test: Callable[[Puller], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), lying_registry() as registry:
            await test(Puller(registry, folder))

    asyncio.run(run())
    assert not list((folder / "underway").iterdir())
