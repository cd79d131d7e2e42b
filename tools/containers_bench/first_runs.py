"""The first container of all, with nothing in the cache or with handlers alone, and the first of an engine."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from dbt_command import DBT, checkout_environment
from figure import Figure

from containers_bench.engine import Setup, our_engine

_FIRST_MS, _WITH_HANDLERS_MS, _ENGINE_STARTED_MS = 16_000.0, 10_000.0, 600.0
_GUEST = Path(__file__).resolve().parents[2] / "guests/images/hello-armv7-a-O2.elf"


def measure(setup: Setup) -> list[Figure]:
    """Return the times from the start of an engine to the end of its first container."""
    images = setup.folder / "first"
    with our_engine(images) as engine:  # after which the image is there, and the user's cache is warm
        engine.import_busybox(setup.images, "armel")
        engine.docker("run", "--rm", "busybox", "true")
    empty, handlers = setup.folder / "empty-cache", setup.folder / "handlers-cache"
    first = [_time_to_hi(images, empty)]
    environment = {**checkout_environment(), "DBT_CACHE_DIR": str(handlers)}
    subprocess.run((*DBT, "run", str(_GUEST)), env=environment, check=True, stdout=subprocess.DEVNULL)
    with_handlers = [_time_to_hi(images, handlers)]
    started = [_time_to_hi(images, None) for _ in range(max(3, setup.runs // 3))]
    for cache in (empty, handlers):
        shutil.rmtree(cache)
    return [
        Figure("first container ever, nothing in the cache", first, "ms", _FIRST_MS),
        Figure("first container ever, handlers are built", with_handlers, "ms", _WITH_HANDLERS_MS),
        Figure("engine's start and its first container, warm", started, "ms", _ENGINE_STARTED_MS),
    ]


def _time_to_hi(folder: Path, cache: Path | None) -> float:
    begun = time.perf_counter()
    with our_engine(folder, cache) as engine:
        if engine.docker("run", "--rm", "busybox", "echo", "hi") != "hi\n":
            raise RuntimeError("the container has not said hi")
        return (time.perf_counter() - begun) * 1e3
