"""A container whose start does not come to its end can be stopped and removed, and its engine ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dbt.containers import VARIABLE
from dbt.containers.engine.config import CreateBody
from dbt.containers.engine.container import Container
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.places import Places
from dbt.containers.runtime.session import Session
from tests.containers.engine.images import add_images

_WHY = "it was stopped before its program began"


async def _remove(engine: Engine, container: Container) -> None:
    await engine.containers.remove(container, force=True, with_volumes=False)
    assert not list(engine.containers)


async def _stop(engine: Engine, container: Container) -> None:
    await container.stop(0)
    assert not container.record.state.starting and not container.record.state.running


async def _end(engine: Engine, container: Container) -> None:
    await engine.close()


@pytest.mark.parametrize("give_up", [_remove, _stop, _end])
def test_nobody_waits_for_ever_for_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, give_up: Callable[[Engine, Container], Awaitable[None]]
) -> None:
    waits = asyncio.Event()

    async def never(session: Session) -> None:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setenv(VARIABLE, str(tmp_path / "c"))
    monkeypatch.setattr(Session, "started", never)
    monkeypatch.setattr("dbt.containers.engine.container._DEFAULT_STOP_S", 0)

    async def run() -> None:
        engine = await Engine.open(Places(), "1")
        container, _ = await engine.containers.create("box", CreateBody(image="words"))
        starting = asyncio.create_task(container.start())
        await waits.wait()
        async with asyncio.timeout(60):
            await give_up(engine, container)
            with pytest.raises(Exception, match=_WHY):
                await starting
        assert not engine.runtime._vms
        if give_up is not _end:
            await engine.close()

    (tmp_path / "c").mkdir(0o700)
    add_images(tmp_path / "c")
    asyncio.run(run())
