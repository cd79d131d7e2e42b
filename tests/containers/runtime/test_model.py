"""Containers share what they have in memory with a model, which is nobody's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.containers.runtime import model
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.session import Session
from dbt.containers.runtime.spec import Process, Spec
from dbt.hypervisor.process.process_vm import ProcessVm
from tests.containers.runtime.boxes import Boxes, words_layer

#: What a process may have for itself that waits, in KiB: the target of `make bench-containers`.
MOST_KB = 10 << 10
COPY = Process(("words", "copy"), ("PATH=/bin",), open_stdin=True)


@pytest.fixture
def boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boxes]:
    monkeypatch.delenv("DBT_HOT_AFTER", raising=False)  # as users have it, so that little is compiled
    made = Boxes(tmp_path, (words_layer(tmp_path),))
    yield made
    made.close()


def process_of(vm: ContainerVm) -> Path:
    """Return where Linux shows the process of a container's VM."""
    assert isinstance(vm.domain.vm, ProcessVm)
    return Path(f"/proc/{vm.domain.vm.pid}")


def private_kb(process: Path) -> int:
    lines = (process / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def shared_parts(process: Path) -> int:
    """Return how many parts of what a process has in memory it shares with the model."""
    return (process / "maps").read_text().count("dbt-model") - 1  # and one to compare with


def test_those_that_wait_share_what_they_have_with_it(boxes: Boxes) -> None:
    async def run() -> None:
        vms = [await boxes.start(process=COPY) for _ in range(model.WORTH_IT)]
        task = boxes.runtime._model
        assert task is not None
        await task
        assert len(boxes.runtime._vms) == len(vms), "the model is gone"
        async with asyncio.timeout(60):
            while not all(private_kb(process_of(vm)) <= MOST_KB and shared_parts(process_of(vm)) > 100 for vm in vms):
                await asyncio.sleep(0.2)

    boxes.run(run())


def test_those_that_start_later_begin_with_its_code(boxes: Boxes) -> None:
    """They do the same as the first ones, for which it was cold."""
    said = Process(("words", "file", "/etc/passwd", "status", "3"), ("PATH=/bin",))

    async def run() -> None:
        first = [await boxes.said(process=said) for _ in range(model.WORTH_IT)]
        assert boxes.runtime._model is not None
        await boxes.runtime._model
        vm = await boxes.start(process=COPY)
        assert "dbt-warm-code" in (process_of(vm) / "maps").read_text()
        assert await boxes.said(process=said) == first[0] == first[1]
        await vm.stop()

    boxes.run(run())


def test_an_engine_that_ends_meanwhile_leaves_no_model(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_AFTER_S", 0)
    monkeypatch.setattr(model, "WORTH_IT", 1)
    started = asyncio.Event()

    async def run() -> None:
        take = boxes.runtime._start_model

        async def start(spec: Spec) -> ContainerVm:
            started.set()
            return await take(spec)

        monkeypatch.setattr(boxes.runtime, "_start_model", start)
        vm = await boxes.start(process=COPY)
        await started.wait()
        await boxes.runtime.close()
        assert not boxes.runtime._vms
        assert vm.is_ending

    boxes.run(run())


def test_an_engine_ends_though_the_model_never_starts(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_AFTER_S", 0)
    monkeypatch.setattr(model, "WORTH_IT", 1)
    waits, started = asyncio.Event(), Session.started

    async def never_for_the_model(session: Session) -> None:
        if asyncio.current_task() is boxes.runtime._model:
            waits.set()
            await asyncio.Event().wait()
        await started(session)

    monkeypatch.setattr(Session, "started", never_for_the_model)

    async def run() -> None:
        await boxes.start(process=COPY)
        await waits.wait()
        async with asyncio.timeout(60):
            await boxes.runtime.close()
        assert not boxes.runtime._vms

    boxes.run(run())


@pytest.mark.parametrize("number", (0, 2))
def test_an_engine_may_end_at_any_time_of_the_start(boxes: Boxes, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(model, "_AFTER_S", 0)
    monkeypatch.setattr(model, "WORTH_IT", 1)

    async def run() -> None:
        await boxes.start(process=COPY)
        await asyncio.sleep(number * 0.02)
        await boxes.runtime.close()
        assert not boxes.runtime._vms

    boxes.run(run())


def test_without_a_model_containers_run(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model, "_AFTER_S", 0)
    monkeypatch.setattr(model, "WORTH_IT", 1)
    monkeypatch.setattr(model, "make_disk", lambda path: Path(path, "none").touch())

    async def run() -> None:
        vm = await boxes.start(process=COPY)
        assert boxes.runtime._model is not None
        await boxes.runtime._model
        assert not vm.is_ending

    boxes.run(run())
    assert "there is no model" in caplog.text
