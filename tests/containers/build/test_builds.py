"""Builds say and make what those of a real dockerd do (``expected``, written by refresh.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.containers.build.running import PlainMachines
from dbt.containers.runtime.runtime import Runtime
from dbt.containers.runtime.spec import RuntimeFailure
from tests.containers.build.building import HAS_BUSYBOX, Build
from tests.containers.build.cases import CASES
from tests.containers.build.transcript import EXPECTED
from tests.containers.images.archives import archive, member

WITHOUT_PROGRAMS = sorted(name for name, case in CASES.items() if not case.runs)


@pytest.mark.parametrize("name", WITHOUT_PROGRAMS)
def test_a_build_without_programs(tmp_path: Path, name: str) -> None:
    build = Build(tmp_path)
    assert build.run(build.transcript(CASES[name])) == (EXPECTED / f"{name}.txt").read_text()
    assert list(build.folder.iterdir()) == []


@pytest.fixture(scope="module")
def runner() -> Iterator[tuple[asyncio.Runner, Runtime]]:
    if not HAS_BUSYBOX:
        pytest.skip("DBT_CONTAINER_IMAGES is no directory with busybox-armel.tar")

    async def make() -> Runtime:
        runtime = Runtime()
        await runtime.prepare()
        return runtime

    with asyncio.Runner() as runner:
        try:
            runtime = runner.run(make())
        except RuntimeFailure as error:
            pytest.skip(f"there is no guest: {error}")
        yield runner, runtime
        runner.run(runtime.close())


@pytest.mark.parametrize("name", sorted(set(CASES) - set(WITHOUT_PROGRAMS)))
def test_a_build_with_programs(tmp_path: Path, runner: tuple[asyncio.Runner, Runtime], name: str) -> None:
    build = Build(tmp_path, PlainMachines(runner[1]))
    said = runner[0].run(build.transcript(CASES[name]))
    assert in_order(said) == in_order((EXPECTED / f"{name}.txt").read_text())
    assert list(build.folder.iterdir()) == []


def in_order(text: str) -> str:
    """Put what a program writes to its two streams, whose order is by chance, into one."""
    return text.replace("\x1b[91merr\n\x1b[0mout\n", "out\n\x1b[91merr\n\x1b[0m")


def test_the_cache_comes_from_an_image_of_elsewhere(tmp_path: Path) -> None:
    """An image that was pulled or loaded has no steps but in its history. Others than those named are not taken."""
    file = b"FROM busybox\nENV A=1\nCOPY file /one\nLABEL b=2\nCOPY file /two\n"

    def context(text: bytes) -> bytes:
        return archive([member("Dockerfile", data=text), member("file", data=b"content")])

    async def run() -> None:
        build = Build(tmp_path)
        made = build.image_of(await build.messages(context(file), {"t": "known"}))
        assert made is not None
        for step in [one for one in build.store.images() if one.id not in (made.id, build.base.id)]:
            build.store.forget(step)
        query = {"cachefrom": '["nothing", "known"]'}
        again = await build.messages(context(file), query)
        assert build.image_of(again) == build.store.by_id(made.id)
        assert sum(message.get("stream") == " ---> Using cache\n" for message in again) == 4
        longer = await build.messages(context(file + b"ENV C=3\n"), query)
        assert sum(message.get("stream") == " ---> Using cache\n" for message in longer) == 4
        for other in ('["nothing"]', '["busybox"]'):
            missed = await build.messages(context(file), {"cachefrom": other})
            assert not any(message.get("stream") == " ---> Using cache\n" for message in missed)
        differs = await build.messages(context(file.replace(b"A=1", b"A=9")), query)
        assert not any(message.get("stream") == " ---> Using cache\n" for message in differs)

    asyncio.run(run())
