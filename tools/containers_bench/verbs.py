"""Short commands from a warm template, in alternation with a real dockerd."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from figure import Figure, timed

from containers_bench.engine import Engine, Setup, our_engine, real_engine

_RUN_MS, _EXEC_MS = 150.0, 40.0
_OURS: Final = "dbt"


def measure(setup: Setup) -> list[Figure]:
    """Return the times of ``docker run`` and ``docker exec`` at each engine."""
    with ExitStack() as stack:
        ours = stack.enter_context(our_engine(setup.folder / "verbs"))
        ours.import_busybox(setup.images, "armel")
        engines = {_OURS: ours}
        if setup.has_dockerd:
            real = stack.enter_context(real_engine(setup.folder / "verbs-dockerd"))
            real.import_busybox(setup.images, "amd64")
            engines["dockerd"] = real
        for engine in engines.values():
            engine.docker("run", "-d", "--network", "none", "--name", "sleeper", "busybox", "sleep", "10000")
        figures = _alternate(setup, engines, "docker run --rm busybox echo hi", _run, _RUN_MS)
        figures += _alternate(setup, engines, "docker exec CONTAINER true", _exec, _EXEC_MS)
        for engine in engines.values():
            engine.docker("rm", "-f", "sleeper")
    return figures


def _run(engine: Engine) -> None:
    if engine.docker("run", "--rm", "--network", "none", "busybox", "echo", "hi") != "hi\n":
        raise RuntimeError("the container has not said hi")


def _exec(engine: Engine) -> None:
    engine.docker("exec", "sleeper", "true")


def _alternate(
    setup: Setup, engines: dict[str, Engine], title: str, work: Callable[[Engine], None], limit: float
) -> list[Figure]:
    values: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        work(engine)
    for _ in range(setup.runs):
        for name, engine in engines.items():
            values[name] += timed(partial(work, engine), 1, skipped=0)
    return [Figure(f"{title}, {name}", found, "ms", limit if name == _OURS else None) for name, found in values.items()]
