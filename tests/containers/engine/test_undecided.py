"""A container whose new engine is killed before it has said that it has it, and whose machine there has the disk."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbt.hypervisor.process.lease import leases
from tests.containers.engine.asking import frames, hijack, running
from tests.containers.engine.engines import TestEngine, engine_in
from tests.containers.engine.images import add_images


def _dying(point: str) -> list[str]:
    return [sys.executable, "-m", "tests.containers.engine.dying", point]


@contextmanager
def _undecided(tmp_path: Path) -> Iterator[tuple[TestEngine, TestEngine]]:
    """Yield two engines, between which a container is. The second one does not run any more, and can be started."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir(0o700)
        add_images(tmp_path / name)
    with engine_in(tmp_path / "a") as here, engine_in(tmp_path / "b", _dying("DESTINATION_RUNNABLE")) as there:
        running(here)
        said = here.ask("POST", f"/dbt/containers/box/migrate?destination=unix://{there.socket}")
        assert said.status == 409 and "dbt container resume --force box" in said.message, said
        there.end(signal.SIGKILL)
        there.starter = ()
        try:
            yield here, there
        finally:
            if not there.is_running:
                for lease in leases(str(there.folder / "machines")):
                    os.kill(lease.pid, signal.SIGKILL)


def _speaks(engine: TestEngine) -> bool:
    id = engine.ask("POST", "/containers/box/exec", {"Cmd": ["words", "say", "x"], "AttachStdout": True}).json["Id"]
    return frames(hijack(engine, f"/exec/{id}/start", {"Detach": False})[0]) == [(1, b"x\n")]


def _states(*engines: TestEngine) -> list[list[str]]:
    return [[one["State"] for one in engine.ask("GET", "/containers/json?all=1").json] for engine in engines]


def _stands_still(engine: TestEngine) -> None:
    """See that all that is said of the container is what docker says of a paused one, and is said at once."""
    state = engine.ask("GET", "/containers/box/json").json["State"]
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True)
    (listed,) = engine.ask("GET", '/containers/json?filters={"status":["paused"]}').json
    assert listed["Status"].endswith("(Paused)")
    info = engine.ask("GET", "/info").json
    assert (info["ContainersRunning"], info["ContainersPaused"]) == (0, 1)
    assert engine.ask("GET", "/containers/box/stats?stream=0").status == 200


def _settle(expected: list[list[str]], *engines: TestEngine) -> None:
    """Wait until the states at two engines are these, and the machine does not stand still. What an engine says before
    it has asked the other one, or told it, is not the end.
    """
    end = time.monotonic() + 60
    while _is_undecided(engines[0]) or _states(*engines) != expected:
        assert time.monotonic() < end
        time.sleep(0.2)


def _the_one_with_it(*engines: TestEngine) -> TestEngine:
    """Wait until one of two engines executes the container, and the other one does not have it. Return that one."""
    end = time.monotonic() + 60
    while True:
        states = _states(*engines)
        if sorted(states) == [[], ["running"]]:
            found = engines[states.index(["running"])]
            if found.ask("POST", "/containers/box/exec", {"Cmd": ["words"]}).status == 201:
                return found
        assert time.monotonic() < end, states
        time.sleep(0.2)


def _is_undecided(engine: TestEngine) -> bool:
    return b"may be there" in engine.ask("POST", "/containers/box/exec", {"Cmd": ["words"]}).body


@pytest.mark.parametrize("is_killed", [False, True])
def test_its_user_decides(tmp_path: Path, is_killed: bool) -> None:
    """Whether the engine that it leaves goes on, or is killed, too, and started again."""
    with _undecided(tmp_path) as (here, there):
        if is_killed:
            here.end(signal.SIGKILL)
            began = time.monotonic()
            here.start()
            assert time.monotonic() - began < 25  # nobody is waited for that does not answer
        assert _states(here) == [["paused"]]
        _stands_still(here)
        if not is_killed:
            said = here.ask("POST", "/dbt/containers/box/resume?force=1")
            assert said.status == 409 and "cannot go on here" in said.message
        (lease,) = leases(str(there.folder / "machines"))
        os.kill(lease.pid, signal.SIGKILL)
        while list(leases(str(there.folder / "machines"))):
            time.sleep(0.05)
        for request in ("start", "stop", "pause", "unpause", "kill?signal=TERM", "attach?stream=1", "exec"):
            said = here.ask("POST", f"/containers/box/{request}", {"Cmd": ["words"]} if request == "exec" else None)
            assert said.status == 409 and b"dbt container resume --force box" in said.body, request
        assert here.ask("POST", "/dbt/containers/box/resume").status == 409
        assert here.ask("POST", "/dbt/containers/box/resume?force=1").status == 204
        assert _states(here) == [["running"]]
        assert _speaks(here)
        assert here.ask("POST", "/dbt/containers/box/resume?force=1").status == 409
        assert here.ask("POST", "/containers/box/start").status == 304


def test_it_can_be_removed(tmp_path: Path) -> None:
    with _undecided(tmp_path) as (here, _):
        said = here.ask("DELETE", "/containers/box")
        assert said.status == 409 and "dbt container resume --force box" in said.message
        assert here.ask("DELETE", "/containers/box?force=1").status == 204
        assert not list((here.folder / "containers").iterdir())


def test_the_engines_find_out(tmp_path: Path) -> None:
    with _undecided(tmp_path) as (here, there):
        there.start()
        _settle([["running"], []], here, there)
        assert _speaks(here)


def test_an_engine_that_is_killed_when_it_has_decided(tmp_path: Path) -> None:
    """On one host, the machine is at the destination if that could say so before the source's engine was gone."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir(0o700)
        add_images(tmp_path / name)
    with engine_in(tmp_path / "a", _dying("SOURCE_COMMITTED")) as here, engine_in(tmp_path / "b") as there:
        running(here)
        with pytest.raises((OSError, http.client.HTTPException)):
            said = here.ask("POST", f"/dbt/containers/box/migrate?destination=unix://{there.socket}")
            pytest.fail(f"The engine is not dead, but says {said}")
        here.end(signal.SIGKILL)
        here.starter = ()
        here.start()
        assert _speaks(_the_one_with_it(here, there))


def test_an_engine_that_stands_still_is_not_waited_for(tmp_path: Path) -> None:
    with _undecided(tmp_path) as (here, there):
        here.end(signal.SIGKILL)
        there.start()
        os.kill(there.pid, signal.SIGSTOP)
        try:
            here.start()
            assert _is_undecided(here)
        finally:
            os.kill(there.pid, signal.SIGCONT)
        _settle([["running"], []], here, there)
        assert _speaks(here)
