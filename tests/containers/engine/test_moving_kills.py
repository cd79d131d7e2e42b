"""Engines that are killed while a container moves: it is at one of them, and never at both."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.containers.engine.asking import frames, hijack, running
from tests.containers.engine.engines import TestEngine, engine_in
from tests.containers.engine.images import add_images
from tests.long import LONG

#: Seconds after the request at which an engine dies. A move takes about half a second on a machine with nothing to do.
_MOMENTS = [round(0.04 * number, 2) for number in range(30)]
_VICTIMS = ["source", "destination"]
_CASES = list(itertools.product(_VICTIMS, _MOMENTS)) if LONG else [("source", 0.16), ("destination", 0.44)]


def _state_at(engine: TestEngine) -> str | None:
    """Return the state that an engine tells of the container, or None if it has none. An engine that does not know who
    has the container says so as an error of it, and asks the other one; until then it executes nothing of it.
    """
    found = engine.ask("GET", "/containers/json?all=1").json
    assert len(found) < 2
    if not found or (told := engine.ask("GET", f"/containers/{found[0]['Id']}/json")).status == 404:  # it has just gone
        return None
    state = told.json["State"]
    return f"{state['Status']}: {state['Error']}" if state["Error"] else str(state["Status"])


@pytest.mark.parametrize(("victim", "moment"), _CASES)
def test_a_container_is_at_one_engine(victim: str, moment: float, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(0o700)
    (tmp_path / "b").mkdir(0o700)
    add_images(tmp_path / "a")
    add_images(tmp_path / "b")
    with engine_in(tmp_path / "a") as here, engine_in(tmp_path / "b") as there:
        running(here)

        def move() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                here.ask("POST", f"/dbt/containers/box/migrate?destination=unix://{there.socket}")

        mover = threading.Thread(target=move)
        mover.start()
        time.sleep(moment)
        engine = here if victim == "source" else there
        engine.end(signal.SIGKILL)
        if victim == "source":
            mover.join()
        engine.start()
        mover.join()
        end = time.monotonic() + 60
        while (states := (_state_at(here), _state_at(there))) not in (("running", None), (None, "running")):
            assert time.monotonic() < end, states
            time.sleep(0.5)
        owner = here if states[0] else there
        id = owner.ask("POST", "/containers/box/exec", {"Cmd": ["words", "say", "x"], "AttachStdout": True}).json["Id"]
        assert frames(hijack(owner, f"/exec/{id}/start", {"Detach": False})[0]) == [(1, b"x\n")]
