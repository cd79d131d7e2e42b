"""A container goes on when its daemon is killed, and where a checkpoint was made."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.containers.runtime.spec import Ended, Process, RuntimeFailure
from tests.containers.runtime.boxes import TIMEOUT, Boxes, all_of, words_layer
from tests.programs.running import ROOT, environment

_COPY = Process(("words", "copy"), ("PATH=/bin",), open_stdin=True)


@pytest.fixture
def leases(tmp_path: Path) -> Path:
    folder = tmp_path / "leases"
    folder.mkdir(mode=0o700)
    return folder


def be_killed(folder: str, pauses: bool) -> None:
    """Start a container, and another program in it, and be killed in the middle of a conversation."""
    boxes = Boxes(Path(folder), (str(Path(folder, "words.erofs")),), leases=str(Path(folder, "leases")))

    async def run() -> None:
        spec = boxes.spec("words", "copy")
        vm = await boxes.runtime.start(spec)
        other = await vm.exec(_COPY)
        await vm.main.write(b"first")
        assert await vm.main.read() == (1, b"first")
        await other.write(bytes(50_000))
        place = 0
        if pauses:
            await vm.pause()
            place = vm.domain.icount
        Path(folder, "spec").write_bytes(pickle.dumps((spec, vm.main.pid, place)))
        os.kill(os.getpid(), signal.SIGKILL)

    boxes.run(run())


@pytest.fixture
def boxes(tmp_path: Path, leases: Path, request: pytest.FixtureRequest) -> Iterator[Boxes]:
    words_layer(tmp_path)
    pauses = bool(getattr(request, "param", False))
    program = f"from tests.containers.runtime.test_attaching import be_killed; be_killed({str(tmp_path)!r}, {pauses})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment(), timeout=TIMEOUT, check=False)
    assert done.returncode == -signal.SIGKILL
    made = Boxes(tmp_path, (str(tmp_path / "words.erofs"),), leases=str(leases))
    yield made
    made.close()


def test_a_daemon_that_was_killed(boxes: Boxes, tmp_path: Path) -> None:
    spec, _, _ = pickle.loads((tmp_path / "spec").read_bytes())

    async def run() -> None:
        vm = await boxes.runtime.attach_again(spec)
        assert vm is not None
        assert (await all_of(await vm.exec(Process(("words", "say", "here"), ("PATH=/bin",))))).output == b"here\n"
        await vm.main.write(b"second")
        vm.main.end_input()
        assert await all_of(vm.main) == (b"second", b"", 0)
        assert await vm.wait() == Ended(0)
        assert await boxes.runtime.attach_again(spec) is None

    boxes.run(run())


@pytest.mark.parametrize("boxes", [True], indirect=True)
@pytest.mark.parametrize("ends", [False, True])
def test_a_container_that_was_paused_stands_still_for_the_next_daemon(boxes: Boxes, tmp_path: Path, ends: bool) -> None:
    """It does not execute one instruction until its user lets it go on, or end."""
    spec, pid, place = pickle.loads((tmp_path / "spec").read_bytes())

    async def run() -> None:
        vm = await boxes.runtime.attach_again(spec, pid=pid, is_paused=True)
        assert vm is not None and vm.is_paused
        await asyncio.sleep(0.2)
        assert (vm.is_paused, vm.domain.icount, vm.main.pid) == (True, place, pid)
        if ends:
            await vm.kill(signal.SIGKILL)
            await vm.resume()
            assert await vm.wait() == Ended(137)
            return
        await vm.resume()
        assert (await all_of(await vm.exec(Process(("words", "say", "here"), ("PATH=/bin",))))).output == b"here\n"
        await vm.main.write(b"second")
        vm.main.end_input()
        assert await all_of(vm.main) == (b"second", b"", 0)
        assert await vm.wait() == Ended(0)

    boxes.run(run())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    folder = tmp_path_factory.mktemp("boxes")
    made = Boxes(folder, (words_layer(folder),))
    yield made
    made.close()


def test_checkpoints(plain: Boxes, tmp_path: Path) -> None:
    """A container goes on where it was, as often as one likes, with its files of that time and random numbers of its
    own.
    """
    random = Process(("words", "random", "file", "/log"), ("PATH=/bin",))

    async def run() -> None:
        spec = plain.spec("words", "copy")
        vm = await plain.runtime.start(spec)
        await vm.main.write(b"before ")
        assert await vm.main.read() == (1, b"before ")
        await all_of(await vm.exec(Process(("words", "write", "/log", "kept"), ("PATH=/bin",))))
        await vm.checkpoint(str(tmp_path / "checkpoint"), goes_on=True)
        await vm.main.write(b"after")
        vm.main.end_input()
        assert await all_of(vm.main) == (b"after", b"", 0)
        await vm.wait()
        seen = set()
        for word in (b"one", b"two"):
            vm = await plain.runtime.start_from(spec, str(tmp_path / "checkpoint"))
            await vm.main.write(word)
            said = await all_of(await vm.exec(random))
            assert said.output.endswith(b"kept\n")
            seen.add(said.output)
            vm.main.end_input()
            assert await all_of(vm.main) == (word, b"", 0)
            assert await vm.wait() == Ended(0)
        assert len(seen) == 2
        with pytest.raises(RuntimeFailure, match="cannot be written"):
            await (await plain.start("words", "copy")).checkpoint(str(tmp_path / "checkpoint"))

    plain.run(run())


@pytest.mark.parametrize("file", ["state", "port", "disk"])
def test_a_checkpoint_that_is_damaged(plain: Boxes, tmp_path: Path, file: str) -> None:
    async def run() -> None:
        spec = plain.spec("words", "copy")
        await (await plain.runtime.start(spec)).checkpoint(str(tmp_path / "checkpoint"))
        path = tmp_path / "checkpoint" / file
        if file == "disk":
            path.touch()  # it is another one than the state knows
        else:
            path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(RuntimeFailure):
            await plain.runtime.start_from(spec, str(tmp_path / "checkpoint"))

    plain.run(run())
